"""The order of cases: any beginning of a run covers the whole range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["coarse_first", "merged"]

Item = TypeVar("Item")


def coarse_first(items: Sequence[Item]) -> list[Item]:
    """Return the first, the last, the middle, the quarters and so on.

    The base-2 van der Corput sequence: halves, quarters, eighths of the range.

    Examples
    --------
    >>> coarse_first([0, 1, 2, 3, 4, 5, 6, 7, 8])
    [0, 8, 4, 2, 6, 1, 5, 3, 7]
    """
    count = len(items)
    if count < 3:
        return list(items)
    bits = (count - 1).bit_length()
    places = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    inner = [place for place in places if 0 < place < count - 1]
    return [items[place] for place in (0, count - 1, *inner)]


def merged(lists: Sequence[Sequence[Item]]) -> list[Item]:
    """Return all items so that every list is through by the same share at any time.

    Examples
    --------
    >>> merged([["a", "b", "c", "d"], ["x", "y"]])
    ['a', 'x', 'b', 'c', 'y', 'd']
    """
    placed = [
        (index / len(items), number, item)
        for number, items in enumerate(lists)
        for index, item in enumerate(items)
    ]
    return [item for _, _, item in sorted(placed, key=lambda entry: entry[:2])]
