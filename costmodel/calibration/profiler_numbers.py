"""Numbers and units as profilers print them, and time under overlapping intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["BYTES_PER_UNIT", "US_PER_UNIT", "decimal_mark", "parse_number", "union_length"]

US_PER_UNIT: Mapping[str, float] = {
    unit: factor
    for factor, units in (
        (1e-3, "ns nsec nsecond nanosecond nanoseconds"),
        (1.0, "us usec usecond microsecond microseconds μs µs"),
        (1e3, "ms msec msecond millisecond milliseconds"),
        (1e6, "s sec second seconds"),
    )
    for unit in units.split()
}
"""Microseconds in each unit of time that Nsight tools print, lower case."""

BYTES_PER_UNIT: Mapping[str, float] = {
    "b": 1.0, "byte": 1.0, "bytes": 1.0,
    "kb": 1e3, "kbyte": 1e3, "mb": 1e6, "mbyte": 1e6,
    "gb": 1e9, "gbyte": 1e9, "tb": 1e12, "tbyte": 1e12,
    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
}  # fmt: skip
"""Bytes in each unit that Nsight tools print, lower case."""

_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?P<mark>[.,])\d{3}(?:(?P=mark)\d{3})*")


def decimal_mark(numbers: Iterable[str]) -> str:
    """Return the decimal mark of a file from numbers that settle it.

    Settled by a number with both marks (the last one is decimal), one mark twice (it groups
    thousands), or digits after a mark that are no group of three; a point if none does.

    Parameters
    ----------
    numbers : iterable of str
        Numbers as printed.

    Returns
    -------
    str
        ``"."`` or ``","``.

    Examples
    --------
    >>> decimal_mark(["1,234", "27.595.520"]), decimal_mark(["1,234"]), decimal_mark(["1.234,5"])
    (',', '.', ',')
    """
    for number in map(str.strip, numbers):
        marks = [character for character in number if character in ".,"]
        if not marks:
            continue
        if len(set(marks)) == 2:
            return marks[-1]
        other = "," if marks[0] == "." else "."
        if len(marks) > 1:
            return other
        # One mark and three digits may be either: the next number decides.
        if not _GROUPED.fullmatch(number):
            return marks[0]
    return "."


def parse_number(text: str, decimal: str = ".") -> float:
    """Return a number with grouped thousands; NaN for what is none, such as ``n/a``.

    Parameters
    ----------
    text : str
        The number as printed.
    decimal : str
        Its decimal mark; the other mark groups thousands.

    Returns
    -------
    float

    Examples
    --------
    >>> parse_number("1,234.5"), parse_number("27.595.520", ","), parse_number("n/a")
    (1234.5, 27595520.0, nan)
    """
    grouping = "," if decimal == "." else "."
    try:
        return float(text.strip().replace(grouping, "").replace(decimal, "."))
    except ValueError:
        return float("nan")


def union_length(
    starts: npt.NDArray[np.float64] | npt.NDArray[np.int64],
    ends: npt.NDArray[np.float64] | npt.NDArray[np.int64],
) -> float:
    """Return the length that intervals cover together.

    Kernels on several streams overlap: the sum of their durations is no time.

    Parameters
    ----------
    starts, ends : ndarray
        Bounds of each interval, in any unit.

    Returns
    -------
    float
        Covered length, in that unit.

    Examples
    --------
    >>> union_length(np.array([0, 5, 20]), np.array([10, 12, 21]))
    13.0
    """
    order = np.argsort(starts, kind="stable")
    first, last = starts[order], ends[order]
    if len(first) == 0:
        return 0.0
    covered = np.concatenate([first[:1], np.maximum.accumulate(last)[:-1]])
    return float(np.maximum(last - np.maximum(first, covered), 0).sum())
