"""Points that no other point beats: exact Pareto fronts over arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["pareto_mask"]

Bools = npt.NDArray[np.bool_]
_Rows = npt.NDArray[np.float64]

_BLOCK = 512
_CULLERS = 16


def pareto_mask(costs: npt.ArrayLike) -> Bools:
    """Return which points are on the Pareto front.

    A point is beaten by another that is at least as low in every column and lower in one, so
    that equal points stay or go together.

    Parameters
    ----------
    costs : array_like
        One row per point, one column per objective; all are minimised.  Rows with a NaN are
        never on the front.

    Returns
    -------
    ndarray of bool
        One per row.

    Notes
    -----
    Two objectives take a sort and a running minimum.  For three, rows in order of the first are
    merged pair by pair of blocks, the later block compared with the running minimum of the
    earlier: n log(n)^2 whatever the front, after H. T. Kung, F. Luccio, F. P. Preparata, "On
    finding the maxima of a set of vectors", J. ACM 22(4), 1975.  Beyond three, blocks of rows are
    compared with the front so far, which takes n times the size of the front.

    Examples
    --------
    >>> pareto_mask([[1, 4], [2, 2], [3, 3], [2, 2], [float("nan"), 0]]).tolist()
    [True, True, False, True, False]
    """
    rows = np.asarray(costs, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError("costs: expected one row per point and one column per objective")
    mask: Bools = np.asarray(~np.isnan(rows).any(axis=1), dtype=bool)
    if not rows.shape[1] or not mask.any():
        return mask
    kept = np.flatnonzero(mask)
    # Infinities and signed zeros compare as they should.
    found, slots = _unique(rows[kept] + 0.0)
    mask[kept] = _front(found)[slots]
    return mask


def _unique(rows: _Rows) -> tuple[_Rows, npt.NDArray[np.intp]]:
    """Rows in lexicographic order, each once, and where every row went."""
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    slots = np.empty(len(rows), dtype=np.intp)
    slots[order] = np.cumsum(new) - 1
    return ordered[new], slots


def _front(rows: _Rows) -> Bools:
    """Front of rows that are in lexicographic order and differ: only earlier ones can beat."""
    columns = rows.shape[1]
    if columns == 1:
        first: Bools = np.arange(len(rows)) == 0
        return first
    if columns == 2:
        before = np.concatenate(([np.inf], np.minimum.accumulate(rows[:-1, 1])))
        below: Bools = (rows[:, 1] < before) | (np.arange(len(rows)) == 0)
        return below
    return _merged(rows) if columns == 3 else _filtered(rows)


def _merged(rows: _Rows) -> Bools:
    """Front of three columns by merging neighbouring blocks of 1, 2, 4 ... rows."""
    kept = np.flatnonzero(~_culled(rows))
    count = len(kept)
    length = 1 << (count - 1).bit_length()
    second, third = (_ranks(rows[kept, column], length) for column in (1, 2))
    nothing = np.int32(length + 1)
    beaten = np.zeros(length, dtype=bool)
    order: npt.NDArray[np.intp] = np.arange(length)
    size = 1
    while size < length:
        # Both halves are in order of the second column; stable, so that of equals the left is
        # first.
        order = order.reshape(-1, 2 * size)
        by = np.argsort(second[order], axis=1, kind="stable")
        order = np.take_along_axis(order, by, axis=1)
        left = by < size
        own = third[order]
        lowest = np.minimum.accumulate(np.where(left, own, nothing), axis=1)
        beaten[order[~left & (lowest <= own)]] = True
        size *= 2
    mask = np.zeros(len(rows), dtype=bool)
    mask[kept[~beaten[:count]]] = True
    return mask


def _ranks(column: _Rows, length: int) -> npt.NDArray[np.int32]:
    """Rank of every value, equal for equals, with padding above all of them."""
    ranks = np.full(length, length, dtype=np.int32)
    ranks[: len(column)] = np.unique(column, return_inverse=True)[1]
    return ranks


def _culled(rows: _Rows) -> Bools:
    """Rows that one of a few good ones beats: most of them, where objectives do not conflict."""
    scores = np.argsort(np.argsort(rows, axis=0), axis=0).sum(axis=1)
    beaten = np.zeros(len(rows), dtype=bool)
    for index in np.argsort(scores)[:_CULLERS]:
        beats = (rows[index] <= rows).all(axis=1)
        beats[index] = False
        beaten |= beats
    return beaten


def _filtered(rows: _Rows) -> Bools:
    """Front of any number of columns: blocks against the front so far and against themselves."""
    front: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)
    for first in range(0, len(rows), _BLOCK):
        here = np.arange(first, min(first + _BLOCK, len(rows)))
        for start in range(0, len(front), _BLOCK):
            here = here[~_beats(rows[front[start : start + _BLOCK]], rows[here]).any(axis=0)]
        inside = _beats(rows[here], rows[here])
        np.fill_diagonal(inside, False)
        front = np.concatenate((front, here[~inside.any(axis=0)]))
    mask = np.zeros(len(rows), dtype=bool)
    mask[front] = True
    return mask


def _beats(one: _Rows, other: _Rows) -> Bools:
    """Whether each of one set of rows is nowhere above each of another, which differ."""
    found = np.ones((len(one), len(other)), dtype=bool)
    for column in range(one.shape[1]):
        found &= one[:, column, None] <= other[None, :, column]
    return found
