"""How a model family turns images into visual tokens: the parameters of each rule.

The algorithms live in `costmodel.vision_tokens`, one module per rule.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from costmodel.specs.base import Spec

__all__ = [
    "AnyresMaxRule",
    "AnyresRule",
    "FixedRule",
    "ImageRule",
    "SmartResizeRule",
    "SplitRule",
    "TileRule",
]

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class FixedRule(Spec):
    """Every image is resized or padded to one square (LLaVA-1.5, VILA-1.5).

    `merge` > 1 joins merge x merge neighbours; an uneven grid is padded up
    (VILA: 27x27 -> 28x28 -> 14x14).  With `class_token` the tower's class
    token is kept as a visual token (``vision_feature_select_strategy: full``).
    """

    rule: Literal["fixed"] = "fixed"
    image_size: Positive
    patch_size: Positive
    merge: Positive = 1
    class_token: bool = False


class AnyresRule(Spec):
    """LLaVA-NeXT: best canvas, tiles, base image, unpadding and newline tokens."""

    rule: Literal["anyres"] = "anyres"
    tile_size: Positive
    patch_size: Positive
    pinpoints: tuple[tuple[Positive, Positive], ...] = Field(
        min_length=1, description="(height, width) of each allowed canvas, as in config.json"
    )
    class_token: bool = False


class AnyresMaxRule(Spec):
    """LLaVA-OneVision: anyres with the features of the canvas shrunk to at most `max_tiles` tiles.

    One image uses the canvas; several images and video frames use one tile each.
    A video frame is pooled by `video_pool` and each video adds one newline token.
    """

    rule: Literal["anyres_max"] = "anyres_max"
    tile_size: Positive
    patch_size: Positive
    pinpoints: tuple[tuple[Positive, Positive], ...] = Field(min_length=1)
    max_tiles: Positive = 9
    video_pool: Positive = 2


class SmartResizeRule(Spec):
    """Qwen2-VL / Qwen2.5-VL: both sides rounded to `patch_size` x `merge`, area bounded."""

    rule: Literal["smart_resize"] = "smart_resize"
    patch_size: Positive
    merge: Positive
    temporal_patch_size: Positive = 2
    min_pixels: Positive
    max_pixels: Positive
    markers_per_image: Count = 2
    max_aspect_ratio: float = Field(default=200.0, gt=1)


class TileRule(Spec):
    """InternVL: the tile grid closest in aspect ratio, plus a thumbnail."""

    rule: Literal["tile"] = "tile"
    tile_size: Positive
    patch_size: Positive
    merge: Positive = 2
    min_tiles: Positive = 1
    max_tiles: Positive = 12
    thumbnail: bool = True
    markers_per_image: Count = 2


class SplitRule(Spec):
    """Idefics3 / SmolVLM: resize to `longest_edge`, cut into tiles, add a global image."""

    rule: Literal["split"] = "split"
    tile_size: Positive
    patch_size: Positive
    merge: Positive
    longest_edge: Positive
    split: bool = True


ImageRule = Annotated[
    FixedRule | AnyresRule | AnyresMaxRule | SmartResizeRule | TileRule | SplitRule,
    Field(discriminator="rule"),
]
