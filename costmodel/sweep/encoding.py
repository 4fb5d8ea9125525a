"""What a part becomes before it is written, whatever the format of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Encoded", "Format", "Texts"]

Texts = Mapping[str, tuple[Any, ...]]
"""All values of every column that is constant within a block, in order of first use."""


@dataclass(frozen=True)
class Encoded:
    """A part as it goes into the file.

    Attributes
    ----------
    data : bytes
        Its stretch of the file.
    footer : bytes
        What the end of the file needs to know of it.
    points : int
    """

    data: bytes
    footer: bytes
    points: int


class Format(Protocol):
    """Encodes parts, and knows what a file begins and ends with."""

    def encode(self, columns: Mapping[str, Any], labels: Sequence[tuple[int, ...]]) -> Encoded:
        """Encode a part."""
        ...

    def start(self) -> bytes:
        """Return what the file begins with."""
        ...

    def finish(
        self, footers: Sequence[bytes], positions: Sequence[int], metadata: Mapping[str, str]
    ) -> bytes:
        """Return what the file ends with."""
        ...
