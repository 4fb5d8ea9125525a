"""Programs that differ in numbers only, evaluated together.

Changing a parameter mostly changes the values of symbols, not the formulas; then all values are
one evaluation over arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.errors import CostModelError
from costmodel.evaluation import FloatArray, evaluate
from costmodel.program import Program
from costmodel.search.parameters import Parameter, with_value
from costmodel.timing.device import resolve_device
from costmodel.timing.difference import Side
from costmodel.timing.model import PassTimes, load_time_model

__all__ = ["Family", "Possible", "families", "possible_values", "timed"]

Indices = npt.NDArray[np.intp]

_CHUNK = 2048


@dataclass(frozen=True)
class Family:
    """Values of a parameter whose programs have the same formulas.

    Attributes
    ----------
    program : Program
        That of the first value.
    indices : ndarray of int
        Which values, in order.
    overrides : dict of str to ndarray
        Symbols that differ, one number per index.
    """

    program: Program
    indices: Indices
    overrides: dict[str, FloatArray]

    def at(self, indices: Indices) -> dict[str, FloatArray]:
        """Return the symbols at some of the indices."""
        slots = np.searchsorted(self.indices, indices)
        return {name: column[slots] for name, column in self.overrides.items()}


@dataclass(frozen=True)
class Possible:
    """Values of a parameter that the method and the model can do.

    Attributes
    ----------
    values : ndarray of int
        In order.
    programs, baselines : tuple of Program
        With and without compression, one per value; one for all where the parameter is a
        symbol of the program, or does not matter.
    refused : int
        How many of the range are not possible.
    reason : str
        Why the first of these is not; empty if none.
    """

    values: npt.NDArray[np.int64]
    programs: tuple[Program, ...]
    baselines: tuple[Program, ...]
    refused: int
    reason: str


def possible_values(case: Case, parameter: Parameter) -> Possible:
    """Return the values in the range of a parameter that are possible.

    Raises
    ------
    CostModelError
        The reason, if none is.
    """
    span = range(parameter.low, parameter.high + 1)
    plain = replace(case, request=None).program()[0]
    if parameter.symbol is not None:
        return Possible(
            np.asarray(span, dtype=np.int64), (case.program()[0],), (plain,), 0, ""
        )  # fmt: skip
    of_method = parameter.position is not None
    values, programs, baselines, first = [], [], [plain] if of_method else [], None
    for value in span:
        try:
            found = with_value(case, parameter, value)
            programs.append(found.program()[0])
        except CostModelError as error:
            first = first or error
            continue
        values.append(value)
        if not of_method:
            baselines.append(replace(found, request=None).program()[0])
    if first is not None and not values:
        raise first
    return Possible(
        np.asarray(values, dtype=np.int64), tuple(programs), tuple(baselines),
        len(span) - len(values), str(first) if first else "",
    )  # fmt: skip


def families(possible: Possible, parameter: Parameter, *, baseline: bool) -> list[Family]:
    """Return the programs of all values, those with the same formulas together.

    Parameters
    ----------
    possible : Possible
        The values.
    parameter : Parameter
        What varies.
    baseline : bool
        Whether the programs are those without compression.
    """
    programs = possible.baselines if baseline else possible.programs
    if len(programs) == 1:
        symbols = {}
        if parameter.symbol is not None:
            symbols = {parameter.symbol: possible.values.astype(np.float64)}
        return [Family(programs[0], np.arange(len(possible.values)), symbols)]
    groups: list[list[int]] = []
    for index, program in enumerate(programs):
        for group in groups:
            if _same_formulas(program, programs[group[0]]):
                group.append(index)
                break
        else:
            groups.append([index])
    return [_family(group, [programs[index] for index in group]) for group in groups]


def _same_formulas(one: Program, other: Program) -> bool:
    return (
        one.ops == other.ops
        and one.derived == other.derived
        and one.values.keys() == other.values.keys()
    )


def _family(indices: list[int], programs: list[Program]) -> Family:
    first = programs[0]
    differing = [
        symbol for symbol, value in first.values.items()
        if any(program.values[symbol] != value for program in programs)
    ]  # fmt: skip
    return Family(
        first,
        np.asarray(indices),
        {
            symbol.name: np.array([float(program.values[symbol]) for program in programs])
            for symbol in differing
        },
    )


def timed(
    case: Case, compressed: Sequence[Family], baseline: Sequence[Family], *, times: bool = True
) -> Iterator[tuple[Indices, Side, Side]]:
    """Evaluate both sides at all values, a chunk at a time.

    Parameters
    ----------
    case : Case
        GPU, deployment and time model.
    compressed, baseline : sequence of Family
        Programs of the two sides.
    times : bool
        Whether times are needed, and not only FLOPs and bytes.

    Yields
    ------
    tuple of ndarray, Side, Side
        Indices of values; with and without compression there.
    """
    for one in compressed:
        for other in baseline:
            shared = np.intersect1d(one.indices, other.indices, assume_unique=True)
            for first in range(0, len(shared), _CHUNK):
                indices = shared[first : first + _CHUNK]
                with_it, without = (
                    _side(case, side.program, side.at(indices), times) for side in (one, other)
                )
                yield indices, with_it, without


def _side(case: Case, program: Program, symbols: dict[str, Any], times: bool) -> Side:
    evaluation = evaluate(program, "prefill", **symbols)
    if not times:
        nothing = np.zeros(())
        return Side(evaluation, PassTimes(nothing, nothing, (), nothing))
    device = resolve_device(case.gpu, load_host(), case.deployment)
    model = load_time_model(case.time_model)
    return Side(evaluation, model.times(evaluation, device, case.deployment))
