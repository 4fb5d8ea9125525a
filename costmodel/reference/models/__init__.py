"""LLaVA-style models with random weights, whose time depends on their shape only.

`shapes` says what there is and needs no torch; `fused` is serving-like code, `eager` Hugging
Face's; `runtimes` makes and runs what each runtime of the cost model stands for; `pruned` drops
visual tokens inside the decoder; `weights` copies weights from one code to the other, to show
that both compute the same.

>>> shape = load_shape("llava-tiny")
>>> shape.visual_tokens, shape.parameters
(64, 1270720)
"""

from __future__ import annotations

from .shapes import PRESETS, DecoderShape, ModelShape, VisionShape, load_shape

__all__ = ["PRESETS", "DecoderShape", "ModelShape", "VisionShape", "load_shape"]
