"""PyramidDrop: MACs of the visual tokens alone, halved three times."""

from __future__ import annotations

from costmodel.conventions import load_convention, uniform
from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.shapes import llm_of, staged

__all__ = ["PAPER"]

_STARTS = (8, 16, 24)
_RATIOS = (1.0, 0.5, 0.25, 0.125)


def _formula(row: Published) -> Formula:
    text = llm_of(row.model)
    tokens = float(row.tokens or 0)
    runs = uniform(text, tokens)
    if row.method == "PDrop":
        runs = staged(text, _STARTS, [tokens * ratio for ratio in _RATIOS])
    counts = ", ".join(f"{run.tokens:g}" for run in runs)
    return Formula(
        load_convention("mac-3mlp").flops(text, runs) / 1e12,
        f"mac-3mlp, {counts} visual tokens alone",
    )


PAPER = Paper(
    name="pyramiddrop",
    title="PyramidDrop (CVPR 2025)",
    url="https://arxiv.org/abs/2410.17247",
    rule=(
        "mac-3mlp of the visual tokens alone; PDrop in four stages of eight layers with 1, 1/2, "
        "1/4 and 1/8 of them."
    ),
    formula=_formula,
)
