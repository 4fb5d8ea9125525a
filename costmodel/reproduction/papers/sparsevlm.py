"""SparseVLM: MACs at the equivalent tokens of each method, 118 other tokens beside them."""

from __future__ import annotations

from costmodel.conventions import equivalent_tokens, kv_cache_bytes, load_convention, uniform
from costmodel.reproduction.paper import Formula, Paper
from costmodel.reproduction.published import Published
from costmodel.reproduction.shapes import llm_of, staged

__all__ = ["PAPER", "merged_stages"]

_OTHERS = 118
_FULL = 576
_STARTS = (3, 7, 16)
_FASTV_STARTS = (1,)
_KEPT = {192: (300, 200, 110), 128: (303, 110, 36), 64: (66, 30, 17)}
_RECYCLED = 0.3


def merged_stages(budget: int) -> tuple[int, ...]:
    """Return SparseVLM's visual tokens of each stage, merged ones included.

    After layers 2, 6 and 15 it keeps listed numbers of tokens, and gathers three tenths of
    the others into one cluster for ten of them, and one more.

    Parameters
    ----------
    budget : int
        Nominal tokens: 192, 128 or 64.

    Returns
    -------
    tuple of int

    References
    ----------
    .. [1] https://github.com/Gumpest/SparseVLMs, ``llava/model/language_model/score.py``.

    Examples
    --------
    >>> merged_stages(192)
    (576, 309, 204, 113)
    """
    counts = [_FULL]
    for kept in _KEPT[budget]:
        recycled = int(_RECYCLED * (counts[-1] - kept))
        counts.append(kept + recycled // 10 + 1)
    return tuple(counts)


def _formula(row: Published) -> Formula:
    text = llm_of(row.model)
    tokens = float(row.tokens or 0)
    if row.metric == "KV cache":
        value = kv_cache_bytes(text, uniform(text, tokens)) / 1e6
        return Formula(value, f"keys and values of {tokens:g} visual tokens in fp16")
    if row.method == "SparseVLM":
        tokens = equivalent_tokens(staged(text, _STARTS, merged_stages(int(tokens))))
    if row.method == "FastV":
        tokens = equivalent_tokens(staged(text, _FASTV_STARTS, (_FULL, tokens)))
    macs = load_convention("mac-3mlp").flops(text, uniform(text, tokens + _OTHERS))
    return Formula(macs / 1e12, f"mac-3mlp, {tokens:.4g} + {_OTHERS} tokens")


PAPER = Paper(
    name="sparsevlm",
    title="SparseVLM (ICML 2025)",
    url="https://arxiv.org/abs/2410.04417",
    rule=(
        "mac-3mlp at the equivalent tokens of a method (SparseVLM's with the merged tokens) and "
        "118 others, which the row without compression implies; FastV has all tokens in one layer "
        "and the stated number in 31, which its three cells imply; KV cache of the visual tokens."
    ),
    formula=_formula,
)
