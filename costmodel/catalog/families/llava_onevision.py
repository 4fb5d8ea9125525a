"""LLaVA-OneVision (``llava_onevision``): SigLIP, Qwen2, up to 36 tiles pooled to a budget.

Defaults: transformers 5.23.0, ``configuration_llava_onevision.py``.  Its tower
has 26 layers: the 27th of SigLIP so400m is dropped because it is never read.
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
from costmodel.catalog.section import Section
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import SIGLIP_SO400M_384, read_tower
from costmodel.specs.model import ModelSpec
from costmodel.specs.vision_rules import AnyresMaxRule

__all__ = ["DEFAULTS", "MODEL_TYPES", "anyres_budget", "read"]

MODEL_TYPES = ("llava_onevision",)

_SIDES = (384, 768, 1152, 1536, 1920, 2304)

DEFAULTS: Mapping[str, Any] = {
    "vision_config": {**SIGLIP_SO400M_384, "num_hidden_layers": 26, "vision_use_head": False},
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "full",
    "vision_feature_layer": -1,
    "multimodal_projector_bias": True,
    "image_grid_pinpoints": [[height, width] for height in _SIDES for width in _SIDES],
    "vision_aspect_ratio": "anyres_max_9",
}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a ``llava_onevision`` configuration.

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
    >>> spec = read({"model_type": "llava_onevision"}, None, "config.json")
    >>> spec.vision.layers, spec.image_rule.max_tiles, len(spec.image_rule.pinpoints)
    (26, 9, 36)
    """
    top = top_section(config, where, DEFAULTS)
    text_keys = top.child("text_config")
    text = read_text(text_keys, "qwen2", tied_at_either_level(top, text_keys))
    vision = read_tower(top.child("vision_config"), "siglip_vision_model")
    vision, maps = with_needed_layers(top, "vision_feature_layer", vision)
    if keeps_class_token(top, vision):
        top.fail("vision_feature_select_strategy", "a class token cannot be tiled and pooled")
    tile = tile_side(top, vision)
    points = pinpoints(top, tile)
    check_same_pinpoints(points, processor_section(preprocessor, top, {}), tile)
    return build_model(
        top,
        "llava_onevision",
        text,
        vision=vision,
        projector=llava_projector(top, vision, text, maps, newline=True),
        image_rule=AnyresMaxRule(
            tile_size=tile,
            patch_size=vision.patch_size,
            pinpoints=points,
            max_tiles=anyres_budget(top, "vision_aspect_ratio"),
        ),
        default_image=DYNAMIC_IMAGE,
    )


def anyres_budget(section: Section, key: str) -> int:
    """Return N of ``anyres_max_N``: the most tiles' worth of features that are kept.

    Examples
    --------
    >>> anyres_budget(Section({"vision_aspect_ratio": "anyres_max_9"}, "f"), "vision_aspect_ratio")
    9
    """
    value = section.text(key)
    prefix, _, digits = value.rpartition("_")
    if prefix != "anyres_max" or not (digits.isascii() and digits.isdigit()) or int(digits) < 1:
        section.fail(key, f"expected 'anyres_max_N', got {value!r}")
    return int(digits)
