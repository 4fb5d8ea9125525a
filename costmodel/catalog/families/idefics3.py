"""Idefics3 (``idefics3``): SigLIP-like tower, pixel shuffle, one linear layer, Llama.

Defaults: transformers 5.23.0, ``configuration_idefics3.py`` and
``image_processing_pil_idefics3.py``.  SmolVLM-Instruct is of this type too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.family_parts import (
    DYNAMIC_IMAGE,
    build_model,
    processor_section,
    top_section,
)
from costmodel.catalog.section import LARGEST_LAYERS, Section
from costmodel.catalog.text_configs import read_text
from costmodel.catalog.towers import head_dim
from costmodel.specs.model import ModelSpec, ProjectorSpec, VisionSpec
from costmodel.specs.vision_rules import SplitRule

__all__ = ["DEFAULTS", "MODEL_TYPES", "PROCESSOR_DEFAULTS", "VISION_DEFAULTS", "read", "read_as"]

MODEL_TYPES = ("idefics3",)

DEFAULTS: Mapping[str, Any] = {
    "scale_factor": 2,
    "image_token_id": 128257,
    "tie_word_embeddings": False,
}

VISION_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "gelu_pytorch_tanh",
}

PROCESSOR_DEFAULTS: Mapping[str, Any] = {
    "size": {"longest_edge": 1456},
    "max_image_size": {"longest_edge": 364},
    "do_image_splitting": True,
}

_SPELLED_TAGS: Mapping[int, tuple[int, int]] = {128256: (8, 4), 49152: (9, 5)}
"""Text tokens of ``<row_1_col_1>`` and ``<global-img>`` by size of the base vocabulary.

Llama 3 and SmolLM2: the pieces that the pre-tokenizer of each cuts the tags into.
"""


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read an ``idefics3`` configuration.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``; gives the tile size.
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
    >>> config = {"model_type": "idefics3", "vision_config": {"image_size": 364, "patch_size": 14}}
    >>> spec = read(config, None, "config.json")
    >>> spec.image_rule.tile_size, spec.vision.positions, spec.projector.widths
    (364, 676, (4096,))
    """
    return read_as("idefics3", config, preprocessor, where)


def read_as(
    family: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a configuration of Idefics3's architecture under the name `family`."""
    top = top_section(config, where, DEFAULTS)
    text = read_text(top.child("text_config"), "llama", top.boolean("tie_word_embeddings"))
    keys = top.child("vision_config", VISION_DEFAULTS)
    layers = keys.integer("num_hidden_layers", maximum=LARGEST_LAYERS)
    image, patch = keys.square("image_size"), keys.square("patch_size")
    if patch > image:
        keys.fail("patch_size", f"{patch} exceeds image_size ({image})")
    vision = VisionSpec(
        model_type=f"{family}_vision",
        hidden_size=keys.integer("hidden_size"),
        intermediate_size=keys.integer("intermediate_size"),
        layers=layers,
        layers_executed=layers,
        heads=keys.integer("num_attention_heads"),
        head_dim=head_dim(keys, "hidden_size", "num_attention_heads"),
        patch_size=patch,
        channels=keys.integer("num_channels"),
        image_size=image,
        patch_bias=True,
        positions=(image // patch) ** 2,
        activation=keys.text("hidden_act"),
    )
    rule = _split_rule(top, processor_section(preprocessor, top, PROCESSOR_DEFAULTS), vision)
    projector = ProjectorSpec(
        kind="pixel_shuffle_linear",
        in_features=vision.hidden_size,
        merge=rule.merge,
        widths=(text.hidden_size,),
        bias=False,
    )
    return build_model(
        top,
        family,
        text,
        vision=vision,
        projector=projector,
        image_rule=rule,
        default_image=DYNAMIC_IMAGE,
    )


def _split_rule(top: Section, processor: Section, vision: VisionSpec) -> SplitRule:
    merge = top.integer("scale_factor")
    tile, longest = _tile_and_longest_edge(processor, vision)
    tile_tag, global_tag = _tag_tokens(top)
    side = tile // vision.patch_size
    if side < 1 or side % merge:
        top.fail(
            "scale_factor",
            f"{merge} does not divide the {side} patches along a tile of {tile} pixels",
        )
    return SplitRule(
        tile_size=tile,
        patch_size=vision.patch_size,
        merge=merge,
        longest_edge=longest,
        split=processor.boolean("do_image_splitting"),
        tile_tag_tokens=tile_tag,
        global_tag_tokens=global_tag,
    )


def _tag_tokens(top: Section) -> tuple[int, int]:
    """Tokens of a tile's and of the global image's tag.

    Where the checkpoint adds only the three tokens around an image to its base
    vocabulary, the tags are spelled out; SmolVLM-256M and later ones add them too.
    """
    image_token = top.integer("image_token_id", minimum=0)
    for base, tokens in _SPELLED_TAGS.items():
        if base <= image_token <= base + 2:
            return tokens
    return 1, 1


def _tile_and_longest_edge(processor: Section, vision: VisionSpec) -> tuple[int, int]:
    """Side of a tile and of the largest canvas [pixels]."""
    if not processor.data and vision.image_size is not None:
        # The processor's class defaults fit Idefics3-8B only; every published
        # model of the family cuts tiles of the tower's size, four along an edge.
        tile = vision.image_size
        processor.notes.append(
            f"no preprocessor_config.json: tiles of {tile} pixels, at most 4 along an edge"
        )
        return tile, 4 * tile
    sizes = [
        processor.child(key, PROCESSOR_DEFAULTS[key]).integer("longest_edge")
        for key in ("max_image_size", "size")
    ]
    return sizes[0], sizes[1]
