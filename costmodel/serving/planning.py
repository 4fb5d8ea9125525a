"""Plans: replicas of a model on some GPUs, with and without compression, for one traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodel.case import Case, prepare
from costmodel.compression.composition import parse_compression
from costmodel.errors import CostModelError, InputError, UnknownNameError
from costmodel.serving.capacity import (
    BOUNDS,
    Capacity,
    Replica,
    Target,
    capacity,
    most_requests,
    replicas_for,
)

__all__ = ["Option", "Sizing", "parse_prices", "plan"]


@dataclass(frozen=True)
class Sizing:
    """One edge of the band of an option.

    Attributes
    ----------
    bound : {"low", "predicted", "high"}
        Times at the fast edge, as predicted, at the slow edge.
    requests_per_s : float
        Most that one replica serves within the target [1/s].
    replicas : int or None
        For the whole traffic; None where no number is enough.
    load : Capacity
        How each of them fares; where none is enough, how one fares with no load.
    """

    bound: str
    requests_per_s: float
    replicas: int | None
    load: Capacity


@dataclass(frozen=True)
class Option:
    """One way to serve the traffic.

    Attributes
    ----------
    gpu, method : str
        Where, and the compression with its parameters; ``none`` for none.
    visual_tokens_kept : float
        Per request.
    gpus_per_replica : int
        Tensor-parallel devices.
    alone_ttft_s, alone_tpot_s : float
        Of a request that has a replica for itself [s].
    fits_requests : int
        Requests whose caches fit at once.
    sizes : tuple of Sizing
        One for each bound.
    price_per_hour : float, optional
        Of one GPU.
    reason : str
        Why there is no such option; empty if there is.
    """

    gpu: str
    method: str
    visual_tokens_kept: float = math.nan
    gpus_per_replica: int = 1
    alone_ttft_s: float = math.nan
    alone_tpot_s: float = math.nan
    fits_requests: int = 0
    sizes: tuple[Sizing, ...] = ()
    price_per_hour: float | None = None
    reason: str = ""

    def gpus(self, bound: str = "predicted") -> int | None:
        """Return the GPUs of the option at an edge of its band, None if no number is enough."""
        for size in self.sizes:
            if size.bound == bound and size.replicas is not None:
                return size.replicas * self.gpus_per_replica
        return None

    def cost_per_hour(self, bound: str = "predicted") -> float | None:
        """Return the price of these GPUs for an hour, None if it is not known."""
        count = self.gpus(bound)
        if count is None or self.price_per_hour is None:
            return None
        return count * self.price_per_hour


def parse_prices(texts: Sequence[str]) -> dict[str, float]:
    """Read prices such as ``a100-80gb-sxm=1.8``.

    Raises
    ------
    InputError
        If a text is no name and number.

    Examples
    --------
    >>> parse_prices(["a40=0.5", "l4 = 0.7"])
    {'a40': 0.5, 'l4': 0.7}
    """
    found = {}
    for text in texts:
        name, _, price = text.rpartition("=")
        try:
            found[name.strip()] = float(price)
        except ValueError:
            raise InputError("price", text, "GPU=NUMBER, for example a40=0.5") from None
        if not name.strip():
            raise InputError("price", text, "GPU=NUMBER, for example a40=0.5")
    return found


def plan(
    model: str,
    gpus: Sequence[str],
    requests_per_s: float,
    target: Target,
    *,
    methods: Sequence[str] = ("none",),
    prices: Mapping[str, float] | None = None,
    reserve: float = 0.1,
    **question: Any,
) -> list[Option]:
    """Size every pair of GPU and method for one traffic.

    Parameters
    ----------
    model, gpus
        Names.
    requests_per_s : float
        Poisson arrivals of the whole service [1/s].
    target : Target
        What users must get.
    methods : sequence of str
        Compressions with parameters; a chain by ``" then "``.
    prices : mapping of str to float, optional
        Of an hour of one GPU, by the names in `gpus`.
    reserve : float
        Share of the memory kept free for the engine.
    **question
        As in `costmodel.prepare`; requests are alike and are prefilled one by one.

    Returns
    -------
    list of Option
        GPU by GPU; one whose method cannot act says why.

    Raises
    ------
    CostModelError
        If a name is not known, the rate or a price is no positive number.

    Examples
    --------
    >>> (plain, sampled) = plan(
    ...     "llava-1.5-7b", ["a100-80gb-sxm"], 50, Target(ttft_s=0.5),
    ...     methods=["none", "random:k=64"], text_tokens=64, output_tokens=64)
    >>> plain.gpus() > sampled.gpus()
    True
    """
    if not (math.isfinite(requests_per_s) and requests_per_s > 0):
        raise InputError("rate", requests_per_s, "a positive number of requests per second")
    for name, price in (prices or {}).items():
        if name not in gpus:
            raise UnknownNameError("price", name, gpus)
        if not (math.isfinite(price) and price >= 0):
            raise InputError(f"price of {name}", price, "a number of at least 0")
    question.pop("batch", None)
    for method in methods:
        parse_compression(None if method == "none" else method)
    options = []
    for gpu in gpus:
        # Errors that do not come from a method end the plan before any is sized.
        prepare(model, gpu, **question)
        for method in methods:
            try:
                case = prepare(
                    model, gpu, compress=None if method == "none" else method, **question
                )
                found = _option(case, method, requests_per_s, target, reserve)
            except CostModelError as error:
                if method == "none" or len(methods) == 1:
                    raise
                found = Option(gpu, method, reason=str(error))
            options.append(replace(found, price_per_hour=(prices or {}).get(gpu)))
    return options


def _option(
    case: Case, method: str, requests_per_s: float, target: Target, reserve: float
) -> Option:
    banded = case.time_model == "calibrated"
    sizes = []
    alone = None
    for bound in BOUNDS if banded else ("predicted",):
        replica = Replica.of(case, bound=bound, reserve=reserve)
        count = replicas_for(replica, requests_per_s, target)
        load = capacity(replica, requests_per_s / count if count else 0.0, target)
        sizes.append(Sizing(bound, most_requests(replica, target), count, load))
        alone = replica if bound == "predicted" else alone
    if alone is None:
        raise InputError("bound", "predicted", "times")
    _, compression = case.program()
    layout = case.layout
    kept = compression.kept.mean if compression else float(layout.tokens if layout else 0)
    return Option(
        gpu=case.gpu.name,
        method=method,
        visual_tokens_kept=float(kept),
        gpus_per_replica=alone.gpus,
        alone_ttft_s=alone.prefill_s,
        alone_tpot_s=float(alone.step_s[0]) if alone.step_s.size else math.nan,
        fits_requests=alone.step_s.size,
        sizes=tuple(sizes),
    )
