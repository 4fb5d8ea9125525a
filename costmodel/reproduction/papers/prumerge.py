"""LLaVA-PruMerge: LLM-Viewer in its first version, on a V100, for 700 and 70 tokens."""

from __future__ import annotations

from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.viewer_tables import printed_value, viewer_report

__all__ = ["PAPER"]

_PROMPT = {576: 700, 40: 70}
_BYTES = {"FP16": 2.0, "INT4": 0.5}


def _formula(row: Published) -> Formula:
    form = row.model.rpartition(" ")[2]
    tokens = _PROMPT[row.tokens or 0]
    report = viewer_report("llm-viewer-legacy", row.model, "nvidia_V100", tokens, _BYTES[form])
    value = printed_value(report, row.metric)
    how, because = f"llm-viewer-legacy on nvidia_V100, {tokens} tokens, {form}", ""
    if row.metric == "FLOPs" and form == "INT4":
        value /= 4
        how += ", a quarter of the operations"
        because = "a quarter of the FP16 cell (0.91) is 0.23, as the other INT4 cell is of its own"
    return Formula(value, how, because)


PAPER = Paper(
    name="prumerge",
    title="LLaVA-PruMerge",
    url="https://arxiv.org/abs/2403.15388",
    rule=(
        "llm-viewer-legacy on a V100 for prompts of 700 and 70 tokens, although the text says "
        "576 + 40 and 40; INT4 has half a byte per element and a quarter of the FP16 FLOPs."
    ),
    formula=_formula,
)
