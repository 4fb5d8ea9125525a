"""Looking up whole rows of points: batch and visual tokens by row, text tokens by column.

What does not depend on the text is looked up once a row, and where text tokens are consecutive
a row of the decoder's times is one stretch of its table: copied, not gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.tables.domain import BATCH, PROMPT, TEXT, VISUAL, Key
from costmodel.tables.lookup import Array, Chunk, Lookup, Term

__all__ = ["Lattice"]

_ROW = Key({BATCH, VISUAL})
# Below this many columns a gather is faster than a copy of each row.
_LEAST_STRETCH = 32


class Lattice(Chunk):
    """Points of rows and columns that are looked up together; row by row.

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
        super().__init__(lookup, size, dtype)
        self._rows: dict[str, Array] = {}
        self._columns: Array = np.empty(0, dtype=np.intp)
        self._consecutive = False

    def load_rows(self, batch: Array, visual_tokens: Array, text_tokens: Array) -> None:
        """Take the next rows (batch, visual tokens) and columns (text tokens).

        Raises
        ------
        InputError
            If a value is not in the domain.
        """
        for name, values in ((BATCH, batch), (VISUAL, visual_tokens), (TEXT, text_tokens)):
            self.lookup.check(name, values)
        self._rows = {BATCH: batch, VISUAL: visual_tokens}
        self._columns = text_tokens
        self._consecutive = bool((np.diff(text_tokens) == 1).all())
        self.count = len(batch) * len(text_tokens)
        self._positions = {}

    def is_by_row(self, terms: Sequence[Term]) -> bool:
        """Whether none of the terms depends on the text."""
        return all(term.key <= _ROW for term in terms)

    def _combine(
        self, join: Callable[..., Array], terms: Sequence[Term], out: Array, constant: Any
    ) -> Array:
        by_row = constant
        full = []
        for term in terms:
            if not term.key:
                by_row = join(by_row, term.values[0])
            elif term.key <= _ROW:
                by_row = join(by_row, term.values.take(self._of_rows(term.key), axis=0))
            else:
                full.append(term)
        shape = (len(self._rows[BATCH]), len(self._columns), *out.shape[1:])
        whole = out.reshape(shape)
        # Whatever has no text axis gets one.
        spread = by_row[:, None] if np.ndim(by_row) == len(shape) - 1 else by_row
        if not full:
            whole[...] = spread
            return out
        self._fetch(full[0], whole)
        for term in full[1:]:
            width = out.shape[1] if out.ndim > 1 else 0
            more = self.buffer(("more", out.dtype.str), width, out.dtype)
            join(whole, self._fetch(term, more.reshape(shape)), out=whole)
        if np.ndim(by_row) or by_row:
            join(whole, spread, out=whole)
        return out

    def _fetch(self, term: Term, out: Array) -> Array:
        """Write the entries of a term that depends on the text to `out`."""
        locator = self.lookup.locator(term.key)
        stretch = (
            self._consecutive and out.ndim == 2 and out.shape[1] >= _LEAST_STRETCH
            and locator.plain in (TEXT, PROMPT)
        )  # fmt: skip
        if stretch:
            first = self._of_rows(term.key)
            # As `sliding_window_view`, which takes ten times as long to make.
            step = term.values.strides[0]
            shape = (len(term.values) - out.shape[1] + 1, out.shape[1])
            windows = np.ndarray(shape, term.values.dtype, term.values, 0, (step, step))
            out[...] = windows[first + self._columns[0]]
        else:
            where = self._of_points(term.key)
            term.values.take(
                where, axis=0, out=out.reshape(where.size, *out.shape[2:]), mode="clip"
            )
        return out

    def _of_rows(self, key: Key) -> Array:
        """Return what batch and visual tokens contribute to positions, one number a row."""
        if ("row", key) not in self._positions:
            locator = self.lookup.locator(key)
            found = np.full(len(self._rows[BATCH]), locator.shift if not locator.slots else 0)
            for name, slots in locator.slots:
                if name in self._rows:
                    found += slots.take(self._rows[name])
            plain = VISUAL if locator.plain == PROMPT else locator.plain
            if plain in self._rows:
                found += self._rows[plain]
            self._positions["row", key] = found
        return self._positions["row", key]

    def _of_points(self, key: Key) -> Array:
        if key not in self._positions:
            locator = self.lookup.locator(key)
            shape = (len(self._rows[BATCH]), len(self._columns))
            out = self.buffer(key, dtype=np.intp)
            found = out.reshape(shape)
            columns = np.zeros(len(self._columns), dtype=np.intp)
            for name, slots in locator.slots:
                if name == TEXT:
                    columns += slots.take(self._columns)
            if locator.plain in (TEXT, PROMPT):
                columns += self._columns
            np.add(self._of_rows(key)[:, None], columns, out=found)
            for name, slots in locator.slots:
                if name == PROMPT:
                    found += slots.take(self._rows[VISUAL][:, None] + self._columns)
            self._positions[key] = out
        return self._positions[key]
