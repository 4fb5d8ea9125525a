"""Matryoshka Multimodal Models (M3): LLM-Viewer on an RTX A6000, 30 text tokens."""

from __future__ import annotations

from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.viewer_tables import printed_value, viewer_report

__all__ = ["PAPER"]

_TEXT = 30


def _formula(row: Published) -> Formula:
    tokens = (row.tokens or 0) + _TEXT
    report = viewer_report("llm-viewer", row.model, "nvidia_A6000", tokens)
    because = ""
    if row.tokens == 144:
        because = "in the row of 144 tokens this cell looks cut off instead of rounded"
    return Formula(
        printed_value(report, row.metric), f"llm-viewer on nvidia_A6000, {tokens} tokens", because
    )


PAPER = Paper(
    name="m3",
    title="Matryoshka Multimodal Models (M3)",
    url="https://arxiv.org/abs/2405.17430",
    rule=(
        "llm-viewer on an RTX A6000, although the caption says V100, with 30 text tokens, "
        'fp16; "total memory" and "storing activation" are traffic.'
    ),
    formula=_formula,
)
