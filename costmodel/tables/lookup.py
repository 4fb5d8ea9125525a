"""Looking up points in arrays over coordinates, thousands of points at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.errors import InputError
from costmodel.tables.domain import AXIS_NAMES, PROMPT, TEXT, VISUAL, Domain, Key
from costmodel.tables.tabulation import ORDER, TooLarge

__all__ = ["Array", "Chunk", "Lookup", "Term"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Term:
    """A quantity at all combinations of the values of some coordinates.

    Attributes
    ----------
    key : frozenset of str
        The coordinates.
    values : ndarray
        An entry, or a row, for each combination; dimensions in `ORDER`, flattened.
    """

    key: Key
    values: Array


@dataclass(frozen=True, eq=False)
class _Locator:
    """Position of a point among the combinations, as a sum over coordinates.

    Attributes
    ----------
    slots : tuple of (str, ndarray)
        What each coordinate adds, by its value.
    plain : str or None
        The coordinate that adds its own value.
    shift : int
        What is added to it all.
    """

    slots: tuple[tuple[str, Array], ...]
    plain: str | None
    shift: int

    @classmethod
    def of(cls, domain: Domain, key: Key, most: int) -> _Locator:
        slots: list[tuple[str, Array]] = []
        plain, shift, stride = None, 0, 1
        for name in [name for name in reversed(ORDER) if name in key]:
            values = domain.coordinate(name).astype(np.intp)
            if stride == 1 and len(values) == values[-1] - values[0] + 1:
                plain, shift = name, -int(values[0])
            elif values[-1] >= most:
                raise TooLarge
            else:
                column = np.zeros(values[-1] + 1, dtype=np.intp)
                column[values] = stride * np.arange(len(values)) + shift
                slots.append((name, column))
                shift = 0
            stride *= len(values)
        return cls(tuple(slots), plain, shift)


class Lookup:
    """Finds the entries of points.

    Parameters
    ----------
    domain : Domain
        Values of the coordinates, whole numbers.
    most : int
        Entries of the largest table of slots.

    Raises
    ------
    TooLarge
        If a table of slots would have more entries.
    """

    def __init__(self, domain: Domain, most: int) -> None:
        self.values = {name: domain.values[name].astype(np.intp) for name in AXIS_NAMES}
        self._domain, self._most = domain, most
        self._locators: dict[Key, _Locator] = {}
        self._known: dict[str, npt.NDArray[np.bool_]] = {}
        for name, values in self.values.items():
            if len(values) < values[-1] - values[0] + 1:
                if values[-1] >= most:
                    raise TooLarge
                self._known[name] = np.isin(np.arange(values[-1] + 1), values)

    def term(self, key: Key, values: Array) -> Term:
        """Return a term over `key`, whose entries can be found from now on."""
        if key and key not in self._locators:
            self._locators[key] = _Locator.of(self._domain, key, self._most)
        return Term(key, values)

    def locator(self, key: Key) -> _Locator:
        """Return how positions in arrays over `key` are found."""
        return self._locators[key]

    def check(self, name: str, points: Array) -> None:
        """Raise InputError if a point is not in the domain."""
        values = self.values[name]
        inside = points.min() >= values[0] and points.max() <= values[-1]
        known = self._known.get(name)
        if inside and (known is None or known.take(points, mode="clip").all()):
            return
        wrong = points[~np.isin(points, values)][0]
        listed = f"{values[0]} to {values[-1]}"
        if known is not None:
            listed = ", ".join(map(str, values[:9])) + (" ..." if len(values) > 9 else "")
        raise InputError(name, int(wrong), f"a value the table was built for: {listed}")


class Chunk:
    """Points that are looked up together, in buffers used again for the next ones.

    Parameters
    ----------
    lookup : Lookup
        Where entries lie.
    size : int
        Most points.
    dtype : dtype
        Of the tables.
    """

    def __init__(self, lookup: Lookup, size: int, dtype: npt.DTypeLike) -> None:
        self.lookup = lookup
        self.count = 0
        self._size, self._dtype = size, np.dtype(dtype)
        self._buffers: dict[object, Array] = {}
        self._points: dict[str, Array] = {}
        self._positions: dict[object, Array] = {}

    def load(self, points: Sequence[Array]) -> None:
        """Take the next points, by `AXIS_NAMES`.

        Raises
        ------
        InputError
            If one is not in the domain.
        """
        self.count = len(points[0])
        self._points = dict(zip(AXIS_NAMES, points, strict=True))
        self._positions = {}
        for name, column in self._points.items():
            self.lookup.check(name, column)

    def buffer(
        self, name: object, width: int = 0, dtype: np.dtype[Any] | type | None = None
    ) -> Array:
        """Return the array of this name, one entry or a row of `width` for each point."""
        if (name, width) not in self._buffers:
            shape = (self._size, width) if width else self._size
            self._buffers[name, width] = np.empty(shape, dtype or self._dtype)
        return self._buffers[name, width][: self.count]

    def sum(self, terms: Sequence[Term], out: Array, constant: float = 0.0) -> Array:
        """Write the sum of `terms` and a constant at all points to `out`."""
        return self._combine(np.add, terms, out, constant)

    def maximum(self, terms: Sequence[Term], out: Array, constant: float = 0.0) -> Array:
        """Write the largest of `terms` and a constant at all points to `out`."""
        return self._combine(np.maximum, terms, out, constant)

    def _combine(
        self, join: Callable[..., Array], terms: Sequence[Term], out: Array, constant: Any
    ) -> Array:
        first = True
        for term in terms:
            if not term.key:
                constant = join(constant, term.values[0])
            elif first:
                term.values.take(self._position(term.key), axis=0, out=out, mode="clip")
                first = False
            else:
                width = out.shape[1] if out.ndim > 1 else 0
                more = self.buffer(("more", out.dtype.str), width, out.dtype)
                term.values.take(self._position(term.key), axis=0, out=more, mode="clip")
                join(out, more, out=out)
        if first:
            out[...] = constant
        elif np.ndim(constant) or constant:
            join(out, constant, out=out)
        return out

    def _position(self, key: Key) -> Array:
        if key not in self._positions:
            self._positions[key] = self._locate(self.lookup.locator(key), key)
        return self._positions[key]

    def _locate(self, locator: _Locator, key: Key) -> Array:
        out = self.buffer(key, dtype=np.intp)
        if not locator.slots:
            return np.add(self._coordinate(locator.plain), locator.shift, out=out)
        for number, (name, slots) in enumerate(locator.slots):
            into = self.buffer("slots", dtype=np.intp) if number else out
            slots.take(self._coordinate(name), out=into, mode="clip")
            if number:
                np.add(out, into, out=out)
        if locator.plain is not None:
            np.add(out, self._coordinate(locator.plain), out=out)
        return out

    def _coordinate(self, name: str | None) -> Array:
        if name == PROMPT and PROMPT not in self._points:
            self._points[PROMPT] = np.add(
                self._points[TEXT], self._points[VISUAL],
                out=self.buffer(PROMPT, dtype=np.intp),
            )  # fmt: skip
        return self._points[str(name)]
