"""LLaVA as its authors saved it: ``mm_*`` keys beside those of the language model.

``liuhaotian/llava-v1.5-7b`` and relatives name their tower instead of describing
it, so the known names are spelled out here.  Layers and keys: haotian-liu/LLaVA,
``llava/model/llava_arch.py`` and ``llava/model/multimodal_projector/builder.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import (
    DYNAMIC_IMAGE,
    build_model,
    pinpoints,
    tile_side,
    top_section,
    with_needed_layers,
)
from costmodel.catalog.section import Section
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import CLIP_LARGE_336, SIGLIP_SO400M_384, read_tower
from costmodel.errors import did_you_mean
from costmodel.specs.model import ModelSpec, ProjectorSpec, TextSpec, VisionSpec
from costmodel.specs.vision_rules import AnyresRule, FixedRule

__all__ = ["DEFAULTS", "MODEL_TYPES", "TOWERS", "read"]

MODEL_TYPES = ("llava_mistral", "llava_qwen")

DEFAULTS: Mapping[str, Any] = {
    "mm_projector_type": "linear",
    "mm_vision_select_feature": "patch",
    "mm_patch_merge_type": "flat",
    "image_aspect_ratio": "square",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}

TOWERS: Mapping[str, Mapping[str, Any]] = {
    "clip-vit-large-patch14-336": CLIP_LARGE_336,
    "clip-vit-large-patch14": {**CLIP_LARGE_336, "image_size": 224},
    "siglip-so400m-patch14-384": SIGLIP_SO400M_384,
}
"""Towers by the last part of their name, as local copies keep it.

Source: ``vision_config`` in config.json of openai/clip-vit-large-patch14-336,
openai/clip-vit-large-patch14 and google/siglip-so400m-patch14-384 on
https://huggingface.co.
"""

_TEXT_TYPES = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
}

_PROJECTOR_DEPTH = {"linear": 1, "mlp2x_gelu": 2}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a configuration that names its tower in ``mm_vision_tower``.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Ignored: the tower's image size decides.
    where : str
        File name for error messages.

    Returns
    -------
    ModelSpec
        Shapes of the model.

    Raises
    ------
    ConfigError
        If the tower or projector is not known, or a key is missing, malformed
        or contradicts another.

    Examples
    --------
    >>> spec = read({"model_type": "llava", "mm_hidden_size": 1024,
    ...              "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    ...              "mm_vision_select_layer": -2, "mm_projector_type": "mlp2x_gelu"}, None, "f")
    >>> spec.vision.layers_needed, spec.projector.widths
    (23, (4096, 4096))
    """
    top = top_section(config, where, DEFAULTS)
    kind = _TEXT_TYPES[top.choice("model_type", tuple(_TEXT_TYPES))]
    text = read_text(top, kind, model_type=kind)
    vision, maps = with_needed_layers(top, "mm_vision_select_layer", _tower(top))
    if maps != 1:
        top.fail("mm_vision_select_layer", "expected a single layer")
    width = top.optional_integer("mm_hidden_size")
    if width is not None and width != vision.hidden_size:
        top.fail(
            "mm_hidden_size", f"{width} differs from the tower's hidden_size ({vision.hidden_size})"
        )
    class_token = (
        top.choice("mm_vision_select_feature", ("patch", "cls_patch")) == "cls_patch"
        and vision.class_token
    )
    if not _tiled(top):
        tile = tile_side(top, vision)
        return build_model(
            top,
            "llava",
            text,
            vision=vision,
            projector=_projector(top, vision, text),
            image_rule=FixedRule(
                image_size=tile, patch_size=vision.patch_size, class_token=class_token
            ),
            default_image=(tile, tile),
        )
    return build_model(
        top,
        "llava_next",
        text,
        vision=vision,
        projector=_projector(top, vision, text, newline=True),
        image_rule=AnyresRule(
            tile_size=tile_side(top, vision),
            patch_size=vision.patch_size,
            pinpoints=pinpoints(top, tile_side(top, vision)),
            class_token=class_token,
        ),
        default_image=DYNAMIC_IMAGE,
    )


def _tower(top: Section) -> VisionSpec:
    key = "mm_vision_tower"
    name = top.text(key)
    short = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    keys = TOWERS.get(short)
    if keys is None:
        close = did_you_mean(short, TOWERS)
        guess = f", did you mean {close!r}?" if close else ""
        top.fail(key, f"tower {name!r} is not known{guess} (known: {', '.join(TOWERS)})")
    described = Section(keys, top.where, prefix=key, notes=top.notes)
    top.notes.append(f"{key}: shapes of {name} by name")
    return read_tower(described, "clip_vision_model")


def _projector(
    top: Section, vision: VisionSpec, text: TextSpec, newline: bool = False
) -> ProjectorSpec:
    kind = top.choice("mm_projector_type", tuple(_PROJECTOR_DEPTH))
    return ProjectorSpec(
        kind=kind,
        in_features=vision.hidden_size,
        widths=(text.hidden_size,) * _PROJECTOR_DEPTH[kind],
        newline=newline,
    )


def _tiled(top: Section) -> bool:
    """Whether images are cut into tiles with newline tokens (LLaVA-1.6)."""
    key = "image_aspect_ratio"
    ratio = top.choice(key, ("square", "pad", "anyres")) if key in top else "square"
    if ratio != "anyres":
        return False
    top.choice("mm_patch_merge_type", ("spatial_unpad",))
    return True
