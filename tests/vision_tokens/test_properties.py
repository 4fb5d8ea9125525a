"""What must hold for every size.  Counts are not monotone in the size, so that is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from costmodel.specs.vision_rules import ImageRule, SmartResizeRule, TileRule
from costmodel.vision_tokens import (
    ImageSize,
    VideoSize,
    VisualLayout,
    assumed_visual_layout,
    visual_layout,
)
from costmodel.vision_tokens.canvas import best_canvas, unpadded
from costmodel.vision_tokens.smart_resize import resized
from costmodel.vision_tokens.tile import tile_grid

DATA = Path(__file__).parents[1] / "data"
RULES: dict[str, ImageRule] = TypeAdapter(dict[str, ImageRule]).validate_python(
    json.loads((DATA / "image_rules.json").read_text("utf-8"))
)
NAMES = sorted(RULES)
WITH_VIDEO = ("onevision", "qwen2-vl-1mp", "internvl")

# Up to 14 times as long as wide: every rule takes these sizes.
SIDES = st.integers(300, 4200)
IMAGES = st.builds(ImageSize, SIDES, SIDES)
VIDEOS = st.builds(VideoSize, SIDES, SIDES, st.integers(1, 200))
ANY_IMAGES = st.builds(ImageSize, st.integers(1, 100_000), st.integers(1, 100_000))


def consistent(found: VisualLayout) -> None:
    assert found.features > 0
    assert found.projected > 0
    assert found.tokens == found.features + found.markers
    assert all(segment.count > 0 and segment.patches > 0 for segment in found.segments)
    if found.grid is not None:
        assert found.features == found.tower_sequences * found.grid[0] * found.grid[1]


@given(name=st.sampled_from(NAMES), image=IMAGES)
def test_one_image_is_consistent(name: str, image: ImageSize) -> None:
    found = visual_layout(RULES[name], [image])
    consistent(found)
    assert found.units == 1
    assert found.notes


@given(name=st.sampled_from(WITH_VIDEO), video=VIDEOS)
def test_one_video_is_consistent(name: str, video: VideoSize) -> None:
    found = visual_layout(RULES[name], [], [video])
    consistent(found)
    assert found.tower_sequences <= video.frames


@given(name=st.sampled_from([n for n in NAMES if n != "onevision"]), images=st.lists(IMAGES))
def test_images_add_up(name: str, images: list[ImageSize]) -> None:
    whole = visual_layout(RULES[name], images)
    parts = [visual_layout(RULES[name], [image]) for image in images]
    for field in ("features", "markers", "projected", "tokens", "tower_sequences", "units"):
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts)
    assert sum(segment.count * segment.patches for segment in whole.segments) == sum(
        segment.count * segment.patches for part in parts for segment in part.segments
    )


@given(images=st.lists(IMAGES, min_size=2))
def test_several_onevision_images_add_up(images: list[ImageSize]) -> None:
    assert visual_layout(RULES["onevision"], images).features == 730 * len(images)


@given(name=st.sampled_from(["llava-1.5", "qwen2-vl-1mp", "qwen2-vl-12.8mp"]), image=IMAGES)
def test_orientation_does_not_matter(name: str, image: ImageSize) -> None:
    turned = ImageSize(image.height, image.width)
    assert visual_layout(RULES[name], [image]).tokens == visual_layout(RULES[name], [turned]).tokens


@given(image=IMAGES, maximum=st.integers(200_000, 20_000_000))
def test_resized_sides_are_multiples_within_bounds(image: ImageSize, maximum: int) -> None:
    width, height = resized(image.width, image.height, 28, 3136, maximum)
    assert width % 28 == height % 28 == 0
    assert 3136 <= width * height <= maximum


@given(width=st.integers(1, 60), height=st.integers(1, 60))
def test_small_images_reach_the_smallest_area(width: int, height: int) -> None:
    rule = RULES["qwen2-vl-1mp"]
    assert isinstance(rule, SmartResizeRule)
    assert visual_layout(rule, [ImageSize(width, height)]).features * 28 * 28 >= rule.min_pixels


@given(image=ANY_IMAGES, low=st.integers(1, 6), high=st.integers(6, 40))
def test_tile_grids_stay_within_bounds(image: ImageSize, low: int, high: int) -> None:
    rule = TileRule(tile_size=448, patch_size=14, min_tiles=low, max_tiles=high)
    columns, rows = tile_grid(rule, image)
    assert low <= columns * rows <= high


@given(image=ANY_IMAGES, rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_unpadding_removes_from_one_side_only(image: ImageSize, rows: int, columns: int) -> None:
    height, width = unpadded(image, 27 * rows, 27 * columns)
    assert height == 27 * rows or width == 27 * columns
    assert 0 <= height <= 27 * rows
    assert 0 <= width <= 27 * columns


@given(image=ANY_IMAGES, name=st.sampled_from(["llava-next", "onevision", "idefics3", "internvl"]))
def test_extreme_shapes_have_features(image: ImageSize, name: str) -> None:
    consistent(visual_layout(RULES[name], [image]))


@given(image=IMAGES)
def test_onevision_keeps_at_most_a_tenth_more_than_its_tiles(image: ImageSize) -> None:
    found = visual_layout(RULES["onevision"], [image])
    newlines = found.features - 729
    assert newlines <= 1.1**2 * 9 * 729 + 6 * 27


@pytest.mark.parametrize("name", ["llava-next", "onevision"])
@given(image=IMAGES)
def test_canvas_is_one_of_the_pinpoints(name: str, image: ImageSize) -> None:
    rule = RULES[name]
    pinpoints = getattr(rule, "pinpoints", ())
    assert best_canvas(image, pinpoints) in pinpoints


@given(name=st.sampled_from(NAMES), features=st.integers(1, 200_000))
def test_assumed_counts_are_exact(name: str, features: int) -> None:
    found = assumed_visual_layout(RULES[name], features)
    consistent(found)
    assert found.features == features
    assert found.markers == 0


@given(features=st.integers(1, 200_000))
def test_assumed_sequence_has_exactly_the_patches(features: int) -> None:
    (segment,) = assumed_visual_layout(RULES["qwen2-vl-1mp"], features).segments
    assert segment.patches == features * 2 * 2
    assert segment.height_patches % 2 == segment.width_patches % 2 == 0


@given(name=st.sampled_from(["internvl", "idefics3", "llava-1.5"]), image=IMAGES)
def test_assuming_a_real_count_gives_the_real_tiles(name: str, image: ImageSize) -> None:
    real = visual_layout(RULES[name], [image])
    assumed = assumed_visual_layout(RULES[name], real.features)
    assert (assumed.segments, assumed.projected, assumed.grid) == (
        real.segments,
        real.projected,
        real.grid,
    )
