"""Least work and compulsory traffic of timed shapes, for judging the times.

What an operator of a model costs is in `costmodel.ops`; these are the same formulas over the
columns of tidy frames, except that a causal mask halves the work that must be done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BYTES", "FLOPS", "FloatArray", "column"]

FloatArray = npt.NDArray[np.float64]


def column(frame: pd.DataFrame, name: str) -> FloatArray:
    """Return one column as floats."""
    return frame[name].to_numpy(dtype=np.float64)


def _gemm_flops(frame: pd.DataFrame) -> FloatArray:
    return 2 * column(frame, "batch") * column(frame, "m") * column(frame, "n") * column(frame, "k")


def _attention_flops(frame: pd.DataFrame) -> FloatArray:
    """Both products; with a causal mask a kernel may leave out later keys (half the work)."""
    queries, keys = column(frame, "q_len"), column(frame, "kv_len")
    seen = keys - frame["causal"].to_numpy() * (queries - 1) / 2
    heads = column(frame, "batch") * column(frame, "heads")
    return 4 * heads * column(frame, "head_dim") * queries * seen


FLOPS: Mapping[str, Callable[[pd.DataFrame], FloatArray]] = {
    "gemm": _gemm_flops,
    "attention_prefill": _attention_flops,
    "attention_encoder": _attention_flops,
    "attention_decode": _attention_flops,
}
"""Least work of a row [FLOP] by kind."""


def _gemm_bytes(frame: pd.DataFrame, activation: float, weight: float) -> FloatArray:
    m, n, k = (column(frame, name) for name in "mnk")
    return column(frame, "batch") * (activation * (m * k + m * n) + weight * k * n)


def _attention_bytes(frame: pd.DataFrame, activation: float, weight: float) -> FloatArray:
    own = column(frame, "heads") * column(frame, "q_len")
    kept = column(frame, "kv_heads") * column(frame, "kv_len")
    return 2 * activation * column(frame, "batch") * column(frame, "head_dim") * (own + kept)


def _memory_bound_bytes(frame: pd.DataFrame, activation: float, weight: float) -> FloatArray:
    return 2 * activation * column(frame, "rows") * column(frame, "cols")


BYTES: Mapping[str, Callable[[pd.DataFrame, float, float], FloatArray]] = {
    "gemm": _gemm_bytes,
    "attention_prefill": _attention_bytes,
    "attention_encoder": _attention_bytes,
    "attention_decode": _attention_bytes,
    "memory_bound": _memory_bound_bytes,
}
"""Compulsory traffic of a row [B] by kind, from sizes of an activation and a weight."""
