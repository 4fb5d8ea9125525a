"""``costmodel plan``: GPUs for a rate of requests and a target."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .compare import split_methods
from .complete import methods as complete_methods
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


@click.command("plan")
@model_argument
@gpu_option
@text_tokens_option()
@click.option(
    "--rate", type=float, required=True, metavar="X",
    help="Requests per second of the whole service, arriving at random.",
)  # fmt: skip
@click.option(
    "--ttft", required=True, metavar="TIME",
    help="Time to the first token that users must get: 400ms or 0.4s.",
)  # fmt: skip
@click.option(
    "--quantile", type=float, default=0.95, show_default=True, metavar="Q",
    help="Share of the requests that must get it.",
)  # fmt: skip
@click.option("--tpot", metavar="TIME", help="Mean time per output token that users must get.")
@click.option(
    "--methods", metavar="METHOD,...", multiple=True, default=("none",), show_default=True,
    shell_complete=complete_methods, help="Compressions to compare, with parameters if you like.",
)  # fmt: skip
@click.option(
    "--price", "prices", metavar="GPU=X", multiple=True,
    help="Price of an hour of one GPU, in any currency; repeat for several.",
)  # fmt: skip
@click.option(
    "--reserve", type=float, default=0.1, show_default=True, metavar="SHARE",
    help="Share of the memory that is left to the serving engine.",
)  # fmt: skip
@question_options(compress=False)
@format_option("table", "json", "csv")
@OUTPUT
def command(
    model: str,
    gpus: tuple[str, ...],
    rate: float,
    ttft: str,
    quantile: float,
    tpot: str | None,
    methods: tuple[str, ...],
    prices: tuple[str, ...],
    reserve: float,
    form: str,
    output: str | None,
    **options: Any,
) -> None:
    """Size a service: GPUs for a rate of requests and a target for the first token.

    For every GPU and method: the most requests per second that one replica serves, GPUs for the
    whole rate at the fast edge of the 90 % band of times, as predicted and at the slow edge, the
    time to the first token under load as an upper bound of its quantile, requests that decode
    at once against those whose caches fit, and the cost.

    Example: costmodel plan llava-1.5-7b --gpu a100-80gb-sxm,rtx-a6000 --text-tokens 64
    --output-tokens 128 --rate 20 --ttft 400ms --methods none,avgpool:window=2,random:k=64
    """
    check(output)
    from costmodel.report.planning import plan_record, plan_rows, plan_tables
    from costmodel.report.records import to_csv, to_json
    from costmodel.serving.capacity import Target
    from costmodel.serving.planning import parse_prices, plan
    from costmodel.units import parse_si

    times = ("s", "ms", "us")
    target = Target(
        ttft_s=parse_si("ttft", ttft, times),
        quantile=quantile,
        tpot_s=None if tpot is None else parse_si("tpot", tpot, times),
    )
    found = plan(
        model, split(gpus), rate, target, methods=split_methods(methods),
        prices=parse_prices(split(prices)), reserve=reserve, **question(options),
    )  # fmt: skip
    if form == "csv":
        emit(to_csv(plan_rows(found)), output)
    elif form == "json":
        emit(to_json(plan_record(found, rate, target)), output)
    else:
        emit(table_text(plan_tables(found, rate, target), output), output)
