"""What every reader of a timing format shares: hints in, tidy columns and problems out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from costmodel.calibration.schema import Problem

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

__all__ = ["FIRST_ROWS", "Head", "Hints", "Part", "Reading", "Source", "Tally"]

FIRST_ROWS = 5
"""Row numbers that a problem names."""


@dataclass(frozen=True)
class Hints:
    """What the caller knows and a file may not say.

    Attributes
    ----------
    gpu, dtype, source, software : str, optional
        Value of rows whose file does not name one.
    """

    gpu: str | None = None
    dtype: str | None = None
    source: str | None = None
    software: str | None = None


@dataclass(frozen=True)
class Head:
    """The beginning of a file, for telling formats apart.

    Attributes
    ----------
    data : bytes
        First bytes, unpacked where the file is gzipped.
    text : str
        The same as text; empty for binary files.
    columns : tuple of str
        Columns of a parquet file, or fields of the first line of text.
    """

    data: bytes
    text: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one kind as a reader leaves them: tidy columns, values not yet checked.

    The index is the row's number in the file, from 1.
    """

    kind: str
    frame: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader found in a file."""

    parts: list[Part]
    problems: list[Problem] = field(default_factory=list)


class Source(Protocol):
    """A module of `costmodel.calibration.sources`: one format.

    Attributes
    ----------
    TITLE : str
        What the format is, for messages and documents.
    SUFFIXES : tuple of str
        Endings of file names that may hold it, lower case.
    """

    TITLE: str
    SUFFIXES: tuple[str, ...]

    def matches(self, path: Path, head: Head) -> bool:
        """Return whether the file is of this format."""
        ...

    def read(self, path: Path, hints: Hints) -> Reading:
        """Return all its rows in tidy columns."""
        ...


class Tally:
    """Collects problems of one file, one for each reason.

    Examples
    --------
    >>> tally = Tally(Path("a.csv"))
    >>> tally.add("m: missing", [3, 4])
    >>> tally.add("m: missing", [9])
    >>> print(tally.problems()[0])
    a.csv: rows 3, 4, 9: m: missing (3 dropped)
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[str, bool], tuple[list[int], int]] = {}

    def add(
        self, reason: str, rows: Sequence[int] | npt.NDArray[np.int64], *, dropped: bool = True
    ) -> None:
        """Count `rows` under `reason`."""
        if len(rows) == 0:
            return
        first, count = self._found.get((reason, dropped), ([], 0))
        first = [*first, *(int(row) for row in rows[: FIRST_ROWS - len(first)])]
        self._found[reason, dropped] = (first, count + len(rows))

    def problems(self) -> list[Problem]:
        """Return what was counted."""
        return [
            Problem(self._path, reason, tuple(first), count, dropped)
            for (reason, dropped), (first, count) in self._found.items()
        ]
