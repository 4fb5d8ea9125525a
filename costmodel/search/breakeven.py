"""The values of one parameter for which a method pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from costmodel.case import Case
from costmodel.errors import InputError, UnknownNameError
from costmodel.evaluation import FloatArray
from costmodel.search.closed_form import ClosedForm, closed_form
from costmodel.search.families import families, possible_values, timed
from costmodel.search.floor import WeightFloor, weight_floor
from costmodel.search.parameters import Parameter, find_parameter
from costmodel.timing.difference import Side, difference_bounds

__all__ = ["METRICS", "BreakEven", "Crossing", "Metric", "break_even", "runs"]

Metric = Literal["ttft", "flops", "bytes"]
"""What is compared: time to the first token [s], FLOPs, or bytes moved [B], of a prefill."""

METRICS: tuple[Metric, ...] = get_args(Metric)

Runs = tuple[tuple[int, int], ...]
"""Ranges of values, both ends included."""


@dataclass(frozen=True)
class Crossing:
    """Two neighbouring values, of which one pays.

    Attributes
    ----------
    below, above : int
        The values.
    pays : {"below", "above"}
        Which of them.
    root : float, optional
        Where the closed form is zero between them; None where there is none.
    """

    below: int
    above: int
    pays: Literal["below", "above"]
    root: float | None = None


@dataclass(frozen=True, eq=False)
class BreakEven:
    """With and without compression, over the values of one parameter.

    Attributes
    ----------
    case : Case
        The question.
    parameter : Parameter
        What varies, and the range that was searched.
    metric : {"ttft", "flops", "bytes"}
        What is compared.
    values : ndarray of int
        Values that are possible.
    compressed, baseline : ndarray
        The metric with and without compression; [s], [FLOP] or [B].
    low, high : dict of str to ndarray
        Bounds of the difference by kind of band [s]; empty for counts and where the time model
        has no bands.
    floor : WeightFloor
        Prompt below which fewer tokens hardly save time.
    refused : int
        Values of the range that are not possible.
    reason : str
        Why the first of these is not.
    formula : ClosedForm, optional
        Of counts, where there is one.
    """

    case: Case
    parameter: Parameter
    metric: Metric
    values: npt.NDArray[np.int64]
    compressed: FloatArray
    baseline: FloatArray
    low: dict[str, FloatArray]
    high: dict[str, FloatArray]
    floor: WeightFloor
    refused: int
    reason: str
    formula: ClosedForm | None

    @property
    def difference(self) -> FloatArray:
        """The metric with compression less that without; below 0 the method pays."""
        result: FloatArray = self.compressed - self.baseline
        return result

    @property
    def pays(self) -> Runs:
        """Values for which the method costs less than it saves."""
        return runs(self.values, self.difference < 0)

    def surely_pays(self, band: str = "any_stack") -> Runs | None:
        """Return the values for which it pays even at the band's worse end; None without bands."""
        return runs(self.values, self.high[band] < 0) if band in self.high else None

    def may_pay(self, band: str = "any_stack") -> Runs | None:
        """Return the values for which it pays at the band's better end; None without bands."""
        return runs(self.values, self.low[band] < 0) if band in self.low else None

    @property
    def crossings(self) -> tuple[Crossing, ...]:
        """All neighbouring values between which the sign of the difference changes."""
        pays = self.difference < 0
        found = []
        for index in np.flatnonzero(pays[1:] != pays[:-1]):
            below, above = int(self.values[index]), int(self.values[index + 1])
            roots = self.formula.roots if self.formula else ()
            root = next((root for root in roots if below <= root <= above), None)
            found.append(Crossing(below, above, "below" if pays[index] else "above", root))
        return tuple(found)

    @property
    def verdict(self) -> str:
        """One sentence."""
        name, ends = self.parameter.name, f"{self.values[0]:,} to {self.values[-1]:,}"
        if (self.difference == 0).all():
            return f"the same with and without compression for every value of {name} from {ends}"
        if not self.crossings:
            side = "pays" if self.pays else "never pays"
            return f"{side} for every value of {name} from {ends}: no break-even there"
        parts = [
            f"from {above:,} on" if pays == "above" else f"up to {below:,}"
            for below, above, pays in ((c.below, c.above, c.pays) for c in self.crossings)
        ]
        return f"pays {', '.join(parts)} ({name} from {ends})"


def break_even(
    model: Any,
    gpu: Any,
    compress: str | Sequence[str],
    solve: str,
    *,
    metric: str = "ttft",
    span: tuple[int, int] | None = None,
    **options: Any,
) -> BreakEven:
    """Return for which values of a parameter a method pays.

    All whole numbers of the range are evaluated, since times need not be monotone.

    Parameters
    ----------
    model, gpu : str
        As in `costmodel.prepare`.
    compress : str or sequence of str
        The method; it need not set the parameter that is solved for.
    solve : str
        ``batch``, ``text_tokens``, ``visual_tokens`` (those that enter the method) or a
        whole-number parameter of the method, such as ``k`` or ``iterations``.
    metric : {"ttft", "flops", "bytes"}
        What is compared.
    span : (int, int), optional
        Range, both ends included.
    **options
        As in `costmodel.prepare`: text_tokens, batch, runtime, ...

    Returns
    -------
    BreakEven

    Raises
    ------
    CostModelError
        If a name, option or range is not valid.

    Examples
    --------
    >>> found = break_even("llava-1.5-7b", "a100-80gb-sxm", "cluster:k=64", "iterations",
    ...                    text_tokens=64, metric="flops")
    >>> found.verdict
    'pays for every value of iterations from 0 to 256: no break-even there'
    >>> [round(root) for root in found.formula.roots]
    [22641]
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    case, parameter = find_parameter(model, gpu, compress, solve, span, **options)
    if case.request is None or not case.request.compresses:
        raise InputError("compress", compress, "a method that compresses")
    return _searched(case, parameter, {name: name for name in METRICS}[metric])


def _searched(case: Case, parameter: Parameter, metric: Metric) -> BreakEven:
    possible = possible_values(case, parameter)
    compressed = families(possible, parameter, baseline=False)
    baseline = families(possible, parameter, baseline=True)
    columns: dict[str, FloatArray] = {}

    def fill(name: str, indices: npt.NDArray[np.intp], numbers: FloatArray) -> None:
        columns.setdefault(name, np.full(len(possible.values), np.nan))[indices] = numbers

    for indices, one, other in timed(case, compressed, baseline, times=metric == "ttft"):
        fill("compressed", indices, _measure(one, metric))
        fill("baseline", indices, _measure(other, metric))
        bounds = difference_bounds(one, other) if metric == "ttft" else {}
        for band, (low, high) in bounds.items():
            fill(f"low {band}", indices, low)
            fill(f"high {band}", indices, high)
    formula = None
    if metric != "ttft":
        gap = columns["compressed"] - columns["baseline"]
        values = possible.values.astype(np.float64)
        formula = closed_form(compressed, baseline, values, gap, metric)
    bands = [name.removeprefix("low ") for name in columns if name.startswith("low ")]
    return BreakEven(
        case=case,
        parameter=parameter,
        metric=metric,
        values=possible.values,
        compressed=columns["compressed"],
        baseline=columns["baseline"],
        low={band: columns[f"low {band}"] for band in bands},
        high={band: columns[f"high {band}"] for band in bands},
        floor=weight_floor(case),
        refused=possible.refused,
        reason=possible.reason,
        formula=formula,
    )


def _measure(side: Side, metric: Metric) -> FloatArray:
    evaluation = side.evaluation
    if metric == "ttft":
        return side.total_s
    if metric == "flops":
        return evaluation.total(evaluation.flops, [op.matmul for op in evaluation.ops])
    return evaluation.total(evaluation.bytes_moved)


def runs(values: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> Runs:
    """Return the ranges of neighbouring values that are chosen.

    Parameters
    ----------
    values : ndarray of int
        In order.
    chosen : ndarray of bool
        Of the same length.

    Examples
    --------
    >>> runs(np.array([1, 2, 3, 5, 6]), np.array([True, True, False, True, True]))
    ((1, 2), (5, 6))
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(np.int8), [0]))))
    return tuple(
        (int(values[first]), int(values[last - 1]))
        for first, last in edges.reshape(-1, 2)
    )  # fmt: skip
