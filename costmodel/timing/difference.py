r"""Bounds of the difference and of the ratio of two predicted times.

Both sides of a comparison run on the same machine with the same kernels, so that much of what
may be wrong with one is wrong with the other.  With :math:`u_i` the deviations of the parts on
the first side and :math:`v_j` of those on the second, the errors of
`costmodel.timing.composition` give for :math:`t_1 - x\,t_2`

.. math:: U_K^2(x) = \rho_K \Big(\sum_i u_i - x \sum_j v_j\Big)^2
          + (1 - \rho_K) \sum_\text{shapes} \Big(\sum_{i \in S} u_i - x \sum_{j \in S} v_j\Big)^2

The common error of a kind of kernels multiplies all kernels of that kind on both sides.  The
error of one shape cancels where both sides run that very shape, as in the vision tower, and is
independent where they do not.  A launch costs the same on both sides; another lab or framework
shifts all kernels of both.

The bounds of the ratio :math:`t_1 / t_2` are the x at which a bound of :math:`t_1 - x\,t_2` is
zero [1]_: the ratio is surely above 1 where the difference is surely above 0.

References
----------
.. [1] E. C. Fieller, "Some Problems in Interval Estimation", J. R. Stat. Soc. B 16 (2), 1954.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.evaluation import Evaluation, FloatArray
from costmodel.timing.composition import Part
from costmodel.timing.host import End, exposed_by_stage
from costmodel.timing.model import PassTimes

__all__ = ["Side", "difference_bounds", "ratio_bounds"]

_SAME = 1e-12
_STEPS = 60
_SETTLED = 1e-9

Bounds = dict[str, tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Side:
    """One side of a comparison at some points.

    Attributes
    ----------
    evaluation : Evaluation
        A pass.
    times : PassTimes
        Its times.
    """

    evaluation: Evaluation
    times: PassTimes

    @property
    def total_s(self) -> FloatArray:
        """Time of the pass [s]."""
        return self.evaluation.total(self.times.op_s) + self.times.host_overhead_s


@dataclass(frozen=True)
class _Term:
    """One error that both sides have: seconds each side takes less or more by it.

    Attributes
    ----------
    share : float
        Of its variance that counts.
    less, more : (ndarray, ndarray)
        Of the first and of the second side [s].
    """

    share: float
    less: tuple[FloatArray, FloatArray]
    more: tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class _Errors:
    """All errors, one row each, and how far from each other labs are."""

    share: FloatArray
    less: tuple[FloatArray, FloatArray]
    more: tuple[FloatArray, FloatArray]
    shift: _Term

    def deviations(self, kind: str, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how far the first time less `weight` times the second may fall and rise [s]."""
        down, up = (
            np.sqrt((self.share * side**2).sum(axis=0))
            for side in _ends(self.less, self.more, weight)
        )
        if kind == "any_stack":
            fall, rise = _ends(self.shift.less, self.shift.more, weight)
            return np.hypot(down, fall), np.hypot(up, rise)
        return down, up


def _ends(
    less: tuple[FloatArray, FloatArray], more: tuple[FloatArray, FloatArray], weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """How far an error may lower and raise the difference: kernels may be faster or slower."""
    faster, slower = weight * less[1] - less[0], more[0] - weight * more[1]
    fall = -np.minimum(np.minimum(faster, slower), 0.0)
    rise = np.maximum(np.maximum(faster, slower), 0.0)
    return fall, rise


def difference_bounds(one: Side, other: Side) -> Bounds:
    """Return the bounds of the time of `one` less that of `other`.

    Parameters
    ----------
    one, other : Side
        Times with bands.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Lower and upper bound [s] by kind of band (``same_stack``, ``any_stack``); empty where
        a side has no bands.
    """
    errors = _errors(one, other)
    if errors is None:
        return {}
    middle, weight = one.total_s - other.total_s, np.ones(())
    found = {}
    for kind in ("same_stack", "any_stack"):
        down, up = errors.deviations(kind, weight)
        found[kind] = (middle - down, middle + up)
    return found


def ratio_bounds(one: Side, other: Side) -> Bounds:
    """Return the bounds of the time of `one` over that of `other`.

    Parameters
    ----------
    one, other : Side
        Times with bands.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Lower and upper bound by kind of band (``same_stack``, ``any_stack``); the upper one is
        infinite where the second time may be nothing; empty where a side has no bands.
    """
    errors = _errors(one, other)
    if errors is None:
        return {}
    return {
        kind: (_zero(errors, kind, one, other, 0), _zero(errors, kind, one, other, 1))
        for kind in ("same_stack", "any_stack")
    }


def _zero(errors: _Errors, kind: str, one: Side, other: Side, end: int) -> FloatArray:
    """Return the weight of the second time at which a bound of the difference is zero."""
    first, second = one.total_s, np.maximum(other.total_s, 1e-300)
    middle = first / second

    def excess(ratio: FloatArray) -> FloatArray:
        deviation = errors.deviations(kind, ratio)[end]
        return first - ratio * second + (deviation if end else -deviation)

    low = np.zeros_like(middle) if end == 0 else middle
    high = middle if end == 0 else 2.0 * np.maximum(middle, 1e-300)
    for _ in range(_STEPS if end else 0):
        # The bound is above zero at the middle; look for where it no longer is.
        beyond = excess(high) <= 0
        if beyond.all():
            break
        low, high = np.where(beyond, low, high), np.where(beyond, high, 2.0 * high)
    open_ended = (excess(high) > 0) & (end == 1)
    for _ in range(_STEPS):
        tried = 0.5 * (low + high)
        above = excess(tried) > 0
        low, high = np.where(above, tried, low), np.where(above, high, tried)
        if (high - low <= _SETTLED * high).all():
            break
    return np.where(open_ended, np.inf, 0.5 * (low + high))


def _errors(one: Side, other: Side) -> _Errors | None:
    if not one.times.parts or not other.times.parts:
        return None
    points = np.broadcast_shapes(one.evaluation.points, other.evaluation.points)
    terms = [*_common(one, other), *_own(one, other), _host(one, other)]
    less = _columns([term.less for term in terms], points)
    more = _columns([term.more for term in terms], points)
    share = np.array([term.share for term in terms]).reshape(-1, *(1 for _ in points))
    shift = _Term(1.0, _sums(one, other, _lab_less), _sums(one, other, _lab_more))
    return _Errors(share, less, more, shift)


def _columns(
    pairs: Sequence[tuple[FloatArray, FloatArray]], points: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    first, second = (
        np.stack([np.broadcast_to(pair[side], points) for pair in pairs]) for side in (0, 1)
    )
    return first, second


def _less(part: Part) -> FloatArray:
    """Seconds less that the part may take."""
    return np.maximum(part.time_s * (1.0 - part.low), 0.0)


def _more(part: Part) -> FloatArray:
    return np.maximum(part.time_s * (part.high - 1.0), 0.0)


def _lab_less(part: Part) -> FloatArray:
    return part.time_s * (1.0 - 1.0 / part.lab_ratio)


def _lab_more(part: Part) -> FloatArray:
    return part.time_s * (part.lab_ratio - 1.0)


def _sums(
    one: Side, other: Side, of: Callable[[Part], FloatArray], kind: str = ""
) -> tuple[FloatArray, FloatArray]:
    """Sum over the parts of each side, of one kind or all."""
    zero: FloatArray = np.zeros(())
    first, second = (
        sum((of(part) for part in side.times.parts if kind in ("", part.kind)), start=zero)
        for side in (one, other)
    )
    return first, second


def _common(one: Side, other: Side) -> list[_Term]:
    """Errors common to all kernels of a kind, with their share of the variance."""
    shares = {part.kind: part.common_share for part in (*other.times.parts, *one.times.parts)}
    return [
        _Term(share, _sums(one, other, _less, kind), _sums(one, other, _more, kind))
        for kind, share in shares.items()
    ]


def _own(one: Side, other: Side) -> list[_Term]:
    """Errors of single shapes; those that both sides run are one error."""
    zero: FloatArray = np.zeros(())
    found = []
    free = [np.ones(one.evaluation.points, dtype=bool) for _ in one.times.parts]
    alike: dict[tuple[str, str], list[int]] = {}
    for i, mine in enumerate(one.times.parts):
        alike.setdefault((mine.kind, _last(one, i)), []).append(i)
    for j, part in enumerate(other.times.parts):
        less, more = zero, zero
        for i in alike.get((part.kind, _last(other, j)), ()):
            mine, first, second = one.times.parts[i], one.times.op_s[i], other.times.op_s[j]
            same = (np.abs(first - second) <= _SAME * second) & free[i]
            free[i] = free[i] & ~same
            less, more = less + same * _less(mine), more + same * _more(mine)
        found.append(_Term(1.0 - part.common_share, (less, _less(part)), (more, _more(part))))
    for mine, alone in zip(one.times.parts, free, strict=True):
        found.append(
            _Term(1.0 - mine.common_share, (alone * _less(mine), zero), (alone * _more(mine), zero))
        )
    return found


def _last(side: Side, index: int) -> str:
    """What an operator does, without the layers it does it in."""
    return side.evaluation.ops[index].name.rpartition(".")[2]


def _host(one: Side, other: Side) -> _Term:
    ends: tuple[End, ...] = ("low", "mid", "high")
    low, mid, high = ([_exposed_s(side, end) for side in (one, other)] for end in ends)
    return _Term(1.0, (mid[0] - low[0], mid[1] - low[1]), (high[0] - mid[0], high[1] - mid[1]))


def _exposed_s(side: Side, end: End) -> FloatArray:
    """Exposed host time with a launch at one end of its range [s]."""
    nothing: FloatArray = np.zeros(side.evaluation.points)
    stages = exposed_by_stage(side.evaluation, side.times.op_s, side.times.queues, end)
    return sum(stages.values(), nothing)
