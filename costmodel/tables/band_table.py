"""Tables of what error bands are composed of, and bands of points from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from costmodel.evaluation import FloatArray
from costmodel.tables.domain import Domain, Key
from costmodel.tables.lookup import Array, Chunk
from costmodel.tables.pass_table import PassTable, Split
from costmodel.tables.tabulation import (
    ENDS,
    ORDER,
    SIDES,
    Columns,
    Group,
    maximal,
    spread,
    tabulate_pass,
)

__all__ = ["BandKind", "BandTable"]

BandKind = Literal["same_stack", "any_stack"]

_HOST = "host"
_LAST = ("apart", "shift")


class BandTable:
    """Tables of the sums of `costmodel.timing.composition.DeviationSums`.

    Deviations of one kind add up before they are squared, so a kind that several arrays
    hold has a column of its own in each; what only one array holds is squared there.

    Parameters
    ----------
    domain : Domain
        What points range over.
    times : PassTable
        Of the same domain and the prefill pass.
    most, dtype
        As of `PassTable`.

    Raises
    ------
    TooLarge
        If an array would have more entries.
    """

    def __init__(
        self, domain: Domain, times: PassTable, *, most: int, dtype: np.dtype[Any]
    ) -> None:
        groups = tabulate_pass(domain, "prefill", most=most, bands=True)
        sizes = {name: len(domain.coordinate(name)) for name in ORDER}
        shares = {kind: share for group in groups for kind, share in group.shares.items()}
        shares[_HOST] = 1.0
        held = _held(groups, sizes)
        kinds = {kind for columns in held.values() for _, kind in columns if kind in shares}
        self._splits = times.splits
        self._kinds = sorted(
            kind
            for kind in kinds | ({_HOST} if self._splits else set())
            if sum((SIDES[0], kind) in columns for columns in held.values()) > 1
            or (kind == _HOST and self._splits)
        )
        self._shares = np.array([shares[kind] for kind in self._kinds], dtype=dtype)
        self._terms = [
            times.lookup.term(key, self._rows(columns, shares).astype(dtype))
            for key, columns in held.items()
        ]
        self._times = times

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(term.values.nbytes for term in self._terms)

    def bounds_s(self, chunk: Chunk, kind: BandKind, low: Array, high: Array) -> None:
        """Write the bounds of the time of the pass at all points [s]."""
        width = len(self._kinds)
        sums = chunk.sum(self._terms, chunk.buffer("sums", 2 * width + 4))
        for split in self._splits:
            self._add_host(split, chunk, sums)
        total = self._times.total_s(chunk, chunk.buffer("total"))
        for side, out in enumerate((low, high)):
            own = sums[:, side * width : (side + 1) * width]
            np.matmul(np.square(own, out=own), self._shares, out=out)
            np.add(out, sums[:, 2 * width + side], out=out)
            if kind == "any_stack":
                shift = sums[:, 2 * width + 2 + side]
                np.add(out, np.square(shift, out=shift), out=out)
            np.sqrt(out, out=out)
        np.maximum(np.subtract(total, low, out=low), 0.0, out=low)
        np.add(total, high, out=high)

    def _add_host(self, split: Split, chunk: Chunk, sums: Array) -> None:
        busy = split.busy_s(chunk)
        mid = split.exposed_s(busy, "mid", chunk.buffer("mid"))
        column = self._kinds.index(_HOST)
        for end, side, sign in (("low", 0, -1.0), ("high", 1, 1.0)):
            other = split.exposed_s(busy, end, chunk.buffer("host"))
            np.multiply(np.subtract(other, mid, out=other), sign, out=other)
            own = sums[:, side * len(self._kinds) + column]
            np.add(own, np.maximum(other, 0.0, out=other), out=own)

    def _rows(self, columns: Columns, shares: dict[str, float]) -> FloatArray:
        """Return one row per entry: each side's kinds, then both sides' ``apart`` and ``shift``."""
        some = next(iter(columns.values()))
        zero = np.zeros(some.shape)
        last: dict[tuple[str, str], FloatArray] = {
            (side, name): columns.get((side, name), zero) for name in _LAST for side in SIDES
        }
        for (side, kind), total in columns.items():
            if kind not in _LAST and kind not in self._kinds:
                last[side, "apart"] = last[side, "apart"] + shares[kind] * total**2
        first = [columns.get((side, kind), zero) for side in SIDES for kind in self._kinds]
        return np.stack([*first, *last.values()], axis=-1).reshape(-1, len(first) + len(last))


def _held(groups: Sequence[Group], sizes: Mapping[str, int]) -> dict[Key, Columns]:
    """Return all columns by coordinates, of which none are part of others."""
    found: dict[Key, Columns] = {}
    targets = maximal(key for group in groups for key in group.columns)
    for group in groups:
        for key, columns in group.columns.items():
            target = next(k for k in targets if k >= key)
            into = found.setdefault(target, {})
            sums = {name: column for name, column in columns.items() if name[0] in SIDES}
            if key in group.exposed_s:
                mid, low, high = (group.exposed_s[key][end] for end in ENDS)
                sums[SIDES[0], _HOST] = np.maximum(mid - low, 0.0)
                sums[SIDES[1], _HOST] = np.maximum(high - mid, 0.0)
            for name, column in sums.items():
                wide = spread(column, key, target, sizes)
                into[name] = into[name] + wide if name in into else wide
    return found
