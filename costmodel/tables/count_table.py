"""Tables of FLOPs and memory: what is counted, as exact as times and looked up the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
from sympy import Add, Expr, expand

from costmodel.evaluation import Evaluation, FloatArray, evaluate, evaluate_expressions, resolve
from costmodel.memory import weight_bytes
from costmodel.ops import ZERO, Op
from costmodel.program import PHASES, Phase, Program
from costmodel.results import STAGES, stage_of
from costmodel.tables.domain import BATCH, PROMPT, Dependence, Domain, Key
from costmodel.tables.lookup import Array, Chunk, Lookup, Term
from costmodel.tables.tabulation import ORDER, TooLarge

__all__ = ["COUNTS", "CountTable"]

FLOPS = tuple(f"flops_{stage}" for stage in STAGES)
MEMORY = ("weights", "kv_cache", "activations_peak", "memory_total")
COUNTS = (*FLOPS, "flops_total", *MEMORY)
"""FLOPs of the prefill by stage [FLOP], and bytes on one device [B]."""

_BLOCK = 4096


class CountTable:
    """FLOPs by stage and memory over the points of a domain.

    Parameters
    ----------
    domain : Domain
        What points range over.
    lookup : Lookup
        Where entries lie.
    most : int
        Entries of the largest array.

    Raises
    ------
    TooLarge
        If an array would have more entries.
    """

    def __init__(self, domain: Domain, lookup: Lookup, *, most: int) -> None:
        self._domain, self._lookup, self._most = domain, lookup, most
        program = domain.program
        prefill = domain.dependence("prefill")
        self._flops = {
            f"flops_{stage}": self._ops(
                "prefill", [op for op in program.phase_ops("prefill")
                            if op.matmul and stage_of(op) == stage],
                prefill.of, lambda found: found.total(found.flops),
            )
            for stage in STAGES
        }  # fmt: skip
        self._live: list[Term] = []
        self._live_sums: list[list[Term]] = []
        for phase in PHASES:
            self._add_live(phase)
        early = [op for op in program.ops if op.stage in program.before_cache]
        self._early = self._ops("prefill", early, _live_key(prefill), _most_live)
        self._kept = self._sum("prefill", [group.bytes for group in program.cache])
        constants = resolve(program, "prefill")
        (weights,) = evaluate_expressions([weight_bytes(program)], constants)
        self._weights = float(weights)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        sums = [self._kept, *self._live_sums, *self._flops.values()]
        terms = [*self._live, *self._early, *(term for found in sums for term in found)]
        return sum(term.values.nbytes for term in terms)

    def fill(self, chunk: Chunk, outs: Mapping[str, Array]) -> None:
        """Write those of `COUNTS` that `outs` has at all points."""
        total = outs.get("flops_total")
        if total is not None:
            total[...] = 0.0
        for name, terms in self._flops.items():
            if name in outs:
                chunk.sum(terms, outs[name])
                if total is not None:
                    np.add(total, outs[name], out=total)
            elif total is not None:
                np.add(total, chunk.sum(terms, _buffer(chunk, "flops")), out=total)
        self._fill_memory(chunk, outs)

    def _fill_memory(self, chunk: Chunk, outs: Mapping[str, Array]) -> None:
        whole = outs.get("memory_total")
        if "weights" in outs:
            outs["weights"][...] = self._weights
        if "kv_cache" in outs or whole is not None:
            cache = outs["kv_cache"] if "kv_cache" in outs else _buffer(chunk, "cache")
            chunk.sum(self._kept, cache)
        if "activations_peak" in outs or whole is not None:
            named = "activations_peak" in outs
            live = outs["activations_peak"] if named else _buffer(chunk, "live")
            chunk.maximum(self._live, live)
            for terms in self._live_sums:
                np.maximum(live, chunk.sum(terms, _buffer(chunk, "sum")), out=live)
            if whole is not None:
                np.add(cache, live, out=whole)
            if self._early:
                early = chunk.maximum(self._early, _buffer(chunk, "early"))
                np.maximum(live, early, out=live)
                if whole is not None:
                    np.maximum(whole, early, out=whole)
        if whole is not None:
            np.add(whole, self._weights, out=whole)

    def _ops(
        self,
        phase: Phase,
        ops: Sequence[Op],
        key_of: Callable[[Op], Key],
        reduce: Callable[[Evaluation], FloatArray],
    ) -> list[Term]:
        groups: dict[Key, list[Op]] = {}
        for op in ops:
            groups.setdefault(key_of(op), []).append(op)
        old = self._domain.program
        return [
            self._term(
                phase, key,
                lambda at, chosen=tuple(members): reduce(  # type: ignore[misc]
                    evaluate(
                        Program(chosen, (), (), old.values, old.derived, old.derived_decode),
                        phase, **at,
                    )
                ),
            )
            for key, members in groups.items()
        ]  # fmt: skip

    def _add_live(self, phase: Phase) -> None:
        """Tabulate what is live at operators: the most over those of one key, or sums of parts."""
        domain, program = self._domain, self._domain.program
        ops = [op for op in program.phase_ops(phase) if op.stage not in program.before_cache]
        key_of = _live_key(domain.dependence(phase))
        whole = [op for op in ops if self._size(key_of(op)) <= self._most]
        self._live += self._ops(phase, whole, key_of, _most_live)
        self._live_sums += self._most_of_sums(phase, [op.live for op in ops if op not in whole])

    def _most_of_sums(self, phase: Phase, expressions: Sequence[Expr]) -> list[list[Term]]:
        """Tabulate sums whose largest is wanted, of those that differ in one part the most.

        What waits beside all operators of the language model depends on other coordinates than
        the operators, and is looked up once.
        """
        groups: dict[frozenset[tuple[Key, Expr]], dict[Key, list[Expr]]] = {}
        for expression in expressions:
            parts = self._parts(phase, expression)
            main = max(parts, key=lambda key: (PROMPT in key, self._size(key)))
            common = frozenset((key, part) for key, part in parts.items() if key != main)
            groups.setdefault(common, {}).setdefault(main, []).append(parts[main])
        return [
            [
                self._reduced(phase, main, members, np.maximum),
                *(self._reduced(phase, key, [part], np.add) for key, part in common),
            ]
            for common, found in groups.items()
            for main, members in found.items()
        ]

    def _parts(self, phase: Phase, expression: Expr) -> dict[Key, Expr]:
        """Return the summands of an expression, added up by what they depend on."""
        dependence = self._domain.dependence(phase)
        parts: dict[Key, Expr] = {}
        for summand in Add.make_args(expand(expression)):
            key = _key_of(summand.free_symbols, dependence)
            parts[key] = parts.get(key, ZERO) + summand
        return parts

    def _sum(self, phase: Phase, expressions: Sequence[Expr]) -> list[Term]:
        """Tabulate a sum of expressions, its summands apart by what they depend on."""
        parts = self._parts(phase, sum(expressions, start=ZERO))
        return [self._reduced(phase, key, [part], np.add) for key, part in parts.items()]

    def _reduced(self, phase: Phase, key: Key, expressions: Sequence[Expr], join: np.ufunc) -> Term:
        """Tabulate the sum, or the largest, of expressions of one key."""

        def values(at: Mapping[str, FloatArray]) -> FloatArray:
            found = evaluate_expressions(expressions, resolve(self._domain.program, phase, at))
            return np.asarray(join.reduce(np.broadcast_arrays(*found)))

        return self._term(phase, key, values)

    def _size(self, key: Key) -> int:
        return prod(len(self._domain.coordinate(name)) for name in key)

    def _term(
        self, phase: Phase, key: Key, values: Callable[[Mapping[str, FloatArray]], FloatArray]
    ) -> Term:
        """Evaluate at all combinations of the coordinates of `key`, a block at a time."""
        names = [name for name in ORDER if name in key]
        axes = [self._domain.coordinate(name) for name in names]
        count = self._size(key)
        if count > self._most:
            raise TooLarge
        grid = np.meshgrid(*axes, indexing="ij")
        points = {name: axis.ravel() for name, axis in zip(names, grid, strict=True)}
        points.setdefault(BATCH, self._domain.values[BATCH][:1])
        dependence = self._domain.dependence(phase)
        table = np.empty(count)
        for start in range(0, count, _BLOCK):
            here = {
                name: axis if len(axis) == 1 else axis[start : start + _BLOCK]
                for name, axis in points.items()
            }
            table[start : start + _BLOCK] = values(self._domain.symbols(here, dependence))
        return self._lookup.term(key, table)


def _buffer(chunk: Chunk, name: str) -> Array:
    return chunk.buffer((name, "count"), dtype=np.float64)


def _key_of(symbols: set[object], dependence: Dependence) -> Key:
    known: Mapping[object, Key] = {**dependence.keys}
    return Key().union(*(known.get(symbol, Key()) for symbol in symbols))


def _most_live(found: Evaluation) -> FloatArray:
    return np.asarray(found.live.max(axis=0))


def _live_key(dependence: Dependence) -> Callable[[Op], Key]:
    return lambda op: _key_of(op.live.free_symbols, dependence)
