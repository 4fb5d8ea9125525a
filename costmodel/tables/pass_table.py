"""The tables of one pass, and the sums over them that make up the time of a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.evaluation import FloatArray
from costmodel.program import Phase
from costmodel.results import STAGES
from costmodel.tables.domain import Domain, Key
from costmodel.tables.lattice import Lattice
from costmodel.tables.lookup import Array, Chunk, Lookup, Term
from costmodel.tables.tabulation import ORDER, spread, tabulate_pass
from costmodel.timing.kernels.launch import StageLines

__all__ = ["PassTable", "Split"]


@dataclass(frozen=True, eq=False)
class Split:
    """A queue whose GPU time is a sum of several terms, so that points work out its host time.

    Attributes
    ----------
    stage : str
        The stage it belongs to.
    terms : tuple of Term
        GPU time [s].
    lines : dict of str to StageLines
        Host time with a launch at its middle and at the ends of its range.
    """

    stage: str
    terms: tuple[Term, ...]
    lines: dict[str, StageLines]

    def busy_s(self, chunk: Chunk) -> Array:
        """Return the GPU time at all points."""
        return chunk.sum(self.terms, chunk.buffer("busy"))

    def exposed_s(self, busy_s: Array, end: str, out: Array) -> Array:
        """Write the exposed host time to `out`."""
        lines = self.lines[end]
        np.multiply(busy_s, -float(lines.hidden), out=out)
        np.add(out, float(lines.behind_s), out=out)
        return np.maximum(out, float(lines.ahead_s), out=out)

    @property
    def ahead(self) -> bool:
        """Whether the GPU has work at every point, so that the host adds a constant."""
        lines = self.lines["mid"]
        least_s = sum(float(term.values.min()) for term in self.terms)
        return bool(lines.behind_s - lines.hidden * least_s <= lines.ahead_s)


class PassTable:
    """Tables of one pass.

    Attributes
    ----------
    lookup : Lookup
        Where entries lie.
    splits : tuple of Split
        Queues whose host time is no table.

    Parameters
    ----------
    domain : Domain
        What points range over.
    phase : {"prefill", "decode"}
        The pass.
    most : int
        Entries of the largest array.
    dtype : dtype
        Of the tables.
    lookup : Lookup, optional
        Of the same domain, to share.

    Raises
    ------
    TooLarge
        If an array would have more entries, or the kernels of a queue that depends on
        several arrays vary in number.
    """

    def __init__(
        self,
        domain: Domain,
        phase: Phase,
        *,
        most: int,
        dtype: np.dtype[Any],
        lookup: Lookup | None = None,
    ) -> None:
        self.lookup = lookup or Lookup(domain, most)
        self._dtype = dtype
        self._stages: dict[str, list[Term]] = {stage: [] for stage in STAGES}
        self._constant_s = 0.0
        splits: list[Split] = []
        whole: dict[Key, FloatArray] = {}
        host: dict[Key, FloatArray] = {}
        for group in tabulate_pass(domain, phase, most=most):
            busy = {key: columns["busy", ""] for key, columns in group.columns.items()}
            terms = [self._term(key, values) for key, values in busy.items()]
            stage = "llm_prefill" if group.stage == "llm" else group.stage
            self._stages[stage] += terms
            for key, exposed in group.exposed_s.items():
                _accumulate(host, key, exposed["mid"])
                _accumulate(whole, key, exposed["mid"])
            if group.lines:
                splits.append(Split(stage, tuple(terms), group.lines))
                if not splits[-1].ahead:
                    continue
                self._constant_s += float(group.lines["mid"].ahead_s)
            for key, values in busy.items():
                _accumulate(whole, key, values)
        self._host = [self._term(key, values) for key, values in host.items()]
        self.splits = tuple(splits)
        self._waiting = [split for split in splits if not split.ahead]
        sizes = {name: len(domain.coordinate(name)) for name in ORDER}
        used = {term.key for split in self._waiting for term in split.terms}
        self._whole = [self._term(k, v) for k, v in _nested(whole, used, sizes).items()]

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        terms = [*self._whole, *self._host, *(t for found in self._stages.values() for t in found)]
        return sum(term.values.nbytes for term in terms)

    def total_s(self, chunk: Chunk, out: Array) -> Array:
        """Write the time of the pass to `out` [s]."""
        chunk.sum(self._whole, out, self._constant_s)
        for split in self._waiting:
            busy = split.busy_s(chunk)
            np.add(out, busy, out=out)
            np.add(out, split.exposed_s(busy, "mid", chunk.buffer("host")), out=out)
        return out

    def stages_s(self, chunk: Chunk, out: Mapping[str, Array]) -> None:
        """Write the GPU time of each stage and ``host_overhead`` to `out` [s]."""
        for stage, terms in self._stages.items():
            chunk.sum(terms, out[stage])
        host = chunk.sum(self._host, out["host_overhead"], self._constant_s)
        for split in self._waiting:
            # Most often the queue is all there is of its stage.
            whole = len(split.terms) == len(self._stages[split.stage])
            busy = out[split.stage] if whole else split.busy_s(chunk)
            np.add(host, split.exposed_s(busy, "mid", chunk.buffer("host")), out=host)

    def sum_s(self, chunk: Chunk, stages: Mapping[str, Array], out: Array) -> Array:
        """Write the sum of what `stages_s` has written to `out` [s]."""
        if not isinstance(chunk, Lattice):
            first, second, *rest = (stages[name] for name in (*STAGES, "host_overhead"))
            np.add(first, second, out=out)
            for more in rest:
                np.add(out, more, out=out)
            return out
        # What is the same in a whole row is summed once for each.
        whole = [name for name, terms in self._stages.items() if not chunk.is_by_row(terms)]
        by_row = [term for name in STAGES if name not in whole for term in self._stages[name]]
        constant = 0.0
        if self._waiting or not chunk.is_by_row(self._host):
            whole.append("host_overhead")
        else:
            by_row, constant = [*by_row, *self._host], self._constant_s
        chunk.sum(by_row, out, constant)
        for name in whole:
            np.add(out, stages[name], out=out)
        return out

    def _term(self, key: Key, values: FloatArray) -> Term:
        return self.lookup.term(key, np.array(values, dtype=self._dtype).ravel())


def _nested(
    arrays: Mapping[Key, FloatArray], used: set[Key], sizes: Mapping[str, int]
) -> dict[Key, FloatArray]:
    """Add every array to one with more coordinates, given or `used` anyway: fewer look-ups."""
    found = dict(arrays)
    for key in sorted(arrays, key=len):
        larger = [k for k in found if k > key] or [k for k in used if k > key]
        if larger:
            onto = min(larger, key=lambda k: (np.prod([sizes[name] for name in k]), sorted(k)))
            _accumulate(found, onto, spread(found.pop(key), key, onto, sizes))
    return found


def _accumulate(into: dict[Key, FloatArray], key: Key, values: FloatArray) -> None:
    into[key] = into[key] + values if key in into else values
