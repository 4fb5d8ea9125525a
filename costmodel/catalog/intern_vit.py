"""InternViT, the vision tower of InternVL, in the layouts of transformers and of OpenGVLab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.section import LARGEST_LAYERS, Section
from costmodel.catalog.towers import head_dim
from costmodel.specs.model import NormKind, VisionSpec

__all__ = ["INTERN_VIT_DEFAULTS", "INTERN_VIT_ORIGINAL_DEFAULTS", "read_intern_vit"]

INTERN_VIT_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": (448, 448),
    "patch_size": (14, 14),
    "hidden_act": "gelu",
    "attention_bias": False,
    "use_qk_norm": False,
    "norm_type": "layer_norm",
    "use_mask_token": False,
    "use_absolute_position_embeddings": True,
    "use_mean_pooling": True,
}
"""transformers 5.23.0, ``configuration_internvl.py``."""

INTERN_VIT_ORIGINAL_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_hidden_layers": 48,
    "num_attention_heads": 25,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
}
"""OpenGVLab/InternVL, ``configuration_intern_vit.py`` (the 6B tower)."""

_NORMS: Mapping[str, NormKind] = {"layer_norm": "layernorm", "rms_norm": "rmsnorm"}


def read_intern_vit(section: Section, original: bool = False) -> VisionSpec:
    """Read an InternViT.

    Its q and k norms, where present, span the whole width rather than one head.

    Parameters
    ----------
    section : Section
        ``vision_config``.
    original : bool
        Whether the keys are those of OpenGVLab rather than of transformers.

    Returns
    -------
    VisionSpec
        Shapes of the tower.

    Raises
    ------
    ConfigError
        If a key is malformed or contradicts another.

    Examples
    --------
    >>> spec = read_intern_vit(Section({"attention_bias": True}, "config.json"))
    >>> spec.layers, spec.positions, spec.layer_scale, spec.post_norm
    (24, 1025, True, False)
    """
    defaults = INTERN_VIT_ORIGINAL_DEFAULTS if original else INTERN_VIT_DEFAULTS
    keys = section.with_defaults(defaults)
    image, patch = keys.square("image_size"), keys.square("patch_size")
    if image % patch:
        keys.fail("image_size", f"{image} is no multiple of patch_size ({patch})")
    layers = keys.integer("num_hidden_layers", maximum=LARGEST_LAYERS)
    hidden = keys.integer("hidden_size")
    norm = _NORMS[keys.choice("norm_type", tuple(_NORMS))]
    post_norm = not original and not keys.boolean("use_mean_pooling")
    unused = hidden if not original and keys.boolean("use_mask_token") else 0
    if post_norm and norm == "rmsnorm":
        # The last norm is a LayerNorm whatever those of the layers are: one more vector.
        unused += hidden
    return VisionSpec(
        model_type="intern_vit",
        hidden_size=hidden,
        intermediate_size=keys.integer("intermediate_size"),
        layers=layers,
        layers_executed=layers,
        heads=keys.integer("num_attention_heads"),
        head_dim=head_dim(keys, "hidden_size", "num_attention_heads"),
        patch_size=patch,
        channels=keys.integer("num_channels"),
        image_size=image,
        patch_bias=True,
        class_token=True,
        positions=_positions(keys, original, (image // patch) ** 2 + 1),
        norm=norm,
        post_norm=post_norm,
        activation=keys.text("hidden_act"),
        qkv_fused=original,
        qkv_bias=keys.boolean("qkv_bias" if original else "attention_bias"),
        qk_norm=keys.boolean("qk_normalization" if original else "use_qk_norm"),
        layer_scale=True,
        unused_parameters=unused,
    )


def _positions(keys: Section, original: bool, count: int) -> int:
    return count if original or keys.boolean("use_absolute_position_embeddings") else 0
