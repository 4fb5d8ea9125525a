"""How published work counts the cost of a prefill: named conventions, each a pure function.

Published FLOPs of one model differ up to 2.6 times through convention alone.  A convention here
is what a paper or tool computes from the shape of the language model and the tokens of each
layer; `costmodel.estimate` stays with FlopCounterMode's count (`flop`).

>>> from costmodel.catalog.models_io import load_model
>>> from costmodel.conventions import LayerRun, load_convention
>>> text = load_model("llama-2-7b").text
>>> prompt = [LayerRun(layers=32, tokens=576)]
>>> f"{load_convention('mac-3mlp').flops(text, prompt) / 1e12:.3f}"
'3.817'
"""

from __future__ import annotations

from costmodel.conventions.convention import (
    Convention,
    LayerRun,
    list_conventions,
    load_convention,
    uniform,
)
from costmodel.conventions.rules import equivalent_tokens, kv_cache_bytes

__all__ = [
    "Convention",
    "LayerRun",
    "equivalent_tokens",
    "kv_cache_bytes",
    "list_conventions",
    "load_convention",
    "uniform",
]
