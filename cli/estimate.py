"""``costmodel estimate``: what one request batch costs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .complete import conventions
from .options import (
    OUTPUT,
    format_option,
    gpu_option,
    model_argument,
    question,
    question_options,
    split,
    text_tokens_option,
)
from .output import check, emit, table_text

__all__ = ["command"]


@click.command("estimate")
@model_argument
@gpu_option
@text_tokens_option()
@question_options()
@format_option("table", "json", "csv")
@click.option(
    "--convention", metavar="NAME", shell_complete=conventions,
    help="Show the FLOPs as papers count them beside ours: mac-3mlp, mac-2mlp, flop-3mlp, "
    "llm-viewer, llm-viewer-legacy, llm-viewer-flash or flop, which is ours.",
)  # fmt: skip
@click.option("--explain", is_flag=True, help="Add every operator with its formulas.")
@OUTPUT
def command(
    model: str,
    gpus: tuple[str, ...],
    form: str,
    explain: bool,
    output: str | None,
    convention: str | None,
    **options: Any,
) -> None:
    """FLOPs, bytes, time and memory of one request batch.

    MODEL is a known name, a config.json or a folder that holds one.  With a
    compression the same request without it stands beside.  JSON and CSV are in SI units.

    Example: costmodel estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64
    --compress cluster:k=64
    """
    check(output)
    from costmodel.estimation import estimate
    from costmodel.report import records

    results = [
        estimate(model, gpu, convention=convention, **question(options)) for gpu in split(gpus)
    ]
    if form == "json":
        found = [records.estimate_record(result, explain=explain) for result in results]
        emit(records.to_json(found if len(found) > 1 else found[0]), output)
    elif form == "csv":
        rows = records.op_rows if explain else records.stage_rows
        emit(records.to_csv(row for result in results for row in rows(result)), output)
    else:
        from costmodel.report.tables import estimate_tables

        blocks = [
            part for result in results for part in [*estimate_tables(result, explain=explain), ""]
        ]
        emit(table_text(blocks[:-1], output), output)
