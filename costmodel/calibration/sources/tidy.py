"""Tables in the tidy schema of `costmodel.calibration.schema`, parquet or CSV."""

from __future__ import annotations

from pathlib import Path

from costmodel.calibration.attention_kinds import attention_parts
from costmodel.calibration.files import read_head
from costmodel.calibration.reading import Head, Hints, Part, Reading
from costmodel.calibration.report import Tally
from costmodel.calibration.schema import KINDS, Kind
from costmodel.calibration.tables import read_table
from costmodel.errors import SpecError, did_you_mean

__all__ = ["SUFFIXES", "TITLE", "matches", "read"]

TITLE = "tidy tables, parquet or CSV with time_us"
SUFFIXES = (".parquet", ".csv")


def matches(path: Path, head: Head) -> bool:
    """Return whether the table has times and the columns that tell some kind."""
    return "time_us" in head.columns and _kind(head) is not None


def _kind(head: Head) -> Kind | None:
    have = set(head.columns)
    return next((k for k in KINDS.values() if k.tell and have.issuperset(k.tell)), None)


def read(path: Path, hints: Hints) -> Reading:
    """Return the rows; attention rows of one file may be of several kinds.

    Raises
    ------
    SpecError
        If a column that says the kind of attention is missing.
    """
    head = read_head(path)
    kind = _kind(head)
    if kind is None:
        raise SpecError(f"{path}: has the columns of no tidy kind")
    tally = Tally(path)
    frame = read_table(path, kind.names, tally)
    if "q_len" not in kind.tell:
        return Reading([Part(kind.name, frame, head.columns)], tally.problems())
    if "causal" not in frame:
        close = did_you_mean("causal", head.columns)
        guess = f"; did you mean {close!r} for it?" if close else ""
        raise SpecError(f"{path}: column 'causal' of attention timings is missing{guess}")
    return Reading(attention_parts(frame, head.columns), tally.problems())
