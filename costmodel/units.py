"""Units: SI inside, conversion only here and only at the edges.

GB is 1e9 bytes and GiB is 2**30 bytes, everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from costmodel.errors import InputError

__all__ = ["UNIT_FACTORS", "format_si", "parse_si", "split_quantity", "to_si"]

UNIT_FACTORS: dict[str, float] = {
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "B/s": 1.0,
    "GB/s": 1e9,
    "TB/s": 1e12,
    "FLOP/s": 1.0,
    "GFLOP/s": 1e9,
    "TFLOP/s": 1e12,
    "PFLOP/s": 1e15,
    "Hz": 1.0,
    "MHz": 1e6,
    "GHz": 1e9,
    "W": 1.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "1": 1.0,
}
"""Factor from each known unit to its SI base (bytes, FLOP, Hz, W, s)."""

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def to_si(value: float, unit: str) -> float:
    """Convert `value` in `unit` to the SI base unit.

    Parameters
    ----------
    value : float
        A number in `unit`.
    unit : str
        A key of `UNIT_FACTORS`.

    Returns
    -------
    float
        The number in bytes, bytes/s, FLOP/s, Hz, W or s.

    Raises
    ------
    InputError
        If the unit is not known.

    Examples
    --------
    >>> to_si(2039, "GB/s")
    2039000000000.0
    >>> to_si(1, "GiB") - to_si(1, "GB")
    73741824.0
    """
    try:
        return value * UNIT_FACTORS[unit]
    except KeyError:
        raise InputError("unit", unit, "one of " + ", ".join(UNIT_FACTORS)) from None


_QUANTITY = re.compile(
    r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/%]*)\s*"
)


def split_quantity(text: str) -> tuple[float, str] | None:
    """Return the number and the unit of a text, None if it is no finite number.

    Examples
    --------
    >>> split_quantity("400 ms"), split_quantity("1e-3"), split_quantity("soon")
    ((400.0, 'ms'), (0.001, ''), None)
    """
    found = _QUANTITY.fullmatch(text)
    if found is None or not math.isfinite(float(found[1])):
        return None
    return float(found[1]), found[2]


def parse_si(field: str, text: str, units: Sequence[str]) -> float:
    """Read a number with a unit, such as ``400ms``; a bare number would be read two ways.

    Parameters
    ----------
    field : str
        What it is, for the message.
    text : str
        What was given.
    units : sequence of str
        Keys of `UNIT_FACTORS` that suit.

    Returns
    -------
    float
        In the SI base unit.

    Raises
    ------
    InputError
        If it is no finite number, has no unit or another one.

    Examples
    --------
    >>> parse_si("ttft", "400ms", ("s", "ms", "us")), parse_si("ttft", "0.4 s", ("s", "ms"))
    (0.4, 0.4)
    >>> parse_si("ttft", "400", ("s", "ms"))
    Traceback (most recent call last):
    ...
    costmodel.errors.InputError: ttft: '400' is not valid; expected a number with a unit, s or ms
    """
    value, unit = split_quantity(text) or (math.nan, "")
    if unit not in units:
        raise InputError(field, text, f"a number with a unit, {' or '.join(units)}")
    return to_si(value, unit)


def format_si(value: float, unit: str, digits: int = 3) -> str:
    """Format an SI value with a decimal prefix.

    Examples
    --------
    >>> format_si(8.504e12, "FLOP")
    '8.50 TFLOP'
    >>> format_si(0.0432, "s")
    '43.2 ms'
    >>> format_si(0.0, "B")
    '0 B'
    """
    if value == 0:
        return f"0 {unit}"
    magnitude = abs(value)
    if unit == "s" and magnitude < 1:
        for factor, name in ((1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
            if magnitude >= factor or factor == 1e-9:
                return f"{_digits(value / factor, digits)} {name}"
    for factor, prefix in _PREFIXES:
        if magnitude >= factor:
            return f"{_digits(value / factor, digits)} {prefix}{unit}"
    return f"{_digits(value, digits)} {unit}"


def _digits(value: float, digits: int) -> str:
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(digits - whole, 0)}f}"
