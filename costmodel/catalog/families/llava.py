"""LLaVA-1.5 (``llava``): CLIP tower, two linear layers, Llama; one square per image.

Defaults: transformers 5.23.0, ``configuration_llava.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import (
    build_model,
    keeps_class_token,
    llava_projector,
    processor_section,
    tied_at_either_level,
    top_section,
    with_needed_layers,
)
from costmodel.catalog.section import Section
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import CLIP_LARGE_336, read_tower
from costmodel.specs.model import ModelSpec, VisionSpec
from costmodel.specs.vision_rules import FixedRule

__all__ = ["DEFAULTS", "MODEL_TYPES", "read"]

MODEL_TYPES = ("llava",)

DEFAULTS: Mapping[str, Any] = {
    "vision_config": CLIP_LARGE_336,
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
    "vision_feature_layer": -2,
    "multimodal_projector_bias": True,
}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a ``llava`` configuration, in the layout of transformers or of the original code.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``.
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
    >>> spec = read({"model_type": "llava", "text_config": {"vocab_size": 32064}}, None, "f")
    >>> spec.vision.layers, spec.vision.layers_needed, spec.projector.widths
    (24, 23, (4096, 4096))
    """
    if "mm_vision_tower" in config:
        from costmodel.catalog.families import llava_original

        return llava_original.read(config, preprocessor, where)
    top = top_section(config, where, DEFAULTS)
    text_keys = top.child("text_config")
    text = read_text(text_keys, "llama", tied_at_either_level(top, text_keys))
    vision = read_tower(top.child("vision_config"), "clip_vision_model")
    vision, maps = with_needed_layers(top, "vision_feature_layer", vision)
    size = image_size(vision, processor_section(preprocessor, top, {}))
    rule = FixedRule(
        image_size=size,
        patch_size=vision.patch_size,
        class_token=keeps_class_token(top, vision),
    )
    projector = llava_projector(top, vision, text, maps)
    return build_model(
        top,
        "llava",
        text,
        vision=vision,
        projector=projector,
        image_rule=rule,
        default_image=(size, size),
    )


def image_size(vision: VisionSpec, processor: Section) -> int:
    """Return the side of the square that the tower sees; the processor must agree [pixels]."""
    size = vision.image_size
    if size is None:
        processor.fail("image_size", "the tower has no fixed image size")
    key = "size" if processor.data.get("do_center_crop") is False else "crop_size"
    if key in processor:
        given = processor.data[key]
        if isinstance(given, Mapping):
            given = given.get("height", given.get("shortest_edge"))
        if given != size:
            processor.fail(key, f"{given!r} does not match the tower's image_size ({size})")
    return size
