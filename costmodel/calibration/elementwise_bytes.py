"""What the operators of public memory-bound timings read and write.

Vidur times the operators of its vLLM fork [1]_ one kernel at a time.  Elements
have the width of the row's format; weights of norms and cosine tables are small and
left out.

==========================  ============  ==========================================
operator                    kind          elements per element of ``rows x cols``
==========================  ============  ==========================================
input_layernorm,            rmsnorm       one read, one write [2]_; phi-2: layernorm
post_attention_layernorm                  (``torch.nn.LayerNorm``)
add                         add           two reads, one write; phi-2 adds attention
                                          and MLP to the residual: two such kernels
mlp_act                     activation    ``silu_and_mul``: gate and up read, one
                                          write [3]_
mlp_act, not gated          gelu          one read, one write (phi-2)
attn_rope                   rotary        queries and keys in place: one read, one
                                          write [4]_
emb                         copy          gathered rows: one read, one write
softmax, layernorm, gelu    of that name  one read, one write (LLMCompass [5]_)
rmsnorm, rotary, gather,    of that name  one read, one write
copy
silu_mul                    activation    two reads, one write
sum                         reduction     one read
argmin, topk                of that name  one read
scatter_add                 scatter       one read, one write
==========================  ============  ==========================================

A rotary block has 512 threads of two elements: it goes over the queries and
then over the keys in whole passes of 1024 elements, which `elementwise_sizes`
puts in place of columns where a tensor needs more than one pass.

References
----------
.. [1] https://github.com/microsoft/vidur, ``vidur/profiling/mlp/mlp_impl.py``.
.. [2] https://github.com/vllm-project/vllm, ``csrc/layernorm_kernels.cu``: a block per row.
.. [3] Ibid., ``csrc/activation_kernels.cu``.
.. [4] Ibid., ``csrc/pos_encoding_kernels.cu``.
.. [5] https://github.com/PrincetonUniversity/LLMCompass, ``ae/figure5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.dtypes import DTYPES, dtype_name
from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OPERATORS", "Moved", "elementwise_sizes"]

_ROTARY_PASS = 1024.0
_TWO_ADDITIONS = ("phi-2",)
_LAYER_NORM = ("phi-2",)

# Query heads, KV heads and head width from each model's config.json on the Hugging Face hub.
_HEADS: Mapping[str, tuple[int, int, int]] = {
    "Llama-2-7b-hf": (32, 32, 128),
    "Meta-Llama-3-8B": (32, 8, 128),
    "phi-2": (32, 32, 80),
    "Qwen2-7B": (28, 4, 128),
}


@dataclass(frozen=True)
class Moved:
    """Kind and traffic of one operator.

    Attributes
    ----------
    kind : str
        Kernel family.
    reads, writes : float
        Elements per element of ``rows x cols``.
    """

    kind: str
    reads: float
    writes: float


OPERATORS: Mapping[str, Moved] = {
    "input_layernorm": Moved("rmsnorm", 1, 1),
    "post_attention_layernorm": Moved("rmsnorm", 1, 1),
    "add": Moved("add", 2, 1),
    "mlp_act": Moved("gelu", 1, 1),
    "attn_rope": Moved("rotary", 1, 1),
    "emb": Moved("gather", 1, 1),
    "softmax": Moved("softmax", 1, 1),
    "layernorm": Moved("layernorm", 1, 1),
    "gelu": Moved("gelu", 1, 1),
    "rmsnorm": Moved("rmsnorm", 1, 1),
    "silu_mul": Moved("activation", 2, 1),
    "rotary": Moved("rotary", 1, 1),
    "gather": Moved("gather", 1, 1),
    "copy": Moved("copy", 1, 1),
    "argmin": Moved("argmin", 1, 0),
    "topk": Moved("topk", 1, 0),
    "sum": Moved("reduction", 1, 0),
    "scatter_add": Moved("scatter", 1, 1),
}
"""Traffic by operator name; `elementwise_sizes` treats gated and phi-2 rows apart."""


def elementwise_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what each row's kernel moves.

    Parameters
    ----------
    frame : pandas.DataFrame
        Tidy memory-bound timings: op, model, tp, gated, rows, cols, time_us, and dtype
        where elements are not 16 bits.

    Returns
    -------
    pandas.DataFrame
        Same index: ``kind``, ``read_bytes``, ``write_bytes`` [B], ``rows``, ``cols`` and
        ``time_s`` of one kernel.

    Raises
    ------
    CostModelError
        For an operator that is not in the table.
    """
    import pandas as pd

    unknown = sorted(set(frame["op"]) - set(OPERATORS))
    if unknown:
        raise CostModelError(f"no traffic known of operator {', '.join(unknown)}")
    kind = frame["op"].map({name: moved.kind for name, moved in OPERATORS.items()})
    reads = frame["op"].map({name: moved.reads for name, moved in OPERATORS.items()})
    writes = frame["op"].map({name: moved.writes for name, moved in OPERATORS.items()})
    gated = (frame["op"] == "mlp_act") & frame["gated"].astype(bool)
    kind = kind.mask(gated, "activation")
    reads = reads.mask(gated, 2.0)
    kind = kind.mask((kind == "rmsnorm") & frame["model"].isin(_LAYER_NORM), "layernorm")
    twice = (frame["op"] == "add") & frame["model"].isin(_TWO_ADDITIONS)
    kernels = np.where(twice, 2.0, 1.0)
    cols = _columns(frame)
    size = frame["rows"].to_numpy(dtype=np.float64) * cols * _element_bytes(frame)
    return pd.DataFrame(
        {
            "kind": kind,
            "read_bytes": size * reads.to_numpy(dtype=np.float64),
            "write_bytes": size * writes.to_numpy(dtype=np.float64),
            "rows": frame["rows"].to_numpy(dtype=np.float64),
            "cols": cols,
            "time_s": frame["time_us"].to_numpy(dtype=np.float64) * 1e-6 / kernels,
        },
        index=frame.index,
    )


def _element_bytes(frame: pd.DataFrame) -> float | FloatArray:
    if "dtype" not in frame:
        return 2.0
    sizes = {
        name: known.activation_bytes if (known := DTYPES.get(dtype_name(str(name)))) else 2.0
        for name in frame["dtype"].unique()
    }
    result: FloatArray = frame["dtype"].map(sizes).to_numpy(dtype=np.float64)
    return result


def _columns(frame: pd.DataFrame) -> FloatArray:
    cols = frame["cols"].to_numpy(dtype=np.float64).copy()
    for model, (heads, kv_heads, width) in _HEADS.items():
        rows = ((frame["op"] == "attn_rope") & (frame["model"] == model)).to_numpy(dtype=bool)
        tp = frame["tp"].to_numpy(dtype=np.float64)[rows]
        queries = heads * width / tp
        keys = np.maximum(kv_heads / tp, 1.0) * width
        cols[rows] = _whole_passes(queries) + _whole_passes(keys)
    result: FloatArray = cols
    return result


def _whole_passes(width: FloatArray) -> FloatArray:
    rounded = np.ceil(width / _ROTARY_PASS) * _ROTARY_PASS
    result: FloatArray = np.where(width > _ROTARY_PASS, rounded, width)
    return result
