"""Times of a pass over all values that its operators' coordinates can take.

Every operator is timed once for each value of what it depends on: of equal operators one,
and where only the product of batch and tokens matters, each product once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

import numpy as np

from costmodel.evaluation import Evaluation, FloatArray, resolve
from costmodel.ops import Op
from costmodel.program import Phase
from costmodel.symbols import sym
from costmodel.tables.domain import (
    AXIS_NAMES,
    BATCH,
    PROMPT,
    Dependence,
    Domain,
    Key,
    time_expressions,
    time_symbols,
)
from costmodel.timing.composition import deviation_sums
from costmodel.timing.kernels.launch import HostCosts, StageLines, stage_lines, stage_time_s
from costmodel.timing.model import PassTimes

__all__ = [
    "ENDS",
    "ORDER",
    "SIDES",
    "Columns",
    "Group",
    "TooLarge",
    "maximal",
    "spread",
    "tabulate_pass",
]

ORDER = (*AXIS_NAMES, PROMPT)
"""Order of the dimensions of every array."""

SIDES = ("down", "up")

ENDS: tuple[Literal["mid", "low", "high"], ...] = ("mid", "low", "high")

Columns = dict[tuple[str, str], FloatArray]
"""Sums over operators: (``busy``, ""), (``launches``, ""), (``syncs``, ""), and with bands for
each of `SIDES` (side, kind), (side, ``apart``) and (side, ``shift``)."""

_BLOCK = 4096


class TooLarge(Exception):  # noqa: N818 - no error: the caller evaluates points directly
    """The tables would exceed their bound."""


@dataclass
class Group:
    """Operators whose host time is worked out together.

    Attributes
    ----------
    stage : str
        Their stage.
    costs : HostCosts, optional
        What starting them costs; None for nothing.
    rows : tuple of int
        Which operators of the pass.
    columns : dict of frozenset to Columns
        By coordinates; every array has one dimension per coordinate, in `ORDER`.
    shares : dict of str to float
        Share of the deviations that is common, by kind.
    """

    stage: str
    costs: HostCosts | None
    rows: tuple[int, ...]
    columns: dict[Key, Columns] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def exposed_s(self) -> dict[Key, dict[str, FloatArray]]:
        """Exposed host time of every entry by end of a launch's range [s].

        Empty if the host costs nothing, or GPU times are a sum over several coordinates.
        """
        if self.costs is None or len(self.columns) > 1:
            return {}
        return {
            key: {
                end: stage_time_s(
                    columns["busy", ""], columns["launches", ""], columns["syncs", ""],
                    self.costs.at_launch(end),
                )
                for end in ENDS
            }
            for key, columns in self.columns.items()
        }  # fmt: skip

    @property
    def lines(self) -> dict[str, StageLines]:
        """Host time over GPU time by end of a launch's range; empty where `exposed_s` is not.

        Raises
        ------
        TooLarge
            If the number of kernels varies.
        """
        if self.costs is None or len(self.columns) < 2:
            return {}
        launches, syncs = (self._constant(name) for name in ("launches", "syncs"))
        return {end: stage_lines(launches, syncs, self.costs.at_launch(end)) for end in ENDS}

    def _constant(self, name: str) -> float:
        columns = [columns[name, ""] for columns in self.columns.values()]
        if any(np.ptp(column) for column in columns):
            raise TooLarge
        return sum(float(column.flat[0]) for column in columns)


@dataclass(frozen=True)
class _Points:
    """Where operators are timed, and how that becomes an array over coordinates.

    Attributes
    ----------
    symbols : dict of str to ndarray
        Values of symbols at every point.
    inverse : ndarray, optional
        The point of every entry; None where entries are points.
    """

    symbols: dict[str, FloatArray]
    inverse: np.typing.NDArray[np.intp] | None = None


def tabulate_pass(domain: Domain, phase: Phase, *, most: int, bands: bool = False) -> list[Group]:
    """Time all operators of a pass.

    Parameters
    ----------
    domain : Domain
        What the points range over.
    phase : {"prefill", "decode"}
        The pass.
    most : int
        Entries of the largest array.
    bands : bool
        Whether to sum deviations too.

    Returns
    -------
    list of Group

    Raises
    ------
    TooLarge
        If an array would have more than `most` entries.
    """
    dependence = domain.dependence(phase)
    ops = domain.program.phase_ops(phase)
    keys = [dependence.of(op) for op in ops]
    sizes = {name: len(domain.coordinate(name)) for name in set().union(*keys)}
    if max(prod(sizes[name] for name in key) for key in keys) > most:
        raise TooLarge
    groups = _groups(ops, domain.times(phase, {})[1])
    jobs: dict[tuple[Key, str | None], list[int]] = {}
    for index, op in enumerate(ops):
        jobs.setdefault((keys[index], _product(op, keys[index], dependence)), []).append(index)
    for (key, product), members in jobs.items():
        points = _points(domain, phase, dependence, key, product)
        own = [group for group in groups if set(group.rows) & set(members)]
        found = _timed(domain, phase, points, members, own, bands)
        for group, columns in zip(own, found, strict=True):
            target = next(k for k in maximal(keys[row] for row in group.rows) if k >= key)
            into = group.columns.setdefault(target, {})
            for name, column in columns.items():
                entries = column if points.inverse is None else column[points.inverse]
                wide = spread(entries, key, target, sizes)
                into[name] = into[name] + wide if name in into else wide
    return groups


def spread(values: FloatArray, key: Key, onto: Key, sizes: Mapping[str, int]) -> FloatArray:
    """Return an array over `key` as one over the coordinates `onto`, which include them.

    Examples
    --------
    >>> spread(np.array([1.0, 2.0]), Key({BATCH}), Key({BATCH, PROMPT}), {BATCH: 2, PROMPT: 3})
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    names = [name for name in ORDER if name in onto]
    column = values.reshape([sizes[name] if name in key else 1 for name in names])
    return np.broadcast_to(column, [sizes[name] for name in names])


def _groups(ops: Sequence[Op], times: PassTimes) -> list[Group]:
    groups = [Group(ops[queue.rows[0]].stage, queue.costs, queue.rows) for queue in times.queues]
    queued = {row for group in groups for row in group.rows}
    rest: dict[str, list[int]] = {}
    for index, op in enumerate(ops):
        if index not in queued:
            rest.setdefault(op.stage, []).append(index)
    return groups + [Group(stage, None, tuple(rows)) for stage, rows in rest.items()]


def maximal(keys: Iterable[Key]) -> list[Key]:
    """Return the keys that are part of no other."""
    found = set(keys)
    return sorted((key for key in found if not any(key < other for other in found)), key=sorted)


def _product(op: Op, key: Key, dependence: Dependence) -> str | None:
    """Return the symbol whose product with the batch is all that `op` depends on."""
    batch = sym("b")
    varying = [s for s in time_symbols(op) if dependence.keys.get(s) and s != batch]
    if BATCH not in key or len(varying) != 1:
        return None
    (symbol,) = varying
    # A size that the batch itself sets, as padding does, is no factor beside it.
    if BATCH in dependence.keys[symbol]:
        return None
    if any(e.xreplace({symbol: symbol / batch}).has(batch) for e in time_expressions(op)):
        return None
    return str(symbol.name)


def _points(
    domain: Domain, phase: Phase, dependence: Dependence, key: Key, product: str | None
) -> _Points:
    names = [name for name in ORDER if name in key]
    if product is None:
        grid = np.meshgrid(*(domain.coordinate(name) for name in names), indexing="ij")
        at = {name: axis.ravel() for name, axis in zip(names, grid, strict=True)}
        at.setdefault(BATCH, domain.values[BATCH][:1])
        return _Points(domain.symbols(at, dependence))
    (other,) = key - {BATCH}
    at = {other: domain.coordinate(other)}
    sizes = resolve(domain.program, phase, domain.symbols(at, dependence))[sym(product)]
    products, inverse = np.unique(
        domain.coordinate(BATCH)[:, None] * sizes, return_inverse=True
    )  # fmt: skip
    return _Points({"b": np.ones(len(products)), product: products}, inverse.ravel())


def _timed(
    domain: Domain,
    phase: Phase,
    points: _Points,
    members: Sequence[int],
    groups: Sequence[Group],
    bands: bool,
) -> list[Columns]:
    """Return the sums over those members that belong to each group, over all points."""
    ops = domain.program.phase_ops(phase)
    alike: dict[tuple[Op, str], list[int]] = {}
    for index in members:
        plain = replace(ops[index], name="", part="other", graph_safe=True)
        alike.setdefault((plain, ops[index].note), []).append(index)
    first = {ops[same[0]].name: same for same in alike.values()}
    chosen = tuple(op for op in domain.program.ops if op.name in first)
    counts = [[len({*group.rows} & {*first[op.name]}) for op in chosen] for group in groups]
    blocks: list[list[Columns]] = [[] for _ in groups]
    for start in range(0, max(map(len, points.symbols.values())), _BLOCK):
        here = {name: v[start : start + _BLOCK] for name, v in points.symbols.items()}
        evaluation, times = domain.times(phase, here, chosen)
        for group, count, found in zip(groups, counts, blocks, strict=True):
            found.append(_sums(evaluation, times, count, bands, group.shares))
    return [
        {name: np.concatenate([block[name] for block in found]) for name in found[0]}
        for found in blocks
    ]


def _sums(
    evaluation: Evaluation,
    times: PassTimes,
    count: Sequence[int],
    bands: bool,
    shares: dict[str, float],
) -> Columns:
    """Sum over operators, each `count` times."""
    repeat = evaluation.repeat * np.array(count, dtype=np.float64)[:, None]
    columns = {
        ("busy", ""): (times.op_s * repeat).sum(axis=0),
        ("launches", ""): (evaluation.launches * repeat).sum(axis=0),
        ("syncs", ""): (evaluation.host_syncs * repeat).sum(axis=0),
    }
    if bands and times.parts:
        parts = [p for p, n in zip(times.parts, count, strict=True) for _ in range(n)]
        for side, sums in zip(SIDES, deviation_sums(parts), strict=True):
            shares.update(sums.shares)
            columns |= {(side, kind): total for kind, total in sums.together.items()}
            columns |= {(side, "apart"): sums.apart, (side, "shift"): sums.shift}
    return columns
