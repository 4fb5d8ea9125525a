"""``costmodel trace``: the predicted prefill as a timeline for Perfetto."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .complete import gpus
from .options import model_argument, question, question_options, text_tokens_option

__all__ = ["command"]


@click.command("trace")
@model_argument
@click.option(
    "--gpu",
    metavar="GPU",
    required=True,
    shell_complete=gpus,
    help="Known GPU, alias or YAML file.",
)
@click.option("-o", "--output", metavar="FILE", required=True, help="A .json file.")
@text_tokens_option(64)
@question_options()
def command(model: str, gpu: str, output: str, **options: Any) -> None:
    """Write the predicted prefill as a timeline.

    Open the file at https://ui.perfetto.dev or in chrome://tracing: every operator of every
    layer on the GPU with FLOPs, bytes, formulas and what its time rests on, waits for the host,
    launches, and the KV cache as it grows.

    Example: costmodel trace llava-1.5-7b --gpu a100-80gb-sxm --runtime eager -o trace.json
    """
    from costmodel.files import check_output, write_text

    check_output(output, (".json",))
    import json

    from costmodel.case import prepare
    from costmodel.report.chrome_trace import chrome_trace

    case = prepare(model, gpu, **question(options))
    write_text(output, json.dumps(chrome_trace(case), allow_nan=False) + "\n")
    click.echo(f"wrote {output}")
