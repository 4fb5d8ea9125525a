"""The serving-like model: fused qkv and gate_up, static KV cache, no waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .attention import ATTENTION_KINDS, AttentionKind
from .base import DTYPES, Pruning, RunnableModel, initialise
from .decoder import Decoder, KVCache
from .shapes import ModelShape
from .vision import VisionTower, projector

__all__ = ["FusedModel", "build_fused"]


class FusedModel(RunnableModel):
    """A model whose passes a CUDA graph can capture; made by `build_fused`.

    Attributes
    ----------
    vision : VisionTower or None
        The tower.
    decoder : Decoder
        The language model with its head.
    """

    def __init__(
        self,
        shape: ModelShape,
        dtype: torch.dtype,
        attention: AttentionKind = "flash",
        vision_layers_run: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, vision = shape, shape.vision
        self.vision: Any = None
        self.projector = None
        if vision is not None:
            self.vision = VisionTower(vision, dtype, attention, vision_layers_run)
            self.projector = projector(vision.width, shape.projector, dtype)
        self.decoder = Decoder(shape.decoder, dtype, attention)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:  # noqa: D102
        features, pooled = self.vision(pixels)
        return features, pooled

    def embed(self, ids: Tensor) -> Tensor:  # noqa: D102
        return self.decoder.embed(ids)

    def new_cache(self, batch: int, capacity: int) -> KVCache:  # noqa: D102
        weight = self.decoder.norm.weight
        return KVCache(self.shape.decoder, batch, capacity, weight.device, weight.dtype)

    def run_prompt(  # noqa: D102
        self, hidden: Tensor, cache: KVCache, start: int, visual: int, pruning: Pruning | None
    ) -> Tensor:
        if pruning is None or not visual:
            hidden = self.decoder.prefill(hidden, cache)
        else:
            hidden = pruning.run(self.decoder, hidden, cache, start, visual)
        return self.decoder.logits(hidden)

    def decode_step(self, ids: Tensor, cache: KVCache, advance: bool = True) -> Tensor:  # noqa: D102
        logits = self.decoder.logits(self.decoder.decode(self.embed(ids), cache))
        if advance:
            cache.advance()
        return logits


def build_fused(
    shape: ModelShape,
    *,
    device: torch.device | str = "cpu",
    dtype: str = "fp32",
    attention: AttentionKind = "flash",
    vision_layers_run: int | None = None,
    seed: int = 0,
) -> FusedModel:
    """Make a serving-like model with random weights.

    Parameters
    ----------
    shape : ModelShape
        Sizes; a shape too large for the machine can be `~ModelShape.truncated`.
    device : device
        Where; on ``"meta"`` it has shapes only.
    dtype : {"fp32", "fp16", "bf16"}
        Format of weights and activations.
    attention : {"flash", "sdpa", "eager"}
        Implementation in tower and decoder.
    vision_layers_run : int, optional
        As in `VisionTower`.
    seed : int
        Seed of the weights.

    Returns
    -------
    FusedModel

    Raises
    ------
    ValueError
        If format or attention are unknown.
    """
    for name, value, known in (("dtype", dtype, DTYPES), ("attention", attention, ATTENTION_KINDS)):
        if value not in known:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(known)}")
    with torch.device("meta"):
        model = FusedModel(shape, DTYPES[dtype], attention, vision_layers_run)
    initialise(model, device, seed)
    return model
