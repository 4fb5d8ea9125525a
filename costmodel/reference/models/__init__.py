"""LLaVA-style models with random weights, whose time depends on their shape only.

`shapes` says what there is; `fused` is serving-like code, `eager` Hugging Face's; `runtimes` runs
either the way a runtime does; `pruned` drops visual tokens inside the decoder.  Names load on
first use, so that the shapes are there without torch.
"""

from __future__ import annotations

from .shapes import PRESETS, DecoderShape, ModelShape, VisionShape, load_shape

__all__ = ["PRESETS", "DecoderShape", "ModelShape", "VisionShape", "load_shape"]
