"""``costmodel breakeven``: the values of one parameter for which a method pays."""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

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


def read_range(text: str | None) -> tuple[int, int] | None:
    """Return the two whole numbers of ``LOW:HIGH``."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]{1,12})\s*:\s*([0-9]{1,12})\s*", text)
    if found is None:
        from costmodel.errors import InputError

        raise InputError("range", text, "LOW:HIGH, two whole numbers such as 1:576")
    return int(found[1]), int(found[2])


@click.command("breakeven")
@model_argument
@gpu_option
@text_tokens_option(64)
@click.option(
    "--solve", metavar="NAME", required=True,
    help="batch, text_tokens, visual_tokens, or a whole-number parameter of the method, such as "
    "k or iterations.",
)  # fmt: skip
@click.option(
    "--metric", metavar="ttft|flops|bytes", default="ttft", show_default=True,
    help="What is compared with and without compression.",
)  # fmt: skip
@click.option(
    "--range", "span", metavar="LOW:HIGH",
    help="Values that are searched, all of them. Default: the tokens of an image for k, and so on.",
)  # fmt: skip
@question_options()
@format_option("table", "json", "csv")
@OUTPUT
def command(
    model: str,
    gpus: tuple[str, ...],
    text_tokens: Any,
    compress: tuple[str, ...],
    runtime: str,
    span: str | None,
    form: str,
    output: str | None,
    **options: Any,
) -> None:
    """Find the values of one parameter for which a method pays.

    All values of the range are evaluated with and without compression.  FLOPs and bytes are
    also solved from the formulas of the operators.  Separate several GPUs or runtimes by commas.
    CSV holds every value, JSON the answer.

    Example: costmodel breakeven llava-1.5-7b --gpu a100-80gb-sxm,rtx-a6000
    --compress cluster:iterations=10 --solve k --runtime eager,cuda-graph
    """
    check(output)
    from costmodel.errors import InputError
    from costmodel.report import break_evens as report
    from costmodel.report.records import to_csv, to_json
    from costmodel.search import break_even

    if not compress:
        raise InputError("compress", None, "a method, for example --compress cluster")
    asked = question({**options, "text_tokens": text_tokens})
    searched = read_range(span)
    found = [
        break_even(model, gpu, list(compress), span=searched, runtime=one, **asked)
        for gpu in split(gpus)
        for one in split([runtime])
    ]
    if form == "json":
        records = [report.break_even_record(one) for one in found]
        emit(to_json(records if len(records) > 1 else records[0]), output)
    elif form == "csv":
        emit(to_csv(report.break_even_csv(found)), output)
    else:
        emit(table_text(report.break_even_tables(found), output), output)
