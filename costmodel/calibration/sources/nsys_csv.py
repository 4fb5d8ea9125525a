"""Kernel summaries of Nsight Systems as CSV.

Written by ``nsys stats --report cuda_gpu_kern_sum --format csv`` (``gpukernsum``
in older versions).  The unit of time is in the header, lines may come before
it, some columns lack in some versions, and names of kernels hold commas.

There are no shapes in it: rows are of kind ``kernel``, good to compare with
and not to fit.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from costmodel.calibration.files import read_text_lines
from costmodel.calibration.kernel_table import kernel_part
from costmodel.calibration.profiler_numbers import US_PER_UNIT, parse_number
from costmodel.calibration.reading import Head, Hints, Reading
from costmodel.calibration.report import Tally
from costmodel.errors import SpecError

__all__ = ["SUFFIXES", "TITLE", "matches", "read"]

TITLE = "nsys stats --report cuda_gpu_kern_sum --format csv"
SUFFIXES = (".csv", ".txt")

_HEADER = re.compile(r'^"?Time ?\(%\)"?,"?Total Time \((?P<unit>[^)]+)\)"?,"?Instances"?,.*Name')
_MEDIAN, _MEAN = ("Med", "Median"), ("Avg", "Average")


def matches(path: Path, head: Head) -> bool:
    """Return whether some line is the header of a kernel summary."""
    return any(_HEADER.match(line) for line in head.text.splitlines())


def _table(path: Path) -> Iterator[str]:
    """Yield the header and the rows: what follows up to an empty line."""
    lines = iter(read_text_lines(path))
    for line in lines:
        if _HEADER.match(line):
            yield line
            break
    for line in lines:
        if not line.strip():
            return
        yield line


def _per_call(values: dict[str, str], calls: float, total: float) -> float:
    for names in (_MEDIAN, _MEAN):
        for name in names:
            number = parse_number(values.get(name, ""))
            if not math.isnan(number):
                return number
    return total / calls if calls else float("nan")


def read(path: Path, hints: Hints) -> Reading:
    """Return one row for each kernel name.

    Raises
    ------
    SpecError
        If there is no header, or its unit of time is not known.
    """
    reader, tally = csv.reader(_table(path)), Tally(path)
    header = next(reader, None)
    match = _HEADER.match(",".join(header)) if header else None
    if header is None or match is None:
        raise SpecError(f"{path}: no header of a kernel summary")
    unit = match["unit"].strip().lower()
    if unit not in US_PER_UNIT:
        raise SpecError(f"{path}: Total Time: unknown unit {match['unit']!r}")
    names = [re.sub(r" ?\(.*\)$", "", name.strip()) for name in header]
    columns: dict[str, list[object]] = {"name": [], "calls": [], "time_us": [], "total_us": []}
    rows: list[int] = []
    for row, fields in enumerate(reader, start=1):
        if len(fields) < len(names):
            tally.add(f"fewer than the header's {len(names)} fields", [row])
            continue
        # The name comes last, so commas in one that is not quoted are all in it.
        last = len(names) - 1
        values = dict(zip(names, [*fields[:last], ",".join(fields[last:])], strict=True))
        calls, total = parse_number(values["Instances"]), parse_number(values["Total Time"])
        columns["name"].append(values["Name"])
        columns["calls"].append(calls)
        columns["time_us"].append(_per_call(values, calls, total) * US_PER_UNIT[unit])
        columns["total_us"].append(total * US_PER_UNIT[unit])
        rows.append(row)
    return Reading([kernel_part(columns, hints, "nsys", rows)], tally.problems())
