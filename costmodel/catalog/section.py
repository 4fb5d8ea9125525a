"""Typed access to one object of a configuration file, with the key's full name in every error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from costmodel.errors import ConfigError

__all__ = ["LARGEST_LAYERS", "LARGEST_SIZE", "Section"]

LARGEST_SIZE = 2**31 - 1
"""Largest width, vocabulary or pixel count that is believed [elements]."""

LARGEST_LAYERS = 10_000
"""Largest number of layers that is believed."""


class Section:
    """One JSON object, the defaults of its keys, and where it was found.

    Parameters
    ----------
    data : mapping
        The object as read from JSON.
    where : str
        File (or preset) it comes from; starts every message.
    defaults : mapping, optional
        Values of keys that `data` omits.
    prefix : str, optional
        Dotted path of the object inside the file.
    notes : list of str, optional
        Remarks collected while reading, shared by all sections of one file.

    Examples
    --------
    >>> section = Section({"hidden_size": 64}, "config.json", {"num_hidden_layers": 2})
    >>> section.integer("hidden_size"), section.integer("num_hidden_layers")
    (64, 2)
    >>> Section({"hidden_size": "64"}, "config.json", prefix="text_config").integer("hidden_size")
    Traceback (most recent call last):
        ...
    costmodel.errors.ConfigError: config.json: text_config.hidden_size: expected a whole number, \
got '64'
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        where: str,
        defaults: Mapping[str, Any] | None = None,
        prefix: str = "",
        notes: list[str] | None = None,
    ) -> None:
        self.data = data
        self.where = where
        self.defaults = defaults or {}
        self.prefix = prefix
        self.notes = notes if notes is not None else []

    def __contains__(self, key: str) -> bool:
        """Whether the file itself has `key` with a value other than null."""
        return self.data.get(key) is not None

    def name(self, key: str) -> str:
        """Return the dotted path of `key`."""
        return f"{self.prefix}.{key}" if self.prefix else key

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise a `ConfigError` that names the file and `key`."""
        raise ConfigError(f"{self.where}: {self.name(key)}: {problem}")

    def value(self, key: str) -> Any:
        """Return the value of `key` or its default; a missing key without default is an error."""
        if key in self.data:
            return self.data[key]
        if key in self.defaults:
            return self.defaults[key]
        raise ConfigError(f"{self.where}: missing key {self.name(key)!r}")

    def integer(self, key: str, minimum: int = 1, maximum: int = LARGEST_SIZE) -> int:
        """Return a whole number between `minimum` and `maximum`."""
        return self._check_integer(key, self.value(key), minimum, maximum)

    def optional_integer(self, key: str, minimum: int = 1) -> int | None:
        """Return a whole number, or None where the key is absent without default or null."""
        value = self.data.get(key, self.defaults.get(key))
        return None if value is None else self._check_integer(key, value, minimum, LARGEST_SIZE)

    def square(self, key: str) -> int:
        """Return one side of a size given as a number or as two equal numbers [pixels]."""
        value = self.value(key)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return self._check_integer(key, value, 1, LARGEST_SIZE)
        sides = [self._check_integer(key, side, 1, LARGEST_SIZE) for side in value]
        if len(sides) != 2 or sides[0] != sides[1]:
            self.fail(key, f"expected a number or two equal numbers, got {value!r}")
        return sides[0]

    def integers(self, key: str, minimum: int = 1) -> tuple[int, ...]:
        """Return a non-empty list of whole numbers."""
        value = self.value(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self.fail(key, f"expected a list of whole numbers, got {value!r}")
        return tuple(self._check_integer(key, item, minimum, LARGEST_SIZE) for item in value)

    def number(self, key: str) -> float:
        """Return a finite number above zero."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(key, f"expected a number, got {value!r}")
        if not math.isfinite(value) or value <= 0:
            self.fail(key, f"expected a finite number above zero, got {value!r}")
        return float(value)

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        value = self.value(key)
        if not isinstance(value, bool):
            self.fail(key, f"expected true or false, got {value!r}")
        return value

    def text(self, key: str) -> str:
        """Return a non-empty string."""
        value = self.value(key)
        if not isinstance(value, str) or not value.strip():
            self.fail(key, f"expected a string, got {value!r}")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """Return a string that is one of `choices`."""
        value = self.text(key)
        if value not in choices:
            self.fail(key, f"{value!r} is not supported; expected one of {', '.join(choices)}")
        return value

    def child(self, key: str, defaults: Mapping[str, Any] | None = None) -> Section:
        """Return the object under `key`; absent or null gives an empty one with `defaults`."""
        value = self.data.get(key, self.defaults.get(key))
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            self.fail(key, f"expected an object of keys, got {value!r}")
        return Section(value, self.where, defaults, self.name(key), self.notes)

    def with_defaults(self, defaults: Mapping[str, Any]) -> Section:
        """Return the same section with other defaults."""
        return Section(self.data, self.where, defaults, self.prefix, self.notes)

    def _check_integer(self, key: str, value: object, minimum: int, maximum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"expected a whole number, got {value!r}")
        if not minimum <= value <= maximum:
            self.fail(key, f"expected a whole number from {minimum} to {maximum}, got {value}")
        return value
