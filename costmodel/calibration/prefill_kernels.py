"""The kernels of a Llama-2-7B layer on an A100 as they were measured, by prompt length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.building import Stack, rows_of
from costmodel.calibration.elementwise_bytes import elementwise_sizes
from costmodel.calibration.recipe import load_recipes
from costmodel.calibration.schema import Timings
from costmodel.calibration.setups import SETUPS
from costmodel.errors import CostModelError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CALIBRATION", "MODEL", "prefill_kernels"]

CALIBRATION = "a100-80gb-sxm.vidur-vllm"
"""Calibration whose recipe says which rows are fitted."""

MODEL = "Llama-2-7b-hf"
_HEADS = {"heads": 32, "kv_heads": 32, "head_dim": 128}
_PRODUCTS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
_ELEMENTWISE = {
    "input_layernorm": 1.0,
    "post_attention_layernorm": 1.0,
    "attn_rope": 1.0,
    "mlp_act": 1.0,
    "add": 2.0,
}
"""Launches per layer."""


def prefill_kernels(timings: Sequence[Timings], tokens: Sequence[int]) -> dict[str, pd.DataFrame]:
    """Return the measured kernels of a layer by kind.

    Parameters
    ----------
    timings : sequence of Timings
        Vidur's products and memory-bound kernels, AIConfigurator's attention.
    tokens : sequence of int
        Prompt lengths.

    Returns
    -------
    dict of str to DataFrame
        Sizes of the kernel model, ``tokens``, ``launches`` per layer, ``time_s`` of one.

    Raises
    ------
    CostModelError
        If a product or memory-bound kernel was not measured at one of the lengths, or
        attention not on both sides of it.
    """
    products = _vidur("gemm", timings, _PRODUCTS)
    products = products[products["m"].isin(tokens)].assign(tokens=lambda f: f["m"], launches=1.0)
    products["time_s"] = products["time_us"] * 1e-6
    moved = _vidur("memory_bound", timings, tuple(_ELEMENTWISE))
    moved = moved[moved["rows"].isin(tokens)]
    launches = moved["op"].map(_ELEMENTWISE)
    labels = {"op": moved["op"], "tokens": moved["rows"], "launches": launches}
    sizes = elementwise_sizes(moved).assign(**labels)
    found = {"gemm": _medians("gemm", products, ("tokens", "launches", "op"))}
    for kind, rows in sizes.groupby("kind", sort=True):
        found[str(kind)] = _medians(str(kind), rows, ("tokens", "launches", "op"))
    found["attention_prefill"] = _attention(timings, tokens)
    for kind, rows in found.items():
        missing = sorted(set(tokens) - set(rows["tokens"]))
        if missing:
            raise CostModelError(f"{kind}: not measured at {missing} tokens")
    return found


def _vidur(kind: str, timings: Sequence[Timings], ops: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    stack = Stack(CALIBRATION.partition(".")[0], "vidur")
    frame = pd.concat([stack.select(item.frame) for item in timings if item.kind == kind])
    return frame[(frame["model"] == MODEL) & (frame["tp"] == 1) & frame["op"].isin(ops)]


def _medians(kind: str, rows: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    keys = list(dict.fromkeys([*SETUPS[kind].sizes, *labels]))
    return rows.groupby(keys, sort=True)["time_s"].median().reset_index()


def _attention(timings: Sequence[Timings], tokens: Sequence[int]) -> pd.DataFrame:
    """Return causal attention of one prompt, interpolated between the measured lengths."""
    import pandas as pd

    source = load_recipes()[CALIBRATION].fit["attention_prefill"]
    stack = Stack(CALIBRATION.partition(".")[0], source.source, source.software)
    frame = rows_of("attention_prefill", timings, stack)
    wanted = (frame["batch"] == 1) & (frame["q_len"] == frame["kv_len"])
    for name, value in _HEADS.items():
        wanted &= frame[name] == value
    rows = frame[wanted].sort_values("q_len")
    inside = [length for length in tokens if rows["q_len"].min() <= length <= rows["q_len"].max()]
    measured = np.log(rows[["q_len", "time_s"]].to_numpy(dtype=np.float64))
    seconds = np.exp(np.interp(np.log(inside), measured[:, 0], measured[:, 1]))
    lengths = dict.fromkeys(("q_len", "kv_len", "tokens"), inside)
    return pd.DataFrame({**lengths, **_HEADS, "batch": 1, "launches": 1.0, "time_s": seconds})
