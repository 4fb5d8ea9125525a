"""Vision towers shared by several families: CLIP and SigLIP.

Class defaults are those of transformers 5.23.0 (``configuration_clip.py``,
``configuration_siglip.py``); `tests/verify/test_config_defaults.py` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from costmodel.catalog.section import LARGEST_LAYERS, Section
from costmodel.errors import did_you_mean
from costmodel.specs.model import VisionSpec

__all__ = [
    "CLIP_DEFAULTS",
    "CLIP_LARGE_336",
    "SIGLIP_DEFAULTS",
    "SIGLIP_SO400M_384",
    "feature_layers",
    "head_dim",
    "read_clip",
    "read_siglip",
    "read_tower",
]

CLIP_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}

SIGLIP_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "vision_use_head": True,
}

CLIP_LARGE_336: Mapping[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""``openai/clip-vit-large-patch14-336``, as transformers' ``LlavaConfig`` spells it out."""

SIGLIP_SO400M_384: Mapping[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""``google/siglip-so400m-patch14-384`` (27 layers; LLaVA-OneVision drops the last)."""


def read_clip(section: Section) -> VisionSpec:
    """Read a CLIP vision tower (``CLIPVisionModel``).

    The norm after the last layer exists and runs, but on the class token only;
    LLaVA does not read its result.

    Examples
    --------
    >>> spec = read_clip(Section(CLIP_LARGE_336, "config.json"))
    >>> spec.layers, spec.positions, spec.post_norm_rows
    (24, 577, 'class')
    """
    keys = section.with_defaults(CLIP_DEFAULTS)
    side = _patches(keys)
    return VisionSpec(
        **_common(keys, "clip_vision_model"),
        class_token=True,
        positions=side * side + 1,
        pre_norm=True,
        post_norm=True,
        post_norm_rows="class",
    )


def read_siglip(section: Section) -> VisionSpec:
    """Read a SigLIP vision tower (``SiglipVisionModel``).

    With ``vision_use_head`` the checkpoint also holds an attention pooling head.
    No vision-language model reads it, so its parameters are counted and its
    work is not.

    Examples
    --------
    >>> keys = {**SIGLIP_SO400M_384, "vision_use_head": False}
    >>> spec = read_siglip(Section(keys, "config.json"))
    >>> spec.layers, spec.positions, spec.class_token, spec.unused_parameters
    (27, 729, False, 0)
    """
    keys = section.with_defaults(SIGLIP_DEFAULTS)
    side = _patches(keys)
    common = _common(keys, "siglip_vision_model")
    unused = 0
    if keys.boolean("vision_use_head"):
        unused = _pooling_head_parameters(common["hidden_size"], common["intermediate_size"])
        keys.notes.append(
            f"{keys.name('vision_use_head')}: the attention pooling head's {unused:,} parameters "
            "are counted, its work is not (its output is never read)"
        )
    return VisionSpec(**common, patch_bias=True, positions=side * side, unused_parameters=unused)


_TOWERS: Mapping[str, Callable[[Section], VisionSpec]] = {
    "clip_vision_model": read_clip,
    "siglip_vision_model": read_siglip,
}


def read_tower(section: Section, default_type: str) -> VisionSpec:
    """Read the tower that ``model_type`` of `section` names.

    Raises
    ------
    ConfigError
        If the tower is not known, or a key is missing, malformed or contradicts another.
    """
    kind = section.with_defaults({"model_type": default_type}).text("model_type")
    reader = _TOWERS.get(kind)
    if reader is None:
        close = did_you_mean(kind, _TOWERS)
        guess = f", did you mean {close!r}?" if close else ""
        section.fail(
            "model_type",
            f"vision tower {kind!r} is not supported{guess} (supported: {', '.join(_TOWERS)})",
        )
    return reader(section)


def feature_layers(section: Section, key: str, layers: int) -> tuple[int, int]:
    """Return how many feature maps are concatenated, and the layers needed for them.

    ``hidden_states`` has ``layers + 1`` entries; entry 0 is the embedding, so
    entry ``i`` needs ``i`` layers and -2 needs all but the last.

    Parameters
    ----------
    section : Section
        Section that holds `key`, a number or a list of numbers.
    key : str
        For example ``vision_feature_layer``.
    layers : int
        Layers of the tower.

    Returns
    -------
    tuple of int
        (number of maps, number of layers needed)

    Examples
    --------
    >>> feature_layers(Section({"vision_feature_layer": -2}, "f"), "vision_feature_layer", 24)
    (1, 23)
    >>> feature_layers(Section({"layers": [3, 6, -1]}, "f"), "layers", 24)
    (3, 24)
    """
    value = section.value(key)
    low = -layers - 1
    if isinstance(value, list):
        chosen = section.integers(key, minimum=low)
    else:
        chosen = (section.integer(key, minimum=low),)
    if max(chosen) > layers:
        section.fail(key, f"{max(chosen)} exceeds the tower's {layers} layers")
    needed = max(index if index >= 0 else layers + 1 + index for index in chosen)
    return len(chosen), max(needed, 1)


def head_dim(keys: Section, hidden_key: str, heads_key: str) -> int:
    """Return width per head; a tower has no separate key for it [elements]."""
    hidden, heads = keys.integer(hidden_key), keys.integer(heads_key)
    if hidden % heads:
        keys.fail(heads_key, f"{heads} does not divide {hidden_key} ({hidden})")
    return hidden // heads


def _patches(keys: Section) -> int:
    """Patches along one side; like the convolution, a rest of pixels is dropped."""
    image, patch = keys.square("image_size"), keys.square("patch_size")
    if patch > image:
        keys.fail("patch_size", f"{patch} exceeds image_size ({image})")
    return image // patch


def _common(keys: Section, kind: str) -> dict[str, Any]:
    layers = keys.integer("num_hidden_layers", maximum=LARGEST_LAYERS)
    return {
        "model_type": kind,
        "hidden_size": keys.integer("hidden_size"),
        "intermediate_size": keys.integer("intermediate_size"),
        "layers": layers,
        "layers_executed": layers,
        "heads": keys.integer("num_attention_heads"),
        "head_dim": head_dim(keys, "hidden_size", "num_attention_heads"),
        "patch_size": keys.square("patch_size"),
        "channels": keys.integer("num_channels"),
        "image_size": keys.square("image_size"),
        "activation": keys.text("hidden_act"),
    }


def _pooling_head_parameters(hidden: int, intermediate: int) -> int:
    """Probe, attention with biases, norm and two-layer MLP of SigLIP's pooling head."""
    attention = 4 * hidden * hidden + 4 * hidden
    mlp = 2 * hidden * intermediate + hidden + intermediate
    return hidden + attention + 2 * hidden + mlp
