"""Qwen2.5-VL (``qwen2_5_vl``): Qwen2-VL with windows, RMSNorm and a gated MLP in the tower.

Defaults: transformers 5.23.0, ``configuration_qwen2_5_vl.py``.  The class default
3584 of the tower's ``hidden_size`` is no width of a published model (1280).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.families.qwen2_vl import patch_merger, read_language, smart_resize_rule
from costmodel.catalog.family_parts import (
    DYNAMIC_IMAGE,
    build_model,
    processor_section,
    top_section,
)
from costmodel.catalog.section import LARGEST_LAYERS, Section
from costmodel.catalog.towers import head_dim
from costmodel.specs.model import ModelSpec, VisionSpec

__all__ = ["MODEL_TYPES", "VISION_DEFAULTS", "read"]

MODEL_TYPES = ("qwen2_5_vl",)

VISION_DEFAULTS: Mapping[str, Any] = {
    "depth": 32,
    "hidden_size": 3584,
    "hidden_act": "silu",
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": (7, 15, 23, 31),
}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a ``qwen2_5_vl`` configuration in either layout.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``; gives the pixel limits.
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
    >>> spec = read({"model_type": "qwen2_5_vl", "hidden_size": 3584, "num_attention_heads": 28,
    ...              "num_key_value_heads": 4, "vision_config": {"hidden_size": 1280}}, None, "f")
    >>> spec.vision.window_patches, spec.vision.full_attention_layers
    (8, (7, 15, 23, 31))
    """
    top = top_section(config, where, {})
    text = read_language(top, "qwen2_5_vl_text")
    keys = top.child("vision_config", VISION_DEFAULTS)
    layers = keys.integer("depth", maximum=LARGEST_LAYERS)
    vision = VisionSpec(
        model_type="qwen2_5_vl_vision",
        hidden_size=keys.integer("hidden_size"),
        intermediate_size=keys.integer("intermediate_size"),
        layers=layers,
        layers_executed=layers,
        heads=keys.integer("num_heads"),
        head_dim=head_dim(keys, "hidden_size", "num_heads"),
        patch_size=keys.square("patch_size"),
        temporal_patch_size=keys.integer("temporal_patch_size"),
        channels=keys.integer("in_channels"),
        rotary=True,
        norm="rmsnorm",
        post_norm=False,
        gated_mlp=True,
        activation=keys.text("hidden_act"),
        qkv_fused=True,
        window_patches=_window_patches(keys),
        full_attention_layers=_full_layers(keys, layers),
    )
    return build_model(
        top,
        "qwen2_5_vl",
        text,
        vision=vision,
        projector=patch_merger(keys, "out_hidden_size", vision, text, "rmsnorm"),
        image_rule=smart_resize_rule(processor_section(preprocessor, top, {}), keys, vision),
        default_image=DYNAMIC_IMAGE,
    )


def _window_patches(keys: Section) -> int:
    """Side of a window in patches; windows hold whole groups of merged patches."""
    merge, patch = keys.integer("spatial_merge_size"), keys.square("patch_size")
    merged = keys.integer("window_size") // merge // patch
    if merged < 1:
        keys.fail("window_size", f"smaller than one merged patch of {merge * patch} pixels")
    return merged * merge


def _full_layers(keys: Section, layers: int) -> tuple[int, ...]:
    key = "fullatt_block_indexes"
    if keys.value(key) in ([], ()):
        return ()
    chosen = keys.integers(key, minimum=0)
    if max(chosen) >= layers:
        keys.fail(key, f"{max(chosen)} is no layer of a tower of {layers}")
    return tuple(sorted(set(chosen)))
