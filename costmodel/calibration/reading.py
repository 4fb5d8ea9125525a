"""What every reader of a timing format shares: hints in, tidy columns and problems out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from costmodel.calibration.report import Problem

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Head", "Hints", "Part", "Reading", "Source"]


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

    Attributes
    ----------
    kind : str
        A key of `costmodel.calibration.schema.KINDS`.
    frame : pandas.DataFrame
        The rows.
    published : tuple of str
        All columns of the file, to guess a missing one from.
    """

    kind: str
    frame: pd.DataFrame
    published: tuple[str, ...] = ()


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
