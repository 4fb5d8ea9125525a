"""FastV: the layers' mean of MACs with two MLP matrices, 36 other tokens in the prompt.

The printed FLOPs of the compressed rows are the whole percents of the column beside them times
the uncompressed row, in all fifteen rows: the percents are computed, the FLOPs follow from them.
"""

from __future__ import annotations

import re

from costmodel.conventions import load_convention, uniform
from costmodel.conventions.convention import LayerRun
from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.shapes import llm_of, staged

__all__ = ["PAPER"]

_OTHERS = 36
_PROMPT = {"LLaVA-1.5-7B": 612, "QwenVL-Chat-7B": 447}
_SETTING = re.compile(r"K=(\d+),R=(\d+)%")

_QWEN = (
    "the length of Qwen-VL-Chat's prompt is not published; the uncompressed row implies 447 "
    "tokens, and no length near that and share of visual tokens gives all three percents"
)
_OFF = {
    "FastV(K=0,R=90%)": "the formula gives 14.8 G, 15 % of all; with K=0 the other R follow it",
}


def _runs(row: Published) -> tuple[LayerRun, ...]:
    text, whole = llm_of(row.model), _PROMPT[row.model]
    setting = _SETTING.search(row.method)
    if setting is None:
        return uniform(text, whole)
    layer, dropped = int(setting[1]), int(setting[2]) / 100
    visual = whole - _OTHERS
    return staged(text, (layer,), (visual, visual * (1 - dropped)), _OTHERS)


def _formula(row: Published) -> Formula:
    text, whole = llm_of(row.model), _PROMPT[row.model]
    count = load_convention("mac-2mlp")
    runs = _runs(row)
    full = count.flops(text, uniform(text, whole))
    percent = 100 * count.flops(text, runs) / full
    how = "mac-2mlp, layers x tokens: " + ", ".join(f"{r.layers} x {r.tokens:g}" for r in runs)
    because = _QWEN if row.model.startswith("Qwen") else _OFF.get(row.method, "")
    if row.metric == "FLOPs ratio":
        return Formula(percent, how, because)
    if row.method == "Vanilla" and row.model.startswith("Qwen"):
        # 447 tokens were read from this very figure, so they cannot confirm it.
        return Formula(None, "", _QWEN)
    if row.method != "Vanilla":
        how += "; whole percents of the uncompressed row"
    return Formula(round(percent) / 100 * full / text.layers / 1e9, how, because)


PAPER = Paper(
    name="fastv",
    title="FastV (ECCV 2024) and its repository",
    url="https://arxiv.org/abs/2403.06764",
    rule=(
        "mac-2mlp, mean of the layers: 576 visual and 36 other tokens in K layers, then R less "
        "of the visual ones; the printed FLOPs are its whole percents of the uncompressed row, as "
        "all fifteen compressed rows show. Qwen-VL-Chat with 447 tokens, which its uncompressed "
        "row implies."
    ),
    formula=_formula,
)
