"""Plans as records, and as a table with the cheapest option named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.text import bullets, quantity, table
from costmodel.serving.capacity import Target
from costmodel.serving.planning import Option, Sizing

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["plan_record", "plan_rows", "plan_tables"]

_MISSED = {
    "": "nothing",
    "memory": "memory",
    "rate": "time",
    "ttft": "TTFT target",
    "tpot": "TPOT target",
}
_ASSUMPTIONS = (
    "requests arrive at random, each replica gets an equal share; prefills go first and one by "
    "one, all other requests decode together",
    "the quantile of TTFT is an upper bound; between the fast and the slow edge of the times lie "
    "90 % of labs and software",
    "image preprocessing, tokenising, sampling and the network are outside",
)


def plan_rows(options: Sequence[Option]) -> list[dict[str, Any]]:
    """Return one row for each option and edge of its band; the same keys in every row."""
    rows: list[dict[str, Any]] = []
    for option in options:
        for size in option.sizes or (None,):
            rows.append(_row(option, size))
    return rows


def _row(option: Option, size: Sizing | None) -> dict[str, Any]:
    load = size.load if size and size.replicas else None
    row: dict[str, Any] = plain({
        "gpu": option.gpu,
        "method": option.method,
        "visual_tokens_kept": _finite(option.visual_tokens_kept),
        "bound": size.bound if size else None,
        "gpus": option.gpus(size.bound) if size else None,
        "gpus_per_replica": option.gpus_per_replica,
        "requests_per_s_per_replica": size.requests_per_s if size else None,
        "prefill_share": load.prefill_share if load else None,
        "concurrent_requests": load.concurrent if load else None,
        "concurrent_requests_99": load.concurrent_99 if load else None,
        "fits_requests": option.fits_requests,
        "ttft_alone_s": _finite(option.alone_ttft_s),
        "ttft_mean_s": load.ttft_mean_s if load else None,
        "ttft_quantile_s": load.ttft_quantile_s if load else None,
        "tpot_alone_s": _finite(option.alone_tpot_s),
        "tpot_s": load.tpot_s if load else None,
        "cost_per_hour": option.cost_per_hour(size.bound) if size else None,
        "reason": option.reason or (_never(size) if size and not load else None),
    })  # fmt: skip
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _never(size: Sizing) -> str:
    return f"no number of GPUs is enough: {_MISSED[size.load.missed]} is missed without any load"


def plan_record(options: Sequence[Option], rate: float, target: Target) -> dict[str, Any]:
    """Return a plan as a JSON object."""
    return {
        "schema_version": SCHEMA_VERSION,
        "requests_per_s": rate,
        "target": {
            "ttft_s": target.ttft_s, "quantile": target.quantile, "tpot_s": target.tpot_s,
        },
        "options": plan_rows(options),
    }  # fmt: skip


def plan_tables(options: Sequence[Option], rate: float, target: Target) -> list[RenderableType]:
    """Return a plan for people: options, the cheapest or smallest, assumptions."""
    from rich.text import Text

    columns = (
        "GPU", "method", "GPUs", "fast..slow", "req/s\neach", "TTFT\nalone",
        f"TTFT\n{100 * target.quantile:g} %", "TPOT", "at\nonce", "fit", "cost\nper hour",
    )  # fmt: skip
    title = (
        f"{rate:g} requests/s, {100 * target.quantile:g} % of first tokens within "
        f"{quantity(target.ttft_s, 's')}"
    )
    if target.tpot_s is not None:
        title += f", TPOT within {quantity(target.tpot_s, 's')}"
    parts: list[RenderableType] = [
        Text(title), Text(""), table(columns, [_cells(one) for one in options], left=2),
        Text(""), Text(_verdict(options)),
    ]  # fmt: skip
    failed = [f"{one.method} on {one.gpu}: {one.reason}" for one in options if one.reason]
    failed += [
        f"{one.method} on {one.gpu}: {_never(size)}"
        for one in options
        for size in one.sizes
        if size.bound == "predicted" and size.replicas is None
    ]
    if failed:
        parts += bullets("Not possible", failed)
    return [*parts, *bullets("Assumptions", _ASSUMPTIONS)]


def _cells(option: Option) -> tuple[str, ...]:
    sizes = {size.bound: size for size in option.sizes}
    own = sizes.get("predicted")
    name = option.method.replace(":", ": ").replace(",", ", ")
    if own is None:
        return (option.gpu, name, *["-"] * 9)
    ends = [option.gpus(bound) for bound in ("low", "high")] if "low" in sizes else []
    load = own.load if own.replicas else None
    cost = option.cost_per_hour()
    return (
        option.gpu,
        name,
        _count(option.gpus()),
        "..".join(_count(end) for end in ends) or "-",
        f"{own.requests_per_s:.3g}",
        quantity(option.alone_ttft_s, "s"),
        quantity(load.ttft_quantile_s, "s") if load else "-",
        quantity(load.tpot_s, "s") if load else "-",
        f"{load.concurrent:.3g}" if load else "-",
        f"{option.fits_requests:,}",
        f"{cost:.2f}" if cost is not None else "-",
    )


def _count(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def _verdict(options: Sequence[Option]) -> str:
    """Name the option that is best at the slow edge: a queue does not forgive a slow server."""
    priced = all(one.price_per_hour is not None for one in options)
    bound = "high" if any(len(one.sizes) > 1 for one in options) else "predicted"

    def measure(one: Option) -> float | None:
        return one.cost_per_hour(bound) if priced else one.gpus(bound)

    known = [(value, one) for one in options if (value := measure(one)) is not None]
    if not known:
        return "No option serves this at the slow edge of its times."
    least = min(value for value, _ in known)
    best = [one for value, one in known if value == least]
    names = " or ".join(f"{one.gpus(bound)} x {one.gpu} with {one.method}" for one in best)
    what = f"Cheapest, {least:.2f} per hour" if priced else "Fewest GPUs"
    edge = " at the slow edge of the times" if bound == "high" else ""
    return f"{what}{edge}: {names}"
