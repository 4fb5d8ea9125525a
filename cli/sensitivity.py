"""``costmodel sensitivity``: what a result hangs on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import rich_click as click

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

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"


def read_factors(values: Sequence[str]) -> list[float]:
    """Return the numbers of a list."""
    from costmodel.errors import InputError

    for text in values:
        if not re.fullmatch(_NUMBER, text):
            raise InputError("by", text, "factors above 0, for example 0.5,2")
    return [float(text) for text in values]


def read_ranges(values: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the factors of ``NAME=LOW:HIGH`` by name."""
    from costmodel.errors import InputError

    found = {}
    for text in values:
        match = re.fullmatch(rf"\s*([\w-]+)\s*=\s*({_NUMBER})\s*:\s*({_NUMBER})\s*", text)
        if match is None:
            raise InputError("range", text, "NAME=LOW:HIGH, for example bandwidth=0.5:2")
        found[match[1].replace("-", "_")] = float(match[2]), float(match[3])
    return found


@click.command("sensitivity")
@model_argument
@gpu_option
@text_tokens_option()
@click.option(
    "--vary", metavar="NAME,...", multiple=True,
    help="bandwidth, compute, launch, l2 and interconnect; with sobol also weights_dtype, but not "
    "l2. Default: all, and with sobol bandwidth, compute, launch and weights_dtype.",
)  # fmt: skip
@click.option(
    "--by", "factors", metavar="FACTOR,...", multiple=True, default=("0.5,2",), show_default=True,
    help="By how much each is scaled, one at a time.",
)  # fmt: skip
@click.option(
    "--method", metavar="oat|sobol", default="oat", show_default=True,
    help="One at a time, or shares of the variance while all vary.",
)  # fmt: skip
@click.option(
    "--range", "ranges", metavar="NAME=LOW:HIGH,...", multiple=True,
    help="With sobol: factors that a quantity varies by, if not the default ones.",
)  # fmt: skip
@click.option(
    "--samples", type=WHOLE, metavar="N", default=256, show_default=True,
    help="With sobol: points of each matrix, a power of two.",
)  # fmt: skip
@click.option(
    "--seed", type=WHOLE, metavar="N", default=0, show_default=True,
    help="With sobol: of the scrambled sequences.",
)  # fmt: skip
@question_options()
@format_option("table", "json", "csv")
@OUTPUT
def command(
    model: str,
    gpus: tuple[str, ...],
    vary: tuple[str, ...],
    factors: tuple[str, ...],
    method: str,
    ranges: tuple[str, ...],
    samples: Any,
    seed: Any,
    compress: tuple[str, ...],
    form: str,
    output: str | None,
    **options: Any,
) -> None:
    """Say what TTFT, TPOT and the saving hang on: what if bandwidth doubles.

    One at a time, every quantity of the machine is scaled and everything else stays; the
    elasticity is by how many percent a result changes for 1 % more.  With sobol all vary at once
    over stated ranges.

    Example: costmodel sensitivity llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64
    --compress cluster:k=64 --by 0.5,2
    """
    check(output)
    from costmodel.case import prepare
    from costmodel.errors import UnknownNameError
    from costmodel.report import sensitivities as report
    from costmodel.report.records import to_csv, to_json
    from costmodel.search import sensitivity, sobol

    if method not in ("oat", "sobol"):
        raise UnknownNameError("method", method, ("oat", "sobol"))
    asked = question(options) | {"compress": list(compress) or None}
    cases = [prepare(model, gpu, **asked) for gpu in split(gpus)]
    names = [name.replace("-", "_") for name in split(vary)]
    given: dict[str, Any] = {"quantities": names} if names else {}
    records: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    parts: list[Any] = []
    for case in cases:
        if method == "oat":
            found = sensitivity(case, **given, factors=read_factors(split(factors)))
            records.append(report.sensitivity_record(found))
            rows += report.sensitivity_rows(found)
            parts += [*report.sensitivity_tables(found), ""]
        else:
            varied = sobol(
                case, **given, ranges=read_ranges(split(ranges)), samples=samples, seed=seed
            )
            records.append(report.indices_record(varied))
            rows += report.indices_rows(varied)
            parts += [*report.indices_tables(varied), ""]
    if form == "json":
        emit(to_json(records if len(records) > 1 else records[0]), output)
    elif form == "csv":
        emit(to_csv(rows), output)
    else:
        emit(table_text(parts[:-1], output), output)
