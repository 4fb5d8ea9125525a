"""LLaVA-NeXT / LLaVA-1.6 (``llava_next``): LLaVA with tiles, unpadding and newline tokens.

Defaults: transformers 5.23.0, ``configuration_llava_next.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import (
    DYNAMIC_IMAGE,
    build_model,
    check_same_pinpoints,
    keeps_class_token,
    llava_projector,
    pinpoints,
    processor_section,
    tied_at_either_level,
    tile_side,
    top_section,
    with_needed_layers,
)
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import CLIP_LARGE_336, read_tower
from costmodel.specs.model import ModelSpec
from costmodel.specs.vision_rules import AnyresRule

__all__ = ["DEFAULTS", "MODEL_TYPES", "read"]

MODEL_TYPES = ("llava_next",)

DEFAULTS: Mapping[str, Any] = {
    "vision_config": CLIP_LARGE_336,
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
    "vision_feature_layer": -2,
    "multimodal_projector_bias": True,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a ``llava_next`` configuration.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``; its pinpoints must agree.
    where : str
        File name for error messages.

    Returns
    -------
    ModelSpec
        Shapes of the model.

    Raises
    ------
    ConfigError
        If a key is missing, malformed or contradicts another.

    Examples
    --------
    >>> spec = read({"model_type": "llava_next"}, None, "config.json")
    >>> spec.image_rule.pinpoints[0], spec.projector.newline
    ((336, 672), True)
    """
    top = top_section(config, where, DEFAULTS)
    text_keys = top.child("text_config")
    text = read_text(text_keys, "llama", tied_at_either_level(top, text_keys))
    vision = read_tower(top.child("vision_config"), "clip_vision_model")
    vision, maps = with_needed_layers(top, "vision_feature_layer", vision)
    tile = tile_side(top, vision)
    points = pinpoints(top, tile)
    check_same_pinpoints(points, processor_section(preprocessor, top, {}), tile)
    return build_model(
        top,
        "llava_next",
        text,
        vision=vision,
        projector=llava_projector(top, vision, text, maps, newline=True),
        image_rule=AnyresRule(
            tile_size=tile,
            patch_size=vision.patch_size,
            pinpoints=points,
            class_token=keeps_class_token(top, vision),
        ),
        default_image=DYNAMIC_IMAGE,
    )
