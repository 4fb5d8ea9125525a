"""From a program to numbers: the one place where expressions are compiled.

All expressions of a pass are compiled together once (`sympy.lambdify` with
common subexpressions shared), cached by their content, and evaluated over
NumPy arrays of points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy
from sympy import Expr, Symbol
from sympy.printing.numpy import NumPyPrinter
from sympy.simplify.cse_main import tree_cse

from costmodel.errors import UnknownNameError
from costmodel.ops import Op
from costmodel.program import Phase, Program
from costmodel.symbols import sym

__all__ = ["Evaluation", "FloatArray", "evaluate", "evaluate_expressions", "resolve"]

FloatArray = npt.NDArray[np.float64]

_BYTE_KINDS = ("weights", "act_in", "act_out", "kv_read", "kv_write")
_WIDTH = 5 + len(_BYTE_KINDS)


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
    phase : {"prefill", "decode"}
        The pass.
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
    phase: Phase = "prefill"

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
    UnknownNameError
        If an override is no symbol of the program.
    """
    values = resolve(program, phase, overrides)
    points = np.broadcast_shapes(*(np.shape(value) for value in values.values()))
    numbers = _numbers(program.ops, values)
    # Every operator is evaluated in every pass, so that both share one compiled function.
    chosen = dict(zip((op.name for op in program.ops), numbers, strict=True))
    ops = program.phase_ops(phase)
    rows = [chosen[op.name] for op in ops]
    columns = [_stack([row[column] for row in rows], points) for column in range(_WIDTH)]
    return Evaluation(
        ops=ops,
        flops=columns[0],
        launches=columns[1],
        host_syncs=columns[2],
        repeat=columns[3],
        live=columns[4],
        traffic=dict(zip(_BYTE_KINDS, columns[5:], strict=True)),
        shapes=tuple(
            dict(zip((name for name, _ in op.shape), row[_WIDTH:], strict=True))
            for op, row in zip(ops, rows, strict=True)
        ),
        points=points,
        phase=phase,
    )


def _numbers(ops: Sequence[Op], values: Mapping[Symbol, FloatArray]) -> list[list[FloatArray]]:
    """Evaluate the expressions of each operator, compiled together stage by stage."""
    found: list[list[FloatArray]] = []
    for _, group in groupby(ops, key=lambda op: op.stage):
        per_op = [_expressions(op) for op in group]
        results = iter(evaluate_expressions([e for row in per_op for e in row], values))
        found += [[next(results) for _ in row] for row in per_op]
    return found


def _expressions(op: Op) -> list[Expr]:
    return [
        op.flops, op.launches, op.host_syncs, op.repeat, op.live,
        *(getattr(op.traffic, kind) for kind in _BYTE_KINDS),
        *(size for _, size in op.shape),
    ]  # fmt: skip


def _stack(rows: list[FloatArray], points: tuple[int, ...]) -> FloatArray:
    stacked = np.empty((len(rows), *points))
    for index, row in enumerate(rows):
        stacked[index] = row
    return stacked


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

    Raises
    ------
    UnknownNameError
        If an override is no symbol of the program.
    """
    names = [symbol.name for symbol in program.values.keys() | program.relations(phase).keys()]
    for name in overrides or ():
        if name not in names:
            raise UnknownNameError("symbol", name, names)
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
    function = sympy.lambdify(
        symbols, list(expressions), modules=[_NAMESPACE], printer=_Printer(_PRINTER), cse=_share
    )
    return tuple(symbols), function


class _Printer(NumPyPrinter):  # type: ignore[misc]
    """Prints Max and Min so that scalars and arrays broadcast."""

    # sympy finds these by the name of the expression's class.
    def _print_Max(self, expr: Expr) -> str:  # noqa: N802
        return self._nested("maximum", expr)

    def _print_Min(self, expr: Expr) -> str:  # noqa: N802
        return self._nested("minimum", expr)

    def _nested(self, function: str, expr: Expr) -> str:
        printed: list[str] = [self._print(argument) for argument in expr.args]
        return reduce(lambda left, right: f"{function}({left}, {right})", printed)


_PRINTER = {"fully_qualified_modules": False, "inline": True, "user_functions": {}}
# Named one by one: lambdify's own "numpy" imports every lazy submodule of NumPy.
_NAMESPACE = {
    name: getattr(np, name) for name in ("maximum", "minimum", "floor", "ceil", "log", "sqrt")
}


def _share(expressions: Sequence[Expr]) -> tuple[list[tuple[Symbol, Expr]], list[Expr]]:
    """Common subexpressions; without sympy's search for shared factors, which takes longer."""
    names = sympy.numbered_symbols("x_", cls=sympy.Dummy)
    replacements, reduced = tree_cse(list(expressions), names, order="none")
    return replacements, reduced
