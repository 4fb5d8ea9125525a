"""The points a table covers, and the coordinates that each operator's cost depends on.

A point is (batch, text tokens, visual tokens), yet few operators read all three: those of the
decoder read the batch and the length of the prompt, those of the vision side the batch and
maybe the visual tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sympy import Expr, Symbol

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.compression.method import Context, Request
from costmodel.compression.method import request as make_request
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError, UnsupportedError
from costmodel.evaluation import Evaluation, FloatArray, evaluate, resolve
from costmodel.ops import Op
from costmodel.program import Phase, Program
from costmodel.symbols import sym
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.model import PassTimes, TimeModel, load_time_model

__all__ = [
    "AXIS_NAMES",
    "BATCH",
    "PROMPT",
    "TEXT",
    "VISUAL",
    "Dependence",
    "Domain",
    "Key",
    "time_expressions",
    "time_symbols",
]

BATCH, TEXT, VISUAL = AXIS_NAMES = ("batch", "text_tokens", "visual_tokens")
PROMPT = "prompt"
"""Coordinate of operators that read the sum of text and visual tokens only."""

Key = frozenset[str]
"""Coordinates that a cost depends on."""

_MOST_SUMS = 4_000_000


def time_expressions(op: Op) -> tuple[Expr, ...]:
    """Return all expressions of an operator that a time model reads; memory is none of them."""
    traffic = op.traffic
    return (
        op.flops, op.repeat, op.launches, op.host_syncs, traffic.weights, traffic.act_in,
        traffic.act_out, traffic.kv_read, traffic.kv_write, *(size for _, size in op.shape),
    )  # fmt: skip


def time_symbols(op: Op) -> set[Symbol]:
    """Return the symbols of `time_expressions`."""
    return set().union(*(expression.free_symbols for expression in time_expressions(op)))


@dataclass(frozen=True)
class Dependence:
    """Coordinates of every symbol of a pass that varies.

    Attributes
    ----------
    keys : dict of Symbol to frozenset of str
        Coordinates that determine the symbol.
    offsets : dict of str to float
        By name of the symbols that are `PROMPT` plus a constant: that constant.
    """

    keys: dict[Symbol, Key]
    offsets: dict[str, float]

    def of(self, op: Op) -> Key:
        """Return the coordinates that determine the cost of `op`."""
        return Key().union(*(self.keys.get(s, Key()) for s in time_symbols(op)))


@dataclass(frozen=True, eq=False)
class Domain:
    """Values of the axes, and what they mean for one case.

    Attributes
    ----------
    case : Case
    program : Program
    values : dict of str to ndarray
        Of each of `AXIS_NAMES`, sorted, each once.
    drivers : dict of str to ndarray
        Symbols that the visual tokens set, with their value at every count.
    """

    case: Case
    program: Program
    values: dict[str, FloatArray]
    drivers: dict[str, FloatArray]

    @classmethod
    def of(cls, case: Case, **axes: Any) -> Domain:
        """Return the domain of a case.

        Parameters
        ----------
        case : Case
            From `costmodel.prepare`.
        **axes : array_like or None
            By `AXIS_NAMES`; None is the value of the case.

        Raises
        ------
        InputError
            If a value is negative or not finite, an axis is empty, or the method of the
            case cannot keep such a number of visual tokens.
        """
        program, plan = case.program()
        kept = plan.kept.mean if plan else case.layout.tokens if case.layout else 0
        prepared = {BATCH: case.workload.batch, TEXT: case.workload.text_tokens, VISUAL: kept}
        values = {
            name: _axis(name, prepared[name] if axes.get(name) is None else axes[name])
            for name in AXIS_NAMES
        }
        counts = values[VISUAL]
        drivers: dict[str, FloatArray] = {}
        if counts.tolist() != [kept]:
            drivers = {"V": counts}
            if plan is not None and sym("V") not in program.values:
                drivers = _by_plan(case, plan, counts)
        return cls(case, program, values, drivers)

    @cached_property
    def model(self) -> TimeModel:
        """The time model of the case."""
        return load_time_model(self.case.time_model)

    @cached_property
    def device(self) -> Device:
        """The device of the case."""
        return resolve_device(self.case.gpu, load_host(), self.case.deployment)

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all((values == np.rint(values)).all() for values in self.values.values())

    def coordinate(self, name: str) -> FloatArray:
        """Return the values of a coordinate, sorted, each once."""
        if name != PROMPT:
            return self.values[name]
        text, visual = self.values[TEXT], self.values[VISUAL]
        if len(text) * len(visual) <= _MOST_SUMS:
            return np.unique(text[:, None] + visual)
        return np.arange(text[0] + visual[0], text[-1] + visual[-1] + 1)

    def times(
        self, phase: Phase, symbols: Mapping[str, FloatArray], ops: tuple[Op, ...] | None = None
    ) -> tuple[Evaluation, PassTimes]:
        """Evaluate and time one pass, or some operators of the program."""
        program = self.program
        if ops is not None:
            program = Program(
                ops, (), (), program.values, program.derived, program.derived_decode
            )  # fmt: skip
        evaluation = evaluate(program, phase, **symbols)
        return evaluation, self.model.times(evaluation, self.device, self.case.deployment)

    def symbols(
        self, points: Mapping[str, FloatArray], dependence: Dependence | None = None
    ) -> dict[str, FloatArray]:
        """Return the values of symbols at points given by some coordinates.

        Parameters
        ----------
        points : mapping of str to ndarray
            Values by coordinate.
        dependence : Dependence, optional
            Needed for `PROMPT`.

        Returns
        -------
        dict of str to ndarray

        Raises
        ------
        InputError
            If the visual tokens are none of the domain's and not a symbol themselves.
        """
        found: dict[str, FloatArray] = {}
        if BATCH in points:
            found["b"] = points[BATCH]
        if TEXT in points:
            found["T"] = points[TEXT]
        if VISUAL in points:
            found |= self._driven(points[VISUAL])
        if PROMPT in points and dependence is not None:
            found |= {name: points[PROMPT] + more for name, more in dependence.offsets.items()}
        return found

    def _driven(self, counts: FloatArray) -> dict[str, FloatArray]:
        if self.drivers.keys() == {"V"}:
            return {"V": counts}
        known = self.values[VISUAL]
        slots = np.minimum(np.searchsorted(known, counts), len(known) - 1)
        if (wrong := counts[known[slots] != counts]).size:
            raise InputError(VISUAL, float(wrong.flat[0]), "a number that the table was built for")
        return {name: column[slots] for name, column in self.drivers.items()}

    def dependence(self, phase: Phase) -> Dependence:
        """Return what the symbols of a pass depend on; what stays as prepared is a constant."""
        relations = self.program.relations(phase)
        axis_of = {"b": BATCH, "T": TEXT} | dict.fromkeys(self.drivers, VISUAL)
        keys: dict[Symbol, Key] = {}

        def key(symbol: Symbol) -> Key:
            if symbol not in keys:
                axis = axis_of.get(symbol.name)
                own = {axis} if axis and not self._as_prepared(symbol, axis) else set()
                inputs = relations[symbol].free_symbols if symbol in relations else ()
                keys[symbol] = frozenset(own).union(*(key(x) for x in inputs if not axis))
            return keys[symbol]

        for symbol in [*self.program.values, *relations]:
            key(symbol)
        offsets = {}
        for symbol in [s for s, found in keys.items() if found == {TEXT, VISUAL}]:
            if (more := self._beyond_prompt(symbol, phase)) is not None:
                keys[symbol], offsets[symbol.name] = Key({PROMPT}), more
        return Dependence(keys, offsets)

    def _as_prepared(self, symbol: Symbol, axis: str) -> bool:
        """Whether a symbol only has the value that the program was prepared with."""
        values = self.drivers.get(symbol.name, self.values[axis])
        own = self.program.values.get(symbol)
        return len(values) == 1 and own is not None and float(values[0]) == float(own)

    def _beyond_prompt(self, symbol: Symbol, phase: Phase) -> float | None:
        """Return what `symbol` adds to the length of the prompt, None if that is no constant."""
        relations = self.program.relations(phase)
        expression: Expr = symbol
        while expression.free_symbols & relations.keys():
            expression = expression.xreplace(relations)
        if (expression - sym("T")).expand().has(sym("T")):
            return None
        known = resolve(self.program, phase, self.drivers | {"T": np.zeros(1)})
        more = np.unique(known[symbol] - self.values[VISUAL])
        return float(more[0]) if len(more) == 1 else None


def _axis(name: str, given: Any) -> FloatArray:
    array = np.unique(np.asarray(given, dtype=np.float64))
    if array.size == 0 or not np.isfinite(array).all() or array[0] < (name == BATCH):
        least = "1" if name == BATCH else "0"
        raise InputError(name, given, f"finite numbers of at least {least}, and at least one")
    return array


def _by_plan(case: Case, plan: CompressionPlan, counts: FloatArray) -> dict[str, FloatArray]:
    """Return the symbols that differ between plans keeping these counts."""
    request = case.request
    if not isinstance(request, Request):
        raise UnsupportedError(VISUAL, counts[0], "the visual tokens of the case")
    context = Context(case.model, case.images, case.deployment)
    images = sum(group.units for group in case.images)
    given = request.params.model_dump(exclude_unset=True, exclude_none=True)
    given.pop("retention", None)  # a count replaces a share
    columns = []
    for count in counts:
        per_image, rest = divmod(float(count) - context.markers, images)
        if rest or per_image < 1:
            raise InputError(
                VISUAL, float(count), f"{context.markers} marker tokens and the same whole number, "
                f"at least 1, for each of {images} images",
            )  # fmt: skip
        wanted = request.method.params_for(int(per_image), context)
        found = make_request(request.method, {**given, **wanted}).plan(context)
        if found.kept.mean != count or (found.ops, found.decoder_groups) != (
            plan.ops, plan.decoder_groups,
        ):  # fmt: skip
            raise UnsupportedError(VISUAL, float(count), f"{plan.kept.mean:g}, as prepared")
        columns.append(found.values)
    return {
        symbol.name: np.array([float(column[symbol]) for column in columns])
        for symbol in columns[0]
        if any(column[symbol] != plan.values[symbol] for column in columns)
    }
