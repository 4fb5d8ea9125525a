"""``costmodel compare``: methods side by side at the same number of kept tokens."""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

from .complete import methods as complete_methods
from .options import (
    OUTPUT,
    WHOLE,
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

_PARAMETER = re.compile(r"\s*[^:=]*=")


def split_methods(values: tuple[str, ...]) -> list[str]:
    """Return the methods in a list; ``key=value`` after a comma belongs to the one before."""
    found: list[str] = []
    for value in values:
        for index, part in enumerate(value.split(",")):
            if index and _PARAMETER.match(part):
                found[-1] += f",{part.strip()}"
            else:
                found.append(part.strip())
    return found


@click.command("compare")
@model_argument
@gpu_option
@text_tokens_option()
@click.option(
    "--methods",
    metavar="METHOD,...",
    multiple=True,
    required=True,
    shell_complete=complete_methods,
    help="Methods, with parameters if you like: cluster:iterations=5,random. "
    "One after the other: 'visionzip:k=256 then fastv'.",
)
@click.option(
    "--visual-tokens-kept",
    "budgets",
    metavar="N,...",
    multiple=True,
    required=True,
    help="Visual tokens each image keeps; several budgets are compared one after the other.",
)
@question_options(compress=False)
@format_option("table", "json", "csv")
@OUTPUT
def command(
    model: str,
    gpus: tuple[str, ...],
    methods: tuple[str, ...],
    budgets: tuple[str, ...],
    form: str,
    output: str | None,
    **options: Any,
) -> None:
    """Compare compression methods at the same number of kept tokens.

    The first row is no compression.  Times hold a method's own operators; the speed-up is of
    TTFT.  The score is what sources published at that number of tokens, in percent of the
    vanilla score of the same source, from the lowest source to the highest.  Kept are the
    tokens after the last layer; the mean is over the layers.  A method that cannot keep that
    many tokens says why.  Of methods one after the other the last is set so that the number
    remains of what the others leave; no scores are shown for them.

    Example: costmodel compare llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64
    --methods fastv,visionzip,tome --visual-tokens-kept 192,128,64
    """
    check(output)
    from costmodel.estimation import compare
    from costmodel.report import comparison
    from costmodel.report.records import to_csv, to_json

    wanted, asked = split_methods(methods), question(options)
    kept: list[Any] = [WHOLE.convert(text, None, None) for text in split(budgets)]
    found = [
        (number, compare(model, gpu, wanted, visual_tokens_kept=number, **asked))
        for gpu in split(gpus)
        for number in kept
    ]
    if form == "csv":
        rows = (row for number, one in found for row in comparison.comparison_rows(one, number))
        emit(to_csv(rows), output)
    elif form == "json":
        records = [comparison.comparison_record(one, number) for number, one in found]
        emit(to_json(records if len(records) > 1 else records[0]), output)
    else:
        blocks = [
            part
            for number, one in found
            for part in [*comparison.comparison_tables(one, number), ""]
        ]
        emit(table_text(blocks[:-1], output), output)
