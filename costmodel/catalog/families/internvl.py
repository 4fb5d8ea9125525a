"""InternVL 2, 2.5 and 3: InternViT, pixel shuffle, two linear layers; two file layouts.

``internvl`` is the layout of transformers, ``internvl_chat`` the original one of
OpenGVLab (``llm_config``, ``force_image_size``, ``max_dynamic_patch``).
Defaults: transformers 5.23.0, ``configuration_internvl.py`` and
``image_processing_pil_got_ocr2.py``; OpenGVLab/InternVL,
``configuration_internvl_chat.py`` and ``configuration_intern_vit.py``.
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
    with_needed_layers,
)
from costmodel.catalog.intern_vit import read_intern_vit
from costmodel.catalog.section import Section
from costmodel.catalog.text_configs import read_text
from costmodel.specs.model import ModelSpec, ProjectorSpec, TextSpec, VisionSpec
from costmodel.specs.vision_rules import TileRule

__all__ = ["CHAT_DEFAULTS", "DEFAULTS", "MODEL_TYPES", "PROCESSOR_DEFAULTS", "read"]

MODEL_TYPES = ("internvl", "internvl_chat")

DEFAULTS: Mapping[str, Any] = {
    "downsample_ratio": 0.5,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
}

PROCESSOR_DEFAULTS: Mapping[str, Any] = {"min_patches": 1, "max_patches": 12}

CHAT_DEFAULTS: Mapping[str, Any] = {
    "downsample_ratio": 0.5,
    "select_layer": -1,
    "dynamic_image_size": False,
    "use_thumbnail": False,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 6,
}

_TYPE_OF_ARCHITECTURE = {
    "LlamaForCausalLM": "llama",
    "InternLM2ForCausalLM": "internlm2",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read an ``internvl`` or ``internvl_chat`` configuration.

    The language model's head is tied only where the file says so: transformers
    5.23 defaults the outer ``tie_word_embeddings`` to true, but the published
    files were written when the (untied) default of the language model decided,
    and their checkpoints hold both matrices.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``; gives the number of tiles
        (``internvl`` only).
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
    >>> spec = read({"model_type": "internvl"}, None, "config.json")
    >>> spec.projector.in_features, spec.projector.merge, spec.image_rule.max_tiles
    (1024, 2, 12)
    """
    if config.get("model_type") == "internvl_chat":
        return _read_chat(config, where)
    top = top_section(config, where, DEFAULTS)
    top.choice("vision_feature_select_strategy", ("default",))
    text_keys = top.child("text_config")
    text = read_text(text_keys, "qwen2", tied_at_either_level(top, text_keys))
    vision = read_intern_vit(top.child("vision_config"))
    vision, maps = with_needed_layers(top, "vision_feature_layer", vision)
    if maps != 1:
        top.fail("vision_feature_layer", "expected a single layer")
    processor = processor_section(preprocessor, top, PROCESSOR_DEFAULTS)
    low, high = processor.integer("min_patches"), processor.integer("max_patches")
    if low > high:
        processor.fail("min_patches", f"{low} exceeds max_patches ({high})")
    return _assemble(
        top,
        text,
        vision,
        TileRule(
            tile_size=_tile(top, vision),
            patch_size=vision.patch_size,
            merge=_merge(top, vision, _tile(top, vision)),
            min_tiles=low,
            max_tiles=high,
        ),
        top.text("projector_hidden_act"),
    )


def _read_chat(config: Mapping[str, Any], where: str) -> ModelSpec:
    top = top_section(config, where, CHAT_DEFAULTS)
    text_keys = top.child("llm_config")
    text = read_text(text_keys, _language_type(text_keys))
    vision = read_intern_vit(top.child("vision_config"), original=True)
    vision, _ = with_needed_layers(top, "select_layer", vision)
    tile = _tile(top, vision)
    if "force_image_size" in top and top.integer("force_image_size") != tile:
        top.fail(
            "force_image_size",
            f"{top.integer('force_image_size')} differs from vision_config.image_size ({tile})",
        )
    dynamic = top.boolean("dynamic_image_size")
    low, high = top.integer("min_dynamic_patch"), top.integer("max_dynamic_patch")
    if low > high:
        top.fail("min_dynamic_patch", f"{low} exceeds max_dynamic_patch ({high})")
    rule = TileRule(
        tile_size=tile,
        patch_size=vision.patch_size,
        merge=_merge(top, vision, tile),
        min_tiles=low if dynamic else 1,
        max_tiles=high if dynamic else 1,
        thumbnail=top.boolean("use_thumbnail"),
    )
    return _assemble(top, text, vision, rule, "gelu")


def _language_type(keys: Section) -> str:
    """Type of the language model; the original code looks at the architecture."""
    architectures = keys.data.get("architectures")
    if isinstance(architectures, list) and architectures:
        return _TYPE_OF_ARCHITECTURE.get(str(architectures[0]), str(architectures[0]))
    return "llama"


def _tile(top: Section, vision: VisionSpec) -> int:
    if vision.image_size is None:
        top.fail("vision_config.image_size", "a tower that sees tiles needs a fixed size")
    return vision.image_size


def _merge(top: Section, vision: VisionSpec, tile: int) -> int:
    """Side of the neighbourhood that pixel shuffle joins: 2 for a ratio of 0.5."""
    key = "downsample_ratio"
    inverse = 1 / top.number(key)
    merge = round(inverse)
    side = tile // vision.patch_size
    if merge < 1 or abs(inverse - merge) > 1e-6 or side % merge:
        top.fail(key, f"1/{top.value(key)} does not divide the {side} patches along a tile")
    return merge


def _assemble(
    top: Section, text: TextSpec, vision: VisionSpec, rule: TileRule, activation: str
) -> ModelSpec:
    projector = ProjectorSpec(
        kind="pixel_shuffle_mlp",
        in_features=vision.hidden_size,
        merge=rule.merge,
        norm="layernorm",
        norm_after_merge=True,
        widths=(text.hidden_size, text.hidden_size),
        activation=activation,
    )
    return build_model(
        top,
        "internvl",
        text,
        vision=vision,
        projector=projector,
        image_rule=rule,
        default_image=DYNAMIC_IMAGE,
    )
