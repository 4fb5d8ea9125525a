"""Shapes of the operators that a row of Vidur's ``mlp.csv`` times.

They follow from the model's sizes and the number of tensor-parallel workers;
query, key and value projections are one product, gate and up projections too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GEMMS", "MEMORY_BOUND", "Size", "kv_heads", "per_worker"]

Size = Callable[["pd.DataFrame"], Any]


def kv_heads(f: pd.DataFrame) -> Any:
    """Each of more workers than heads keeps a copy of one."""
    return f["n_kv_head"].clip(lower=f["num_tensor_parallel_workers"])


def per_worker(total: Any, f: pd.DataFrame) -> Any:
    """Return each tensor-parallel worker's share."""
    return total / f["num_tensor_parallel_workers"]


def _heads_width(heads: Any, f: pd.DataFrame) -> Any:
    return per_worker(heads * (f["n_embd"] / f["n_head"]), f)


def _embd(f: pd.DataFrame) -> Any:
    return f["n_embd"]


GEMMS: Mapping[str, tuple[Size, Size]] = {
    "attn_pre_proj": (lambda f: _heads_width(f["n_head"] + 2 * kv_heads(f), f), _embd),
    "attn_post_proj": (_embd, lambda f: per_worker(f["n_embd"], f)),
    "mlp_up_proj": (
        lambda f: per_worker((1 + f["use_gated_mlp"]) * f["n_expanded_embd"], f),
        _embd,
    ),
    "mlp_down_proj": (_embd, lambda f: per_worker(f["n_expanded_embd"], f)),
}
"""Columns n and k of the weights of each product."""

MEMORY_BOUND: Mapping[str, Size] = {
    "emb": _embd,
    "input_layernorm": _embd,
    "post_attention_layernorm": _embd,
    "add": _embd,
    "mlp_act": lambda f: per_worker(f["n_expanded_embd"], f),
    "attn_rope": lambda f: _heads_width(f["n_head"] + kv_heads(f), f),
}
"""Columns of the output of each other operator."""
