"""The parts of a sweep: stretches of its points, the same however many work on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["PART_POINTS", "Part", "Piece", "parts_of"]

PART_POINTS = 1 << 18
"""Most points of a part: 30 MB of a dozen columns."""

_MOST_BLOCKS = 8


@dataclass(frozen=True)
class Piece:
    """Points `start` to `stop` of a block, by its number."""

    block: int
    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """Points that are computed and written together.

    Attributes
    ----------
    index : int
        Place in the result.
    pieces : tuple of Piece
        In order.
    """

    index: int
    pieces: tuple[Piece, ...]

    @property
    def points(self) -> int:
        """Number of points."""
        return sum(piece.stop - piece.start for piece in self.pieces)


def parts_of(sizes: Sequence[int], most: int = PART_POINTS) -> Iterator[Part]:
    """Cut blocks of these sizes into parts.

    Parameters
    ----------
    sizes : sequence of int
        Points of each block.
    most : int
        Most points of a part; of small blocks, a part also has few.

    Examples
    --------
    >>> [part.points for part in parts_of([5, 1, 2], most=4)]
    [4, 4]
    """
    index, held = 0, 0
    pieces: list[Piece] = []
    for block, size in enumerate(sizes):
        start = 0
        while start < size:
            stop = min(size, start + most - held)
            pieces.append(Piece(block, start, stop))
            held += stop - start
            start = stop
            if held == most or len(pieces) == _MOST_BLOCKS:
                yield Part(index, tuple(pieces))
                index, held, pieces = index + 1, 0, []
    if pieces:
        yield Part(index, tuple(pieces))
