"""How a model family turns images into visual tokens: the parameters of each rule.

The algorithms live in `costmodel.vision_tokens`, one module per rule.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
Pinpoints = Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1)]


def _check_pinpoints(pinpoints: Pinpoints, tile_size: int) -> None:
    for height, width in pinpoints:
        if height % tile_size or width % tile_size:
            raise ValueError(
                f"pinpoint ({height}, {width}) is not a multiple of tile_size {tile_size}"
            )


def _check_merge(tile_size: int, patch_size: int, merge: int) -> None:
    side = tile_size // patch_size
    if side == 0 or side % merge:
        raise ValueError(
            f"a tile has {side} x {side} patches, which merge {merge} does not divide evenly"
        )


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
    """LLaVA-NeXT: best canvas, tiles, base image, unpadding and newline tokens.

    `pinpoints` are the (height, width) of each allowed canvas, as in config.json.
    With `class_token` the base image keeps the tower's class token.
    """

    rule: Literal["anyres"] = "anyres"
    tile_size: Positive
    patch_size: Positive
    pinpoints: Pinpoints
    class_token: bool = False

    @model_validator(mode="after")
    def _whole_tiles(self) -> Self:
        _check_pinpoints(self.pinpoints, self.tile_size)
        return self


class AnyresMaxRule(Spec):
    """LLaVA-OneVision: anyres with the features of the canvas shrunk to at most `max_tiles` tiles.

    One image uses the canvas; several images and video frames use one tile each.
    A video frame is pooled by `video_pool` and each video adds one newline token.
    `pinpoints` are (height, width).
    """

    rule: Literal["anyres_max"] = "anyres_max"
    tile_size: Positive
    patch_size: Positive
    pinpoints: Pinpoints
    max_tiles: Positive = 9
    video_pool: Positive = 2

    @model_validator(mode="after")
    def _whole_tiles(self) -> Self:
        _check_pinpoints(self.pinpoints, self.tile_size)
        return self


class SmartResizeRule(Spec):
    """Qwen2-VL / Qwen2.5-VL: both sides rounded to `patch_size` x `merge`, area bounded.

    The defaults of `video_min_pixels` and `video_max_pixels` [pixels per frame]
    are those of transformers' ``Qwen2VLVideoProcessor``: 128 and 768 tokens of
    28 x 28 pixels.  `max_video_tokens` bounds a whole video as qwen-vl-utils and
    ``cap_pixels_per_frame=True`` do (128,000 there); None is transformers' default.
    """

    rule: Literal["smart_resize"] = "smart_resize"
    patch_size: Positive
    merge: Positive
    temporal_patch_size: Positive = 2
    min_pixels: Positive
    max_pixels: Positive
    video_min_pixels: Positive = 128 * 28 * 28
    video_max_pixels: Positive = 768 * 28 * 28
    max_video_tokens: Positive | None = None
    markers_per_image: Count = 2
    max_aspect_ratio: float = Field(default=200.0, gt=1)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels ({self.min_pixels}) exceeds max_pixels ({self.max_pixels})"
            )
        return self


class TileRule(Spec):
    """InternVL: the tile grid closest in aspect ratio, plus a thumbnail.

    `frame_label_tokens` are the text tokens of the label before each video frame,
    ``"Frame1: "``, without those of the number: "Frame", ":" and " ".
    """

    rule: Literal["tile"] = "tile"
    tile_size: Positive
    patch_size: Positive
    merge: Positive = 2
    min_tiles: Positive = 1
    max_tiles: Positive = 12
    thumbnail: bool = True
    markers_per_image: Count = 2
    frame_label_tokens: Count = 3

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_merge(self.tile_size, self.patch_size, self.merge)
        if self.min_tiles > self.max_tiles:
            raise ValueError(f"min_tiles ({self.min_tiles}) exceeds max_tiles ({self.max_tiles})")
        return self


class SplitRule(Spec):
    """Idefics3 / SmolVLM: resize to `longest_edge`, cut into tiles, add a global image.

    `tile_tag_tokens` and `global_tag_tokens` are the text tokens of one
    ``<row_1_col_1>`` and of ``<global-img>``: 1 where the tokenizer holds them as
    added tokens (SmolVLM-256M and -500M), more where they are spelled out
    (Idefics3-8B-Llama3: 8 and 4; SmolVLM-2B: 9 and 5).
    """

    rule: Literal["split"] = "split"
    tile_size: Positive
    patch_size: Positive
    merge: Positive
    longest_edge: Positive
    split: bool = True
    tile_tag_tokens: Positive = 1
    global_tag_tokens: Positive = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_merge(self.tile_size, self.patch_size, self.merge)
        return self


ImageRule = Annotated[
    FixedRule | AnyresRule | AnyresMaxRule | SmartResizeRule | TileRule | SplitRule,
    Field(discriminator="rule"),
]
