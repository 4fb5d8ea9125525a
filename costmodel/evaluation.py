"""From a program to numbers: the one place where expressions are compiled.

All expressions of a pass are compiled together once (`sympy.lambdify` with
common subexpressions shared), cached by their content, and evaluated over
NumPy arrays of points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy
from sympy import Expr, Symbol

from costmodel.ops import Op
from costmodel.program import Phase, Program
from costmodel.symbols import sym

__all__ = ["Evaluation", "FloatArray", "evaluate", "evaluate_expressions", "resolve"]

FloatArray = npt.NDArray[np.float64]

_BYTE_KINDS = ("weights", "act_in", "act_out", "kv_read", "kv_write")


@dataclass(frozen=True)
class Evaluation:
    """Numbers of every operator at every point.

    Attributes
    ----------
    ops : tuple of Op
        Operators, in order; rows of every array.
    flops, launches, host_syncs, repeat, live : ndarray
        Shape ``(operators, points)``; per execution except `repeat`.
    traffic : dict of str to ndarray
        Bytes by kind [B], per execution.
    shapes : tuple of dict
        For each operator, its sizes as arrays over points.
    points : tuple of int
        Shape of the grid.
    """

    ops: tuple[Op, ...]
    flops: FloatArray
    launches: FloatArray
    host_syncs: FloatArray
    repeat: FloatArray
    live: FloatArray
    traffic: dict[str, FloatArray]
    shapes: tuple[dict[str, FloatArray], ...]
    points: tuple[int, ...]

    @property
    def bytes_moved(self) -> FloatArray:
        """Bytes of one execution, all kinds [B]; shape ``(operators, points)``."""
        total: FloatArray = sum(self.traffic.values(), start=np.zeros(1))
        return total

    def total(self, per_execution: FloatArray, mask: Sequence[bool] | None = None) -> FloatArray:
        """Sum over operators of a per-execution quantity times `repeat`.

        Parameters
        ----------
        per_execution : ndarray
            Shape ``(operators, points)``.
        mask : sequence of bool, optional
            Operators to include.

        Returns
        -------
        ndarray
            Shape of the points.
        """
        rows = per_execution * self.repeat
        if mask is not None:
            rows = rows[np.asarray(mask, dtype=bool)]
        result: FloatArray = rows.sum(axis=0)
        return result


def evaluate(program: Program, phase: Phase = "prefill", **overrides: Any) -> Evaluation:
    """Evaluate all operators of one pass.

    Parameters
    ----------
    program : Program
        The program.
    phase : {"prefill", "decode"}
        The pass.
    **overrides : float or array_like
        Values of symbols by name, broadcast against each other, for example
        ``T=np.arange(1, 4097)``.

    Returns
    -------
    Evaluation

    Raises
    ------
    KeyError
        If an override is no symbol.
    """
    ops = program.phase_ops(phase)
    expressions: list[Expr] = []
    for op in ops:
        expressions += [op.flops, op.launches, op.host_syncs, op.repeat, op.live]
        expressions += [getattr(op.traffic, kind) for kind in _BYTE_KINDS]
        expressions += [size for _, size in op.shape]
    values = resolve(program, phase, overrides)
    results = evaluate_expressions(expressions, values)
    points = np.broadcast_shapes(*(np.shape(value) for value in values.values()))

    width = 5 + len(_BYTE_KINDS)
    columns: list[list[FloatArray]] = [[] for _ in range(width)]
    shapes = []
    position = 0
    for op in ops:
        for column in range(width):
            columns[column].append(results[position + column])
        position += width
        names = [name for name, _ in op.shape]
        shapes.append(dict(zip(names, results[position : position + len(names)], strict=True)))
        position += len(names)
    stacked = [_stack(column, points) for column in columns]
    return Evaluation(
        ops=ops,
        flops=stacked[0],
        launches=stacked[1],
        host_syncs=stacked[2],
        repeat=stacked[3],
        live=stacked[4],
        traffic=dict(zip(_BYTE_KINDS, stacked[5:], strict=True)),
        shapes=tuple(shapes),
        points=points,
    )


def _stack(rows: list[FloatArray], points: tuple[int, ...]) -> FloatArray:
    return np.stack([np.broadcast_to(row, points) for row in rows])


def resolve(
    program: Program, phase: Phase, overrides: Mapping[str, Any] | None = None
) -> dict[Symbol, FloatArray]:
    """Return the value of every symbol of a pass, relations worked out.

    Parameters
    ----------
    program : Program
        The program.
    phase : {"prefill", "decode"}
        The pass.
    overrides : mapping of str to float or array_like, optional
        Replaces values or relations.

    Returns
    -------
    dict of Symbol to ndarray
    """
    known: dict[Symbol, FloatArray] = {
        symbol: np.asarray(value, dtype=np.float64) for symbol, value in program.values.items()
    }
    replaced = {
        sym(name): np.asarray(value, dtype=np.float64)
        for name, value in (overrides or {}).items()
    }  # fmt: skip
    known |= replaced
    waiting = {s: e for s, e in program.relations(phase).items() if s not in replaced}
    while waiting:
        ready = [s for s, e in waiting.items() if all(x in known for x in e.free_symbols)]
        if not ready:
            raise KeyError(f"unresolved symbols: {sorted(map(str, waiting))}")
        for symbol, result in zip(
            ready, evaluate_expressions([waiting[s] for s in ready], known), strict=True
        ):
            known[symbol] = result
            del waiting[symbol]
    return known


def evaluate_expressions(
    expressions: Sequence[Expr], values: Mapping[Symbol, FloatArray]
) -> list[FloatArray]:
    """Evaluate expressions together; constants come back as arrays too.

    Parameters
    ----------
    expressions : sequence of Expr
        What to compute.
    values : mapping of Symbol to ndarray
        A value for every free symbol.

    Returns
    -------
    list of ndarray
        float64; of the values' broadcast shape or scalar.

    Examples
    --------
    >>> import numpy as np
    >>> b = sym("b")
    >>> evaluate_expressions([2 * b, sympy.Integer(3)], {b: np.array([1.0, 2.0])})
    [array([2., 4.]), array(3.)]
    """
    unique = tuple(dict.fromkeys(expressions))
    constant = {e: np.asarray(float(e), dtype=np.float64) for e in unique if e.is_number}
    plain = {e: values[e] for e in unique if e.is_Symbol}
    compound = tuple(e for e in unique if e not in constant and e not in plain)
    if compound:
        arguments, function = _compile(compound)
        computed = function(*(values[symbol] for symbol in arguments))
        plain |= {
            e: np.asarray(result, dtype=np.float64)
            for e, result in zip(compound, computed, strict=True)
        }
    table = constant | plain
    return [table[e] for e in expressions]


@lru_cache(maxsize=256)
def _compile(
    expressions: tuple[Expr, ...],
) -> tuple[tuple[Symbol, ...], Callable[..., Sequence[Any]]]:
    symbols = sorted(set().union(*(e.free_symbols for e in expressions)), key=lambda s: s.name)
    function = sympy.lambdify(symbols, list(expressions), modules="numpy", cse=True)
    return tuple(symbols), function
