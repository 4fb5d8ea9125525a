"""Databases of Nsight Systems (``nsys export --type sqlite``), opened for reading only.

Kernels are summed up by name over the whole recording.  There are no shapes in
it: rows are of kind ``kernel``, good to compare with and not to fit.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from costmodel.calibration.kernel_table import kernel_part, summarise
from costmodel.calibration.profiler_numbers import union_length
from costmodel.calibration.reading import Head, Hints, Reading
from costmodel.calibration.report import Tally
from costmodel.errors import SpecError

__all__ = ["SUFFIXES", "TITLE", "busy_time_s", "matches", "read"]

TITLE = "nsys export --type sqlite"
SUFFIXES = (".sqlite", ".sqlite3", ".db")

_MAGIC = b"SQLite format 3\0"
_US_PER_NS = 1e-3
_KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"


def matches(path: Path, head: Head) -> bool:
    """Return whether the file is an SQLite database."""
    return head.data.startswith(_MAGIC)


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        # Only a URI can say that the database, which may be a colleague's, stays untouched.
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if _KERNELS not in tables:
                raise SpecError(
                    f"{path}: no table {_KERNELS}: not of nsys, or recorded without --trace=cuda"
                )
            yield connection
    except sqlite3.Error as error:
        raise SpecError(f"{path}: cannot be read as a database: {error}") from None


def read(path: Path, hints: Hints) -> Reading:
    """Return one row for each kernel name.

    Raises
    ------
    SpecError
        If the database is damaged or has no table of kernels.
    """
    durations: dict[str, array[float]] = {}
    tally = Tally(path)
    with _open(path) as connection:
        query = (
            f"SELECT s.value, k.start, k.end FROM {_KERNELS} AS k "
            "LEFT JOIN StringIds AS s ON s.id = k.demangledName"
        )
        for row, (name, start, end) in enumerate(connection.execute(query), start=1):
            if start is None or end is None or end <= start:
                tally.add("end: missing, or not after start", [row])
                continue
            times = durations.setdefault(name or "unknown", array("d"))
            times.append((end - start) * _US_PER_NS)
        gpu = _gpu(connection)
    columns = summarise(durations)
    if gpu:
        columns["gpu"] = [gpu] * len(columns["name"])
    rows = range(1, len(columns["name"]) + 1)
    return Reading([kernel_part(columns, hints, "nsys", rows)], tally.problems())


def _gpu(connection: sqlite3.Connection) -> str | None:
    """Return the name of the only model of device, if the database says."""
    try:
        names = {name for (name,) in connection.execute("SELECT name FROM TARGET_INFO_GPU")}
    except sqlite3.OperationalError:
        return None
    return names.pop() if len(names) == 1 else None


def busy_time_s(path: Path) -> float:
    """Return the time in which at least one kernel ran [s].

    Overlapping kernels of several streams count once.

    Raises
    ------
    SpecError
        As `read`.
    """
    with _open(path) as connection:
        query = f"SELECT start, end FROM {_KERNELS} WHERE end > start"
        bounds = np.array(connection.execute(query).fetchall(), dtype=np.int64).reshape(-1, 2)
    return union_length(bounds[:, 0], bounds[:, 1]) * 1e-9
