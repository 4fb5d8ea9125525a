"""Blocks: vision tower, projector, decoder layers and head as operators."""

from costmodel.blocks.decoder import (
    LayerTokens,
    decoder_layers,
    decoder_weights,
    embedding,
    final_norm,
    lm_head,
)
from costmodel.blocks.projector import projector, projector_weights
from costmodel.blocks.style import Style
from costmodel.blocks.vision import (
    Sequences,
    TowerTokens,
    vision_embedding,
    vision_layers,
    vision_post_norm,
    vision_weights,
)

__all__ = [
    "LayerTokens",
    "Sequences",
    "Style",
    "TowerTokens",
    "decoder_layers",
    "decoder_weights",
    "embedding",
    "final_norm",
    "lm_head",
    "projector",
    "projector_weights",
    "vision_embedding",
    "vision_layers",
    "vision_post_norm",
    "vision_weights",
]
