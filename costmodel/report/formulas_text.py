"""Formulas as text for people and as LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.report.formulas import Formulas, latex, latex_name, totals, traffic
from costmodel.report.text import facts, table
from costmodel.symbols import info

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["formulas_latex", "formulas_tables"]


def formulas_tables(found: Formulas) -> list[RenderableType]:
    """Return the formulas as text for people."""
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(found.title, style="bold"),
        "FLOP and bytes of one execution on one device; totals of all repeats, FLOP of matrix "
        "products and convolutions only.",
    ]
    for stage, ops in found.stages():
        rows: list[tuple[str, str]] = []
        for op in ops:
            rows += [(op.name, f"{op.kind}, x {op.repeat}"), ("  FLOP", str(op.flops))]
            rows += [(f"  bytes {kind}", str(value)) for kind, value in traffic(op).items()]
        total = totals(ops)
        rows += [("total FLOP", str(total["flops"])), ("total bytes", str(total["bytes"]))]
        parts += ["", Text(stage, style="bold underline"), facts(rows)]
    relations = [(str(symbol), f"= {value}") for symbol, value in found.relations.items()]
    if relations:
        parts += ["", Text("Relations", style="bold underline"), facts(relations)]
    legend = [
        (symbol.name, f"{info(symbol).meaning} [{info(symbol).unit}]", f"{value:,.10g}")
        for symbol, value in found.values.items()
    ]
    return [*parts, "", table(("symbol", "meaning [unit]", "value here"), legend, left=2)]


def formulas_latex(found: Formulas) -> str:
    """Return the formulas as a fragment of LaTeX (package amsmath)."""
    lines = [f"% {found.title}; F: FLOP, Q: bytes, of one execution; r: repeats"]
    for stage, ops in found.stages():
        rows = []
        for op in ops:
            name = _words(op.name)
            rows.append(f"F_{{{name}}} &= {latex(op.flops)}")
            rows.append(f"Q_{{{name}}} &= {latex(op.traffic.total)}")
            rows.append(f"r_{{{name}}} &= {latex(op.repeat)}")
        for letter, key in (("F", "flops"), ("Q", "bytes")):
            rows.append(f"{letter}_{{{_words(f'total {stage}')}}} &= {latex(totals(ops)[key])}")
        lines += [f"% {stage}", *_align(rows)]
    if found.relations:
        rows = [f"{latex_name(s)} &= {latex(value)}" for s, value in found.relations.items()]
        lines += ["% relations", *_align(rows)]
    lines += ["% symbols", r"\begin{tabular}{llrl}"]
    for symbol, value in found.values.items():
        about = info(symbol)
        cells = (f"${latex_name(symbol)}$", _escape(about.meaning), f"{value:.10g}", about.unit)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _align(rows: list[str]) -> list[str]:
    return [r"\begin{align*}", " \\\\\n".join(rows), r"\end{align*}"]


def _words(name: str) -> str:
    return rf"\text{{{_escape(name)}}}"


def _escape(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
