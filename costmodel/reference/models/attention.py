"""Scaled dot-product attention in the three implementations that the cost model knows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ATTENTION_KINDS", "AttentionKind", "attend", "attention_weights", "repeat_heads"]

AttentionKind = Literal["flash", "sdpa", "eager"]
ATTENTION_KINDS: tuple[AttentionKind, ...] = ("flash", "sdpa", "eager")
"""Names of the implementations."""


def attend(
    query: Tensor, keys: Tensor, values: Tensor, *, causal: bool, kind: AttentionKind = "flash"
) -> Tensor:
    """Return softmax(Q K^T / sqrt(D)) V.

    Parameters
    ----------
    query : Tensor
        Shape (batch, heads, queries, head_dim).
    keys, values : Tensor
        Shape (batch, kv_heads, tokens, head_dim); as many tokens as queries if `causal`.
    causal : bool
        Whether a query sees only the tokens up to its own.
    kind : {"flash", "sdpa", "eager"}
        ``flash`` lets torch choose a fused kernel and tells it about the mask by a flag;
        ``sdpa`` gives it a mask in memory and heads already repeated, as Hugging Face does for
        padded batches; ``eager`` keeps the weights in memory.

    Returns
    -------
    Tensor
        Shape (batch, heads, queries, head_dim).
    """
    grouped = query.shape[1] != keys.shape[1]
    if kind == "flash":
        # Torch before 2.5 knows no such argument.
        shared = {"enable_gqa": True} if grouped else {}
        return functional.scaled_dot_product_attention(
            query, keys, values, is_causal=causal, **shared
        )
    if kind == "sdpa":
        mask = _causal_bias(query) if causal else None
        keys, values = (repeat_heads(x, query.shape[1]) for x in (keys, values))
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    weights = attention_weights(query, keys, causal=causal)
    return weights @ repeat_heads(values, query.shape[1])


def attention_weights(query: Tensor, keys: Tensor, *, causal: bool) -> Tensor:
    """Return the weights in memory: product, scale, mask, fp32 softmax and cast.

    Returns
    -------
    Tensor
        Shape (batch, heads, queries, tokens).
    """
    scores = query @ repeat_heads(keys, query.shape[1]).transpose(2, 3) * query.shape[-1] ** -0.5
    if causal:
        scores = scores + _causal_bias(query)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)


def repeat_heads(grouped: Tensor, heads: int) -> Tensor:
    """Copy each key/value head to the query heads that share it."""
    times = heads // grouped.shape[1]
    return grouped if times == 1 else grouped.repeat_interleave(times, dim=1)


def _causal_bias(query: Tensor) -> Tensor:
    tokens = query.shape[2]
    lowest = torch.finfo(query.dtype).min
    full = torch.full((tokens, tokens), lowest, dtype=query.dtype, device=query.device)
    return full.triu(1)
