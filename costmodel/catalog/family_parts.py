"""What several families build alike: projectors, pinpoints, tying, the final spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.section import LARGEST_SIZE, Section
from costmodel.catalog.towers import feature_layers
from costmodel.specs.model import ModelSpec, ProjectorSpec, TextSpec, VisionSpec
from costmodel.specs.vision_rules import ImageRule

__all__ = [
    "DYNAMIC_IMAGE",
    "build_model",
    "check_same_pinpoints",
    "keeps_class_token",
    "llava_projector",
    "pinpoints",
    "processor_section",
    "tied_at_either_level",
    "tile_side",
    "top_section",
    "with_needed_layers",
]

DYNAMIC_IMAGE = (672, 672)
"""(width, height) assumed where the token count depends on the image and none is named [pixels]."""


def top_section(config: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> Section:
    """Return the outermost section, with a note on settings that shapes do not show."""
    section = Section(config, where, defaults)
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        section.notes.append(
            f"quantization_config ({method or 'method not named'}): shapes are those of the "
            "unquantised model; set the weights' dtype yourself"
        )
    return section


def processor_section(
    preprocessor: Mapping[str, Any] | None, top: Section, defaults: Mapping[str, Any]
) -> Section:
    """Return the image processor's settings; without a file its class defaults hold."""
    return Section(
        preprocessor or {}, top.where, defaults, "preprocessor_config.json", notes=top.notes
    )


def tied_at_either_level(top: Section, text: Section) -> bool:
    """Whether the head shares the embedding, said by the outer or the inner configuration."""
    return any(
        section.boolean("tie_word_embeddings")
        for section in (top, text)
        if "tie_word_embeddings" in section
    )


def keeps_class_token(top: Section, vision: VisionSpec) -> bool:
    """Read ``vision_feature_select_strategy``: 'default' drops the first token, 'full' keeps all.

    Raises
    ------
    ConfigError
        If the strategy is not known, or drops the first patch of a tower
        without class token.
    """
    key = "vision_feature_select_strategy"
    strategy = top.choice(key, ("default", "full"))
    if strategy == "default" and not vision.class_token:
        top.fail(
            key,
            f"'default' drops the first token, but {vision.model_type} has no class token: "
            "it would lose a patch; expected 'full'",
        )
    return strategy == "full" and vision.class_token


def with_needed_layers(top: Section, key: str, vision: VisionSpec) -> tuple[VisionSpec, int]:
    """Return the tower with `layers_needed` set, and the number of feature maps read."""
    maps, needed = feature_layers(top, key, vision.layers)
    if needed == vision.layers:
        return vision, maps
    return vision.model_copy(update={"layers_needed": needed}), maps


def llava_projector(
    top: Section, vision: VisionSpec, text: TextSpec, maps: int, newline: bool = False
) -> ProjectorSpec:
    """Return the two linear layers of LLaVA and its successors."""
    return ProjectorSpec(
        kind="mlp2x_gelu",
        in_features=vision.hidden_size * maps,
        widths=(text.hidden_size, text.hidden_size),
        activation=top.text("projector_hidden_act"),
        bias=top.boolean("multimodal_projector_bias"),
        newline=newline,
    )


def pinpoints(section: Section, tile: int) -> tuple[tuple[int, int], ...]:
    """Read ``image_grid_pinpoints``: (height, width) pairs, multiples of the tile [pixels]."""
    key = "image_grid_pinpoints"
    value = section.value(key)
    if not isinstance(value, list) or not value:
        section.fail(key, f"expected a list of [height, width] pairs, got {value!r}")
    pairs: list[tuple[int, int]] = []
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            section.fail(key, f"expected [height, width], got {pair!r}")
        for side in pair:
            if isinstance(side, bool) or not isinstance(side, int):
                section.fail(key, f"expected whole numbers, got {pair!r}")
            if not 0 < side <= LARGEST_SIZE or side % tile:
                section.fail(key, f"{pair!r} is no multiple of the tile of {tile} pixels")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def tile_side(top: Section, vision: VisionSpec) -> int:
    """Return the side of a tile, which is the tower's image size [pixels]."""
    if vision.image_size is None:
        top.fail("vision_config.image_size", "a tower that sees tiles needs a fixed size")
    return vision.image_size


def check_same_pinpoints(
    points: tuple[tuple[int, int], ...], processor: Section, tile: int
) -> None:
    """Refuse a processor that cuts other canvases than the model joins again."""
    key = "image_grid_pinpoints"
    if key in processor and set(pinpoints(processor, tile)) != set(points):
        processor.fail(key, "differs from config.json's image_grid_pinpoints")


def build_model(
    top: Section,
    family: str,
    text: TextSpec,
    *,
    vision: VisionSpec | None = None,
    projector: ProjectorSpec | None = None,
    image_rule: ImageRule | None = None,
    default_image: tuple[int, int] | None = None,
) -> ModelSpec:
    """Assemble the spec; its name is the configuration's own until a preset or path gives one."""
    name = top.data.get("_name_or_path")
    name = name if isinstance(name, str) and name.strip() else family
    return ModelSpec(
        name=name,
        title=name,
        family=family,
        text=text,
        vision=vision,
        projector=projector,
        image_rule=image_rule,
        default_image=default_image,
        notes=tuple(top.notes),
    )
