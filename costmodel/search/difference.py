r"""Bounds of the difference of two predicted times.

Both sides of a comparison run on the same machine with the same kernels, so that much of what
may be wrong with one is wrong with the other.  With :math:`u_i` the deviations of the parts on
the first side and :math:`v_j` of those on the second, the errors of
`costmodel.timing.composition` give

.. math:: U_K^2 = \rho_K \Big(\sum_i u_i - \sum_j v_j\Big)^2
          + (1 - \rho_K) \sum_\text{shapes} \Big(\sum_{i \in S} u_i - \sum_{j \in S} v_j\Big)^2

The common error of a kind of kernels multiplies all kernels of that kind on both sides.  The
error of one shape cancels where both sides run that very shape, as in the vision tower, and is
independent where they do not.  A launch costs the same on both sides; another lab or framework
shifts all kernels of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from costmodel.evaluation import FloatArray
from costmodel.search.families import Side
from costmodel.timing.composition import Part
from costmodel.timing.kernels.launch import stage_time_s

__all__ = ["difference_bounds"]

_SAME = 1e-12
_Ends = tuple[FloatArray, FloatArray]


def difference_bounds(one: Side, other: Side) -> dict[str, tuple[FloatArray, FloatArray]]:
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
    if not one.times.parts or not other.times.parts:
        return {}
    shape = np.broadcast_shapes(one.evaluation.points, other.evaluation.points)
    squares = [np.zeros(shape), np.zeros(shape)]
    for signed, weight in (*_common(one, other), *_own(one, other), (_host(one, other), 1.0)):
        for side, deviation in enumerate(_either(signed)):
            squares[side] = squares[side] + weight * deviation**2
    shift = _either(_sums(one.times.parts, other.times.parts, _lab))
    middle = one.ttft_s - other.ttft_s
    down, up = (np.sqrt(total) for total in squares)
    return {
        "same_stack": (middle - down, middle + up),
        "any_stack": (middle - np.hypot(down, shift[0]), middle + np.hypot(up, shift[1])),
    }


@dataclass(frozen=True)
class _Signed:
    """What the difference changes by when kernels are faster, and when they are slower [s]."""

    faster: FloatArray
    slower: FloatArray


def _either(signed: _Signed) -> _Ends:
    """How far the difference may fall and rise: kernels may be faster or slower."""
    nothing = np.zeros(())
    lowest = np.minimum(np.minimum(signed.faster, signed.slower), nothing)
    highest = np.maximum(np.maximum(signed.faster, signed.slower), nothing)
    return -lowest, highest


def _deviation(part: Part) -> _Ends:
    """Seconds less and more that the part may take."""
    return (
        np.maximum(part.time_s * (1.0 - part.low), 0.0),
        np.maximum(part.time_s * (part.high - 1.0), 0.0),
    )


def _lab(part: Part) -> _Ends:
    return part.time_s * (1.0 - 1.0 / part.lab_ratio), part.time_s * (part.lab_ratio - 1.0)


def _sums(
    one: Sequence[Part], other: Sequence[Part], of: Callable[[Part], _Ends] = _deviation
) -> _Signed:
    zero: FloatArray = np.zeros(())
    faster, slower = zero, zero
    for sign, parts in ((1.0, one), (-1.0, other)):
        for less, more in map(of, parts):
            faster, slower = faster - sign * less, slower + sign * more
    return _Signed(faster, slower)


def _common(one: Side, other: Side) -> list[tuple[_Signed, float]]:
    """Errors common to all kernels of a kind, with their share of the variance."""
    shares = {part.kind: part.common_share for part in (*other.times.parts, *one.times.parts)}

    def of(side: Side, kind: str) -> list[Part]:
        return [part for part in side.times.parts if part.kind == kind]

    return [(_sums(of(one, kind), of(other, kind)), share) for kind, share in shares.items()]


def _own(one: Side, other: Side) -> list[tuple[_Signed, float]]:
    """Errors of single shapes; those that both sides run cancel."""
    found: list[tuple[_Signed, float]] = []
    free = [np.ones(one.evaluation.points, dtype=bool) for _ in one.times.parts]
    for j, part in enumerate(other.times.parts):
        total = _sums([], [part])
        for i, mine in enumerate(one.times.parts):
            if mine.kind == part.kind and _last(one, i) == _last(other, j):
                first, second = one.times.op_s[i], other.times.op_s[j]
                same = np.isclose(first, second, rtol=_SAME, atol=0.0) & free[i]
                free[i] = free[i] & ~same
                less, more = _deviation(mine)
                total = _Signed(total.faster - same * less, total.slower + same * more)
        found.append((total, 1.0 - part.common_share))
    for mine, alone in zip(one.times.parts, free, strict=True):
        less, more = _deviation(mine)
        found.append((_Signed(-1.0 * alone * less, 1.0 * alone * more), 1.0 - mine.common_share))
    return found


def _last(side: Side, index: int) -> str:
    """What an operator does, without the layers it does it in."""
    return side.evaluation.ops[index].name.rpartition(".")[2]


def _host(one: Side, other: Side) -> _Signed:
    ends: tuple[Literal["low", "mid", "high"], ...] = ("low", "mid", "high")
    low, middle, high = (_exposed_s(one, end) - _exposed_s(other, end) for end in ends)
    return _Signed(low - middle, high - middle)


def _exposed_s(side: Side, end: Literal["low", "mid", "high"]) -> FloatArray:
    """Exposed host time with a launch at one end of its range [s]."""
    evaluation, times = side.evaluation, side.times
    total: FloatArray = np.zeros(evaluation.points)
    for queue in times.queues:
        rows = list(queue.rows)
        counts = evaluation.repeat[rows]
        total = total + stage_time_s(
            (times.op_s[rows] * counts).sum(axis=0),
            (evaluation.launches[rows] * counts).sum(axis=0),
            (evaluation.host_syncs[rows] * counts).sum(axis=0),
            queue.costs.at_launch(end),
        )
    return total
