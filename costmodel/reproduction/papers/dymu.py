"""DyMU: one of the two products of attention in a layer, MACs."""

from __future__ import annotations

from costmodel.conventions.rules import attention_score_macs, unmerged_attention_macs
from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.shapes import llm_of

__all__ = ["PAPER"]


def _formula(row: Published) -> Formula:
    text, tokens = llm_of(row.model), row.tokens or 0
    if row.method.startswith("VTU"):
        value = unmerged_attention_macs(text, tokens)
        return Formula(value / 1e6, f"2 h a N_un^2 MACs of {tokens} unique tokens")
    return Formula(attention_score_macs(text, tokens) / 1e6, f"h a N^2 MACs of {tokens} tokens")


PAPER = Paper(
    name="dymu",
    title="DyMU (NeurIPS 2025)",
    url="https://arxiv.org/abs/2504.17040",
    rule=(
        "MACs of the scores of one layer: h a N^2 of full attention, 2 h a N_un^2 of virtual "
        "unmerging without its elementwise expansion."
    ),
    formula=_formula,
)
