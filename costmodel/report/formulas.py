"""The formulas of a case: operators, totals of stages, symbols and the relations between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sympy
from sympy import Expr, Symbol

from costmodel.case import Case
from costmodel.errors import UnknownNameError
from costmodel.evaluation import resolve
from costmodel.ops import ZERO, Op
from costmodel.program import Phase
from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.symbols import TABLE, info, sym

__all__ = ["Formulas", "formulas", "formulas_record", "latex", "latex_name", "totals", "traffic"]

STAGES = ("vision_encoder", "projector", "compression", "llm", "lm_head")
_STORAGE = ("bw", "bo", "ba", "bkv")
_KINDS = ("weights", "act_in", "act_out", "kv_read", "kv_write")


@dataclass(frozen=True)
class Formulas:
    """Operators of one pass with what their symbols stand for.

    Attributes
    ----------
    title : str
        Model, compression and pass.
    phase : str
        The pass.
    ops : tuple of Op
        Operators, all of the stage asked for.
    relations : dict of Symbol to Expr
        How symbols follow from others in this pass.
    values : dict of Symbol to float
        Value of every symbol that occurs.
    """

    title: str
    phase: Phase
    ops: tuple[Op, ...]
    relations: dict[Symbol, Expr]
    values: dict[Symbol, float]

    def stages(self) -> list[tuple[str, tuple[Op, ...]]]:
        """Return the stages that have operators, in order."""
        found = [(s, tuple(op for op in self.ops if op.stage == s)) for s in STAGES]
        return [(stage, ops) for stage, ops in found if ops]


def formulas(case: Case, phase: Phase = "prefill", stage: str | None = None) -> Formulas:
    """Return the formulas of a case.

    Parameters
    ----------
    case : Case
        The prepared question; its device does not matter.
    phase : {"prefill", "decode"}
        The pass.
    stage : str, optional
        One stage only.

    Returns
    -------
    Formulas

    Raises
    ------
    UnknownNameError
        If the stage has no operators here.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> found = formulas(prepare("llama-2-7b", "a40", text_tokens=64), stage="lm_head")
    >>> [str(op.flops) for op in found.ops]
    ['2*W*b*d*e']
    """
    program, _ = case.program()
    ops = program.phase_ops(phase)
    known = [name for name in STAGES if any(op.stage == name for op in ops)]
    wanted = {"llm_prefill": "llm"}.get(stage or "", stage)
    if wanted is not None and wanted not in known:
        raise UnknownNameError("stage", wanted, known)
    chosen = tuple(op for op in ops if wanted in (None, op.stage))

    relations = program.relations(phase)
    occurring = set().union(*(op.free_symbols for op in chosen))
    used: dict[Symbol, Expr] = {}
    waiting = sorted(occurring, key=str)
    while waiting:
        symbol = waiting.pop(0)
        if symbol in relations and symbol not in used:
            used[symbol] = relations[symbol]
            waiting += sorted(relations[symbol].free_symbols, key=str)
            occurring |= relations[symbol].free_symbols
    numbers = resolve(program, phase)
    ordered = sorted(
        occurring, key=lambda symbol: (list(TABLE).index(info(symbol).name), str(symbol))
    )
    label = f", {case.request.label}" if case.request is not None else ""
    return Formulas(
        title=f"{case.model.name}{label}: {phase} pass",
        phase=phase,
        ops=chosen,
        relations=used,
        values={symbol: float(numbers[symbol]) for symbol in ordered},
    )


def _total(ops: Iterable[Op], value: Callable[[Op], Expr]) -> Expr:
    total = sum((op.repeat * value(op) for op in ops), start=ZERO)
    storage = [sym(name) for name in _STORAGE if sym(name) in total.free_symbols]
    if not storage:
        return sympy.factor_terms(total)
    # Bytes are linear in the bytes of an element: one term for each kind of storage reads best.
    expanded = sympy.expand(total)
    parts = [symbol * sympy.factor_terms(expanded.coeff(symbol)) for symbol in storage]
    rest = expanded.subs(dict.fromkeys(storage, 0))
    return sum(parts, start=sympy.factor_terms(rest))


def totals(ops: tuple[Op, ...]) -> dict[str, Expr]:
    """Return FLOPs of matrix products and convolutions and all bytes, repeats included."""
    return {
        "flops": _total([op for op in ops if op.matmul], lambda op: op.flops),
        "bytes": _total(ops, lambda op: op.traffic.total),
    }


def traffic(op: Op) -> dict[str, Expr]:
    """Return the bytes of one execution by kind, without the kinds that are zero [B]."""
    found = {kind: getattr(op.traffic, kind) for kind in _KINDS}
    return {kind: expression for kind, expression in found.items() if expression != 0}


def latex(expression: Expr) -> str:
    r"""Return an expression as LaTeX, symbols written as in the nomenclature.

    Examples
    --------
    >>> from costmodel.symbols import sym
    >>> latex(2 * sym("b") * sym("dv") * sym("s_1"))
    '2 b d_{v} s_{1}'
    """
    names = {symbol: latex_name(symbol) for symbol in expression.free_symbols}
    return str(sympy.latex(expression, symbol_names=names))


def latex_name(symbol: Symbol) -> str:
    """Return the name of a symbol in LaTeX, the index of a group as a second subscript."""
    _, _, index = symbol.name.partition("_")
    base, _, below = info(symbol).latex.partition("_")
    parts = [part for part in (below.strip("{}"), index) if part]
    return f"{base}_{{{','.join(parts)}}}" if parts else base


def formulas_record(found: Formulas, *, as_latex: bool = False) -> dict[str, Any]:
    """Return the formulas as a JSON object; expressions as text or LaTeX."""
    write: Callable[[Expr], str] = latex if as_latex else str
    return {
        "schema_version": SCHEMA_VERSION,
        "title": found.title,
        "phase": found.phase,
        "ops": [
            {
                "name": op.name,
                "stage": op.stage,
                "kind": op.kind,
                "counted": op.matmul,
                "repeat": write(op.repeat),
                "launches": write(op.launches),
                "flops": write(op.flops),
                "bytes": {kind: write(expression) for kind, expression in traffic(op).items()},
            }
            for op in found.ops
        ],
        "totals": {
            stage: {name: write(expression) for name, expression in totals(ops).items()}
            for stage, ops in found.stages()
        },
        "relations": {
            symbol.name: write(expression) for symbol, expression in found.relations.items()
        },
        "symbols": [
            {
                "name": symbol.name,
                "latex": latex_name(symbol),
                "meaning": info(symbol).meaning,
                "unit": info(symbol).unit,
                "value": plain(value),
            }
            for symbol, value in found.values.items()
        ],
    }
