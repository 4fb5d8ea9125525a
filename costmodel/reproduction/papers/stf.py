"""STF and MBTF: true FLOPs of 144 visual tokens."""

from __future__ import annotations

from costmodel.conventions import load_convention, uniform
from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.shapes import llm_of

__all__ = ["PAPER"]


def _formula(row: Published) -> Formula:
    text, tokens = llm_of(row.model), row.tokens or 0
    value = load_convention("flop-3mlp").flops(text, uniform(text, tokens)) / 1e12
    return Formula(value, f"flop-3mlp, {tokens} visual tokens alone")


PAPER = Paper(
    name="stf",
    title="STF and MBTF (Compact Vision Tokens)",
    url="https://arxiv.org/abs/2506.07138",
    rule='flop-3mlp of the visual tokens alone; the figure is quoted as "under 1.9".',
    formula=_formula,
)
