"""Metrics of Nsight Compute as CSV, in the long or the wide layout.

``ncu --csv`` prints one row for each metric of a kernel execution, with the
unit beside it; ``ncu --csv --page raw`` one column for each, with the units in
a second row.  Lines of the profiler (``==PROF==``) and of the application come
in between, and thousands are grouped as the user's language does.

There are no shapes in it: rows are of kind ``kernel``, good to compare with
and not to fit.  Nsight Compute holds the clock at its base rate unless told
otherwise, so its times are longer than in use.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from costmodel.calibration.files import read_text_lines
from costmodel.calibration.kernel_table import kernel_part, summarise
from costmodel.calibration.profiler_numbers import (
    BYTES_PER_UNIT,
    US_PER_UNIT,
    decimal_mark,
    parse_number,
)
from costmodel.calibration.reading import Head, Hints, Reading
from costmodel.calibration.report import Tally
from costmodel.errors import SpecError

__all__ = ["SUFFIXES", "TITLE", "matches", "read"]

TITLE = "ncu --csv, long or wide"
SUFFIXES = (".csv", ".txt", ".log")

_TIME = ("gpu__time_duration.sum", "Duration")
_BYTES = ("dram__bytes.sum",)
_READ_AND_WRITTEN = ("dram__bytes_read.sum", "dram__bytes_write.sum")
_WANTED = (*_TIME, *_BYTES, *_READ_AND_WRITTEN)
_NAME, _ID, _PROCESS = "Kernel Name", "ID", "Process ID"
_LONG = ("Metric Name", "Metric Unit", "Metric Value")


@dataclass(frozen=True)
class _Value:
    """One metric of one execution, as printed."""

    row: int
    execution: tuple[str, str, str]
    metric: str
    unit: str
    text: str


def _is_header(fields: list[str]) -> bool:
    return (
        _ID in fields
        and _NAME in fields
        and (set(_LONG) <= set(fields) or any(name in fields for name in _WANTED))
    )


def _fields(line: str) -> list[str]:
    return next(csv.reader([line]), []) if "\0" not in line else []


def matches(path: Path, head: Head) -> bool:
    """Return whether some line is the header of either layout."""
    return any(_is_header(_fields(line)) for line in head.text.splitlines())


def _execution(values: dict[str, str]) -> tuple[str, str, str]:
    """Return what tells executions apart: each process numbers its own."""
    return (values.get(_PROCESS, ""), values[_ID], values[_NAME])


def _long(path: Path, rows: Iterator[tuple[int, dict[str, str]]]) -> Iterator[_Value]:
    for row, values in rows:
        yield _Value(row, _execution(values), *(values[name].strip() for name in _LONG))


def _wide(path: Path, rows: Iterator[tuple[int, dict[str, str]]]) -> Iterator[_Value]:
    _, units = next(rows, (0, {}))
    if units.get(_ID, "").strip():
        raise SpecError(f"{path}: the row of units after the header is missing")
    for row, values in rows:
        for metric in _WANTED:
            if metric in values:
                yield _Value(row, _execution(values), metric, units[metric].strip(), values[metric])


def _rows(path: Path, tally: Tally) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Return the header and the rows after it; lines that are no rows are passed over."""
    lines = iter(read_text_lines(path))
    header = next((f for f in map(_fields, lines) if _is_header(f)), None)
    if header is None:
        raise SpecError(f"{path}: no header of Nsight Compute")

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        row = 0
        for line in lines:
            # Rows are quoted; what the profiler or the application prints is not.
            if not line.startswith('"'):
                continue
            fields = _fields(line)
            row += 1
            if len(fields) == len(header):
                yield row, dict(zip(header, fields, strict=True))
            else:
                tally.add(f"the header has {len(header)} fields, the row another number", [row])

    return header, rows()


def read(path: Path, hints: Hints) -> Reading:
    """Return one row for each kernel name.

    Raises
    ------
    SpecError
        If there is no header, or the wide layout lacks its units.
    """
    tally = Tally(path)
    header, rows = _rows(path, tally)
    layout = _long if set(_LONG) <= set(header) else _wide
    values = [value for value in layout(path, rows) if value.metric in _WANTED]
    decimal = decimal_mark(value.text for value in values)
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for value in values:
        units = US_PER_UNIT if value.metric in _TIME else BYTES_PER_UNIT
        factor = units.get(value.unit.lower())
        if factor is None:
            reason = f"{value.metric}: unknown unit {value.unit!r}"
            tally.add(reason, [value.row], dropped=value.metric in _TIME)
            continue
        number = parse_number(value.text, decimal) * factor
        if math.isnan(number):
            reason = f"{value.metric}: not a number, {value.text!r}"
            tally.add(reason, [value.row], dropped=value.metric in _TIME)
            continue
        found.setdefault(value.execution, {})[value.metric] = number
    durations: dict[str, list[float]] = {}
    traffic: dict[str, float] = {}
    for (_, _, name), metrics in found.items():
        time = next((metrics[metric] for metric in _TIME if metric in metrics), None)
        if time is None:
            continue
        durations.setdefault(name, []).append(time)
        traffic[name] = traffic.get(name, 0.0) + _traffic(metrics)
    columns = summarise(durations, traffic)
    numbers = range(1, len(durations) + 1)
    return Reading([kernel_part(columns, hints, "ncu", numbers)], tally.problems())


def _traffic(metrics: dict[str, float]) -> float:
    """Return bytes of one execution, NaN where not all were measured."""
    parts = _BYTES if _BYTES[0] in metrics else _READ_AND_WRITTEN
    return sum(metrics.get(name, float("nan")) for name in parts)
