"""The exceptions costmodel raises.

::

    CostModelError
    ├── UnknownNameError      a model, GPU, method, dtype ... that is not known
    ├── SpecError             a file or mapping that does not describe what it should
    │   └── ConfigError       a model configuration lacks or contradicts a key
    └── InputError            an option's value is out of range
        └── UnsupportedError  a valid request that this model, device or method cannot do

Every message names the field, the value and the choices.  The command line
turns each into one line and exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "CostModelError",
    "InputError",
    "SpecError",
    "UnknownNameError",
    "UnsupportedError",
    "did_you_mean",
]


class CostModelError(Exception):
    """Base of every error that a caller can cause."""


class SpecError(CostModelError):
    """A file or mapping does not describe a valid spec."""


class ConfigError(SpecError):
    """A model configuration lacks a key or contradicts itself."""


class InputError(CostModelError):
    """A value is out of range.

    Parameters
    ----------
    field : str
        Name of the option or field.
    value : object
        The value that was given.
    expected : str
        What would have been accepted.
    """

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: {value!r} is not valid; expected {expected}")
        self.field = field
        self.value = value
        self.expected = expected


class UnsupportedError(InputError):
    """A valid request that this model, device or method cannot do."""


class UnknownNameError(CostModelError):
    """A name is not in its registry.

    Parameters
    ----------
    field : str
        What the name stands for, for example ``"gpu"``.
    value : str
        The name that was given.
    choices : iterable of str
        The names that are known.
    hint : str, optional
        A further sentence, for example that a path is accepted too.
    """

    def __init__(self, field: str, value: str, choices: Iterable[str], hint: str = "") -> None:
        known = sorted(choices)
        close = did_you_mean(value, known)
        guess = f" Did you mean {close}?" if close else ""
        more = f" {hint}" if hint else ""
        super().__init__(f"unknown {field} {value!r}.{guess} Known: {', '.join(known)}.{more}")
        self.field = field
        self.value = value
        self.choices = known


def did_you_mean(value: str, choices: Iterable[str]) -> str | None:
    """Return the known name closest to `value`, or None.

    Examples
    --------
    >>> did_you_mean("a100-80g-sxm", ["a100-80gb-sxm", "rtx-a6000"])
    'a100-80gb-sxm'
    >>> did_you_mean("zzz", ["a100-80gb-sxm"]) is None
    True
    """
    lowered = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(value.lower(), lowered, n=1, cutoff=0.5)
    if not found:
        found = [name for name in lowered if value and value.lower() in name][:1]
    return lowered[found[0]] if found else None
