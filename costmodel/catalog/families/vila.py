"""VILA-1.5 (``llava_llama`` with nested parts): SigLIP or CLIP, 2 x 2 downsampling, Llama.

``config.json`` nests ``llm_cfg``, ``vision_tower_cfg`` and ``mm_projector_cfg``, or
leaves them to files in the folders ``llm``, ``vision_tower`` and ``mm_projector``.
Layers and keys: NVlabs/VILA, ``llava/model/llava_arch.py`` and
``llava/model/multimodal_projector/base_projector.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import build_model, top_section, with_needed_layers
from costmodel.catalog.section import Section
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import read_tower
from costmodel.specs.model import ModelSpec, ProjectorSpec, TextSpec, VisionSpec
from costmodel.specs.vision_rules import FixedRule

__all__ = ["DEFAULTS", "MODEL_TYPES", "PARTS", "read"]

MODEL_TYPES = ("llava_llama",)

PARTS: Mapping[str, str] = {
    "llm_cfg": "llm/config.json",
    "vision_tower_cfg": "vision_tower/config.json",
    "mm_projector_cfg": "mm_projector/config.json",
}
"""Keys that may live in files of their own, relative to ``config.json``."""

DEFAULTS: Mapping[str, Any] = {
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_aspect_ratio": "resize",
    "s2": False,
    "dynamic_s2": False,
}

_ONE_SQUARE = ("resize", "pad", "square")

_MERGE_OF_PROJECTOR = {"mlp_downsample": 2, "mlp2x_gelu": 1}


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a VILA-1.5 configuration; the original LLaVA layout shares its ``model_type``.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``, with the nested parts in place.
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
        If a part or key is missing, malformed or contradicts another, or a
        multi-scale setting of later VILA models is switched on.

    Examples
    --------
    >>> spec = read({"llm_cfg": {"hidden_size": 2560, "num_attention_heads": 20},
    ...              "vision_tower_cfg": {"model_type": "siglip_vision_model", "patch_size": 14,
    ...                                   "image_size": 384, "hidden_size": 1152,
    ...                                   "num_attention_heads": 16},
    ...              "mm_vision_select_feature": "cls_patch",
    ...              "mm_projector_cfg": {"mm_projector_type": "mlp_downsample"}}, None, "f")
    >>> spec.projector.merge, spec.projector.in_features, spec.projector.widths
    (2, 1152, (2560, 2560))
    """
    if "mm_vision_tower" in config and "llm_cfg" not in config:
        from costmodel.catalog.families import llava_original

        return llava_original.read(config, preprocessor, where)
    top = top_section(config, where, DEFAULTS)
    for key, file in PARTS.items():
        if not isinstance(config.get(key), Mapping):
            top.fail(key, f"expected an object, or the file {file} beside config.json")
    for key in ("s2", "dynamic_s2"):
        if top.boolean(key):
            top.fail(key, "multi-scale images (S2) are not supported; expected false")
    top.choice("image_aspect_ratio", _ONE_SQUARE)
    text = read_text(top.child("llm_cfg"), "llama")
    vision = read_tower(top.child("vision_tower_cfg"), "siglip_vision_model")
    vision, maps = with_needed_layers(top, "mm_vision_select_layer", vision)
    if maps != 1:
        top.fail("mm_vision_select_layer", "expected a single layer")
    projector = _projector(top.child("mm_projector_cfg"), vision, text)
    rule = _rule(top, vision, projector)
    return build_model(
        top,
        "vila",
        text,
        vision=vision,
        projector=projector,
        image_rule=rule,
        default_image=(rule.image_size, rule.image_size),
    )


def _projector(keys: Section, vision: VisionSpec, text: TextSpec) -> ProjectorSpec:
    kind = keys.choice("mm_projector_type", tuple(_MERGE_OF_PROJECTOR))
    merge = _MERGE_OF_PROJECTOR[kind]
    return ProjectorSpec(
        kind=kind,
        in_features=vision.hidden_size,
        merge=merge,
        norm="layernorm" if merge > 1 else None,
        norm_after_merge=merge > 1,
        widths=(text.hidden_size, text.hidden_size),
    )


def _rule(top: Section, vision: VisionSpec, projector: ProjectorSpec) -> FixedRule:
    if vision.image_size is None:
        top.fail("vision_tower_cfg.image_size", "the tower needs a fixed image size")
    # SigLIP has no class token, so "cls_patch" keeps exactly its patches.
    feature = top.choice("mm_vision_select_feature", ("patch", "cls_patch"))
    if feature == "patch" and not vision.class_token:
        top.fail(
            "mm_vision_select_feature",
            f"'patch' drops the first token, but {vision.model_type} has no class token; "
            "expected 'cls_patch'",
        )
    keeps_class = feature == "cls_patch" and vision.class_token
    if keeps_class and projector.merge > 1:
        top.fail("mm_vision_select_feature", "a class token cannot be downsampled")
    return FixedRule(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        merge=projector.merge,
        class_token=keeps_class,
    )
