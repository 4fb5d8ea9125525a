"""Qwen2-VL (``qwen2_vl``): native-resolution tower with rotary positions, 2 x 2 merger, Qwen2.

Files on the hub have the language model's keys at the top level of
``config.json``; files saved by transformers 5 nest them under ``text_config``.
Defaults: transformers 5.23.0, ``configuration_qwen2_vl.py`` and
``image_processing_pil_qwen2_vl.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import (
    DYNAMIC_IMAGE,
    build_model,
    processor_section,
    tied_at_either_level,
    top_section,
)
from costmodel.catalog.section import LARGEST_LAYERS, Section
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import head_dim
from costmodel.specs.model import ModelSpec, NormKind, ProjectorSpec, TextSpec, VisionSpec
from costmodel.specs.vision_rules import SmartResizeRule

__all__ = [
    "MODEL_TYPES",
    "PROCESSOR_DEFAULTS",
    "VISION_DEFAULTS",
    "patch_merger",
    "read",
    "read_language",
    "smart_resize_rule",
]

MODEL_TYPES = ("qwen2_vl",)

VISION_DEFAULTS: Mapping[str, Any] = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "hidden_act": "quick_gelu",
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}

PROCESSOR_DEFAULTS: Mapping[str, Any] = {
    "size": {"shortest_edge": 3136, "longest_edge": 1003520},
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a ``qwen2_vl`` configuration in either layout.

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
    >>> spec = read({"model_type": "qwen2_vl", "hidden_size": 3584,
    ...              "num_attention_heads": 28, "num_key_value_heads": 4}, None, "config.json")
    >>> spec.text.hidden_size, spec.vision.hidden_size, spec.projector.widths
    (3584, 1280, (5120, 3584))
    """
    top = top_section(config, where, {})
    text = read_language(top, "qwen2_vl_text")
    keys = top.child("vision_config", VISION_DEFAULTS)
    layers = keys.integer("depth", maximum=LARGEST_LAYERS)
    width = keys.integer("embed_dim")
    vision = VisionSpec(
        model_type="qwen2_vl_vision",
        hidden_size=width,
        intermediate_size=width * keys.integer("mlp_ratio"),
        layers=layers,
        layers_executed=layers,
        heads=keys.integer("num_heads"),
        head_dim=head_dim(keys, "embed_dim", "num_heads"),
        patch_size=keys.square("patch_size"),
        temporal_patch_size=keys.integer("temporal_patch_size"),
        channels=keys.integer("in_channels"),
        rotary=True,
        post_norm=False,
        activation=keys.text("hidden_act"),
        qkv_fused=True,
    )
    return build_model(
        top,
        "qwen2_vl",
        text,
        vision=vision,
        projector=patch_merger(keys, "hidden_size", vision, text, "layernorm"),
        image_rule=smart_resize_rule(processor_section(preprocessor, top, {}), keys, vision),
        default_image=DYNAMIC_IMAGE,
    )


def read_language(top: Section, model_type: str) -> TextSpec:
    """Read the language model from ``text_config`` or, without it, from the top level."""
    keys = top.child("text_config") if "text_config" in top else top
    return read_text(keys, model_type, tied_at_either_level(top, keys), model_type)


def patch_merger(
    keys: Section, width_key: str, vision: VisionSpec, text: TextSpec, norm: NormKind
) -> ProjectorSpec:
    """Return the merger: norm per patch, join neighbours, two linear layers.

    Parameters
    ----------
    keys : Section
        ``vision_config``.
    width_key : str
        Key of the merger's output width, which must be the language model's.
    vision, text : VisionSpec, TextSpec
        The two sides.
    norm : {"layernorm", "rmsnorm"}
        Kind of ``ln_q``.

    Raises
    ------
    ConfigError
        If the merger's width is not that of the language model.
    """
    merge = keys.integer("spatial_merge_size")
    width = keys.integer(width_key)
    if width != text.hidden_size:
        keys.fail(
            width_key, f"{width} differs from the language model's hidden_size ({text.hidden_size})"
        )
    return ProjectorSpec(
        kind="patch_merger",
        in_features=vision.hidden_size,
        merge=merge,
        norm=norm,
        widths=(vision.hidden_size * merge * merge, width),
    )


def smart_resize_rule(processor: Section, keys: Section, vision: VisionSpec) -> SmartResizeRule:
    """Return the image rule; ``min_pixels`` and ``max_pixels`` win over ``size``.

    Parameters
    ----------
    processor : Section
        ``preprocessor_config.json``; empty means class defaults.
    keys : Section
        ``vision_config``.
    vision : VisionSpec
        The tower.

    Raises
    ------
    ConfigError
        If limits are malformed, or the processor cuts other patches than the tower reads.
    """
    settings = processor.with_defaults(PROCESSOR_DEFAULTS)
    merge = keys.integer("spatial_merge_size")
    expected = {
        "patch_size": vision.patch_size,
        "merge_size": merge,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    for key, value in expected.items():
        if key in processor and settings.integer(key) != value:
            settings.fail(key, f"{settings.value(key)} differs from the tower's {value}")
    size = settings.child("size", PROCESSOR_DEFAULTS["size"])
    low = settings.optional_integer("min_pixels") or _limit(size, "shortest_edge", "min_pixels")
    high = settings.optional_integer("max_pixels") or _limit(size, "longest_edge", "max_pixels")
    if low > high:
        settings.fail("min_pixels", f"{low} exceeds max_pixels ({high})")
    if not processor.data:
        processor.notes.append(
            f"no preprocessor_config.json: class defaults of {low:,} to {high:,} pixels per image"
        )
    return SmartResizeRule(
        patch_size=vision.patch_size,
        merge=merge,
        temporal_patch_size=vision.temporal_patch_size,
        min_pixels=low,
        max_pixels=high,
    )


def _limit(size: Section, key: str, legacy: str) -> int:
    return size.integer(legacy if legacy in size else key)
