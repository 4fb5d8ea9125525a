"""Values of one axis of a sweep: a number, a list, a range, or bounds to sample between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.errors import InputError, did_you_mean

__all__ = ["Between", "Numbers", "parse_numbers"]

_FORMS = {
    "range": "[start, stop, step]",
    "log_range": "[start, stop, count]",
    "between": "[low, high]",
    "log_between": "[low, high]",
}
_MOST = 10_000_000
_EXPECTED = (
    "a number, a list of numbers, {range: [start, stop, step]}, "
    "{log_range: [start, stop, count]} or, with sample, {between: [low, high]}"
)


@dataclass(frozen=True)
class Between:
    """Bounds that a sampled design draws between, both included.

    Attributes
    ----------
    low, high : float
    log : bool
        Whether the logarithm is spread evenly, not the number.
    """

    low: float
    high: float
    log: bool = False


Numbers = tuple[float, ...] | Between
"""Values in the order given, each once, or bounds."""


def parse_numbers(
    field: str, given: Any, *, low: float, high: float, whole: bool = True
) -> Numbers:
    """Read the values of an axis of numbers.

    Parameters
    ----------
    field : str
        Name for messages.
    given : object
        As YAML gives it.
    low, high : float
        Bounds of what is allowed.
    whole : bool
        Whether numbers must be whole.

    Returns
    -------
    tuple of float, or Between

    Raises
    ------
    InputError
        If it is none of the forms, empty, or beyond the bounds.

    Examples
    --------
    >>> parse_numbers("batch", {"log_range": [1, 8, 4]}, low=1, high=100)
    (1, 2, 4, 8)
    >>> parse_numbers("text_tokens", {"range": [16, 64, 16]}, low=1, high=100)
    (16, 32, 48, 64)
    """
    if isinstance(given, Mapping):
        found = _form(field, given, whole)
    else:
        items = given if isinstance(given, list | tuple) else [given]
        found = tuple(_number(field, item, whole) for item in items)
    if isinstance(found, Between):
        values: tuple[float, ...] = (found.low, found.high)
    else:
        found = values = tuple(dict.fromkeys(found))
    kind = "whole numbers" if whole else "numbers"
    if not values:
        raise InputError(field, given, f"at least one of the {kind}")
    for value in values:
        if not low <= value <= high:
            raise InputError(field, value, f"{kind} from {low:,} to {high:,}")
    return found


def _form(field: str, given: Mapping[str, Any], whole: bool) -> Numbers:
    if len(given) != 1:
        raise InputError(field, dict(given), _EXPECTED)
    ((name, bounds),) = given.items()
    if name not in _FORMS:
        close = did_you_mean(str(name), _FORMS)
        guess = f"{close!r}? " if close else ""
        raise InputError(field, dict(given), f"{guess}{_EXPECTED}")
    count = 2 if "between" in name else 3
    if not isinstance(bounds, list | tuple) or len(bounds) != count:
        raise InputError(f"{field} {name}", bounds, f"{_FORMS[name]}")
    numbers = [_number(f"{field} {name}", item, whole and name != "log_range") for item in bounds]
    start, stop = numbers[:2]
    if stop < start:
        raise InputError(f"{field} {name}", bounds, f"{_FORMS[name]} that does not go down")
    if "log" in name and start <= 0:
        raise InputError(f"{field} {name}", bounds, f"{_FORMS[name]} that begins above 0")
    if count == 2:
        return Between(start, stop, name == "log_between")
    last = numbers[2]
    if last <= 0 or (name == "log_range" and last != int(last)):
        what = "a step" if name == "range" else "a whole count"
        raise InputError(f"{field} {name}", bounds, f"{_FORMS[name]} with {what} above 0")
    size = last if name == "log_range" else (stop - start) / last + 1
    if size > _MOST:
        raise InputError(f"{field} {name}", bounds, f"at most {_MOST:,} values on one axis")
    if name == "range":
        # Half a millionth of a step: 0.1 to 0.3 by 0.1 has three values.
        steps = int((stop - start) / last + 1e-6) + 1
        values: Any = [start + index * last for index in range(steps)]
        if not whole:
            values = [round(value, 12) for value in values]
    else:
        values = np.geomspace(start, stop, int(last)).tolist() if last > 1 else [start]
        if whole:
            values = [round(value) for value in values]
    return tuple(values)


def _number(field: str, item: Any, whole: bool) -> float:
    if isinstance(item, bool) or not isinstance(item, int | float) or not np.isfinite(item):
        raise InputError(field, item, "a number" if not whole else "a whole number")
    if whole:
        if item != int(item):
            raise InputError(field, item, "a whole number")
        return int(item)
    return item
