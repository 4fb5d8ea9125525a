"""What is wrong with the rows of timing files, by reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["FIRST_ROWS", "Problem", "Report", "Tally"]

FIRST_ROWS = 5
"""Row numbers that a problem names."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with some rows of a file.

    Attributes
    ----------
    path : Path
        The file.
    reason : str
        Column, value and what would have been right.
    rows : tuple of int
        The first few rows, from 1, header not counted; empty where no row is meant.
    count : int
        All rows it concerns.
    dropped : bool
        Whether they were left out.
    """

    path: Path
    reason: str
    rows: tuple[int, ...]
    count: int
    dropped: bool = True

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.path}: {self.reason}"
        more = ", ..." if self.count > len(self.rows) else ""
        where = f"row{'s' * (self.count > 1)} {', '.join(map(str, self.rows))}{more}"
        verb = "dropped" if self.dropped else "kept"
        return f"{self.path}: {where}: {self.reason} ({self.count} {verb})"


@dataclass(frozen=True)
class Report:
    """What became of the rows of all files.

    A row of a table that times several operators counts once for each.

    Attributes
    ----------
    kept : int
        Rows in the result.
    problems : tuple of Problem
        Everything noticed, in the order of the files.
    """

    kept: int
    problems: tuple[Problem, ...] = field(default=())

    @property
    def dropped(self) -> int:
        """Rows left out, each counted under one reason."""
        return sum(problem.count for problem in self.problems if problem.dropped)

    @property
    def read(self) -> int:
        """Rows read."""
        return self.kept + self.dropped

    def __str__(self) -> str:
        head = f"{self.read} rows read, {self.kept} kept, {self.dropped} dropped"
        return "\n".join([head, *map(str, self.problems)])


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
