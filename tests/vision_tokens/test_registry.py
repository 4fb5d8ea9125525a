"""Dispatch, combining several images, assumed counts, and everything that is refused."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from costmodel.errors import InputError, SpecError, UnsupportedError
from costmodel.specs.vision_rules import AnyresRule, ImageRule, SmartResizeRule, TileRule
from costmodel.vision_tokens import (
    ImageSize,
    Segment,
    VideoSize,
    assumed_visual_layout,
    parse_image,
    parse_video,
    visual_layout,
)
from costmodel.vision_tokens.registry import RULES as FUNCTIONS
from costmodel.vision_tokens.whole_tiles import MAX_FEATURES

DATA = Path(__file__).parents[1] / "data"
RULES: dict[str, ImageRule] = TypeAdapter(dict[str, ImageRule]).validate_python(
    json.loads((DATA / "image_rules.json").read_text("utf-8"))
)


def test_every_rule_has_its_functions() -> None:
    classes = typing.get_args(typing.get_args(ImageRule)[0])
    assert {cls.model_fields["rule"].default for cls in classes} == set(FUNCTIONS)


def test_no_images_is_an_empty_layout() -> None:
    found = visual_layout(RULES["llava-1.5"], [])
    assert (found.features, found.tokens, found.units, found.segments) == (0, 0, 0, ())


def test_equal_segments_are_merged_and_others_kept_apart() -> None:
    rule = RULES["qwen2-vl-1mp"]
    sizes = [ImageSize(640, 480), ImageSize(672, 672), ImageSize(640, 480)]
    found = visual_layout(rule, sizes)
    assert found.segments == (Segment(2, 34, 46), Segment(1, 48, 48))
    assert found.grid is None
    assert found.units == 3
    assert found.features == 2 * 391 + 576
    assert visual_layout(rule, sizes[:1] * 2).grid == (17, 23)


def test_several_onevision_images_are_one_tile_and_a_newline_each() -> None:
    found = visual_layout(RULES["onevision"], [ImageSize(1920, 1080), ImageSize(336, 336)])
    assert found.features == 2 * 730
    assert found.segments == (Segment(2, 27, 27),)


def test_one_onevision_image_beside_a_video_keeps_its_canvas() -> None:
    image, video = ImageSize(672, 672), VideoSize(640, 480, 4)
    found = visual_layout(RULES["onevision"], [image], [video])
    assert found.features == 3699 + 4 * 196 + 1
    assert found.units == 2


@pytest.mark.parametrize("name", ["llava-1.5", "vila-1.5", "llava-next", "idefics3", "smolvlm"])
def test_families_without_video_name_those_with_it(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"LLaVA-OneVision, Qwen2-VL, Qwen2.5-VL, InternVL"):
        visual_layout(RULES[name], [], [VideoSize(640, 480, 8)])


@pytest.mark.parametrize(
    ("name", "features", "sequences", "projected"),
    [
        ("llava-1.5", 576, 1, 576),
        ("llava-1.5", 64, 1, 576),
        ("llava-1.5", 577, 2, 1152),
        ("llava-next", 2880, 5, 2880),
        ("llava-next", 2928, 5, 2880),
        ("llava-next", 2 * 2928, 10, 5760),
        ("llava-next", 2340, 5, 2880),
        ("onevision", 729, 1, 729),
        ("internvl", 3328, 13, 3328),
        ("idefics3", 2873, 17, 2873),
        ("qwen2-vl-1mp", 391, 1, 391),
    ],
)
def test_assumed_counts(name: str, features: int, sequences: int, projected: int) -> None:
    found = assumed_visual_layout(RULES[name], features)
    assert found.features == found.tokens == features
    assert (found.tower_sequences, found.projected) == (sequences, projected)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("features", [0, -1, 1.5, True, float("nan"), "576", MAX_FEATURES + 1])
def test_impossible_counts_are_refused(name: str, features: int) -> None:
    with pytest.raises(InputError, match="visual_tokens"):
        assumed_visual_layout(RULES[name], features)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("672x672", ImageSize(672, 672)),
        ("640X480", ImageSize(640, 480)),
        ("640×480", ImageSize(640, 480)),
        (" 640 x 480 ", ImageSize(640, 480)),
        ("1x100000", ImageSize(1, 100_000)),
    ],
)
def test_image_sizes_that_are_read(text: str, size: ImageSize) -> None:
    assert parse_image(text) == size


BAD_SIDES = [
    "0",
    "-1",
    "1.5",
    "nan",
    "inf",
    "1e3",
    "100001",
    "9" * 400,
    "６４０",
    "٣",
    "+5",
    "1_0",
    "",
]


@pytest.mark.parametrize("side", BAD_SIDES)
def test_bad_sides_are_refused(side: str) -> None:
    for text in (f"{side}x480", f"640x{side}"):
        with pytest.raises(InputError, match="WIDTHxHEIGHT in pixels") as caught:
            parse_image(text)
        assert caught.value.field == "image"
        assert caught.value.value == text
        with pytest.raises(InputError, match="WIDTHxHEIGHTxFRAMES"):
            parse_video(f"{text}x8")


@pytest.mark.parametrize(
    "text", ["640", "640x480x3", "640*480", "640,480", "x", "a cat", "640x480;"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="WIDTHxHEIGHT in pixels"):
        parse_image(text)


@pytest.mark.parametrize("text", ["640x480", "640x480x0", "640x480x1000001", "640x480x1.5"])
def test_bad_videos_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="video"):
        parse_video(text)


def test_video_sizes_are_read() -> None:
    assert parse_video("640x480×16") == VideoSize(640, 480, 16)


@pytest.mark.parametrize("sides", [(0, 480), (640.0, 480), (True, 480), (640, -3), ("640", 480)])
def test_sizes_made_in_code_are_checked_too(sides: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="image"):
        ImageSize(*sides)
    with pytest.raises(InputError, match="video"):
        VideoSize(*sides, 8)


@pytest.mark.parametrize("size", [ImageSize(2001, 10), ImageSize(10, 2001)])
def test_qwen_refuses_long_images(size: ImageSize) -> None:
    rule = RULES["qwen2-vl-1mp"]
    with pytest.raises(InputError, match="aspect ratio of at most 200") as caught:
        visual_layout(rule, [size])
    assert caught.value.field == "image"
    with pytest.raises(InputError, match="aspect ratio of at most 200") as caught:
        visual_layout(rule, [], [VideoSize(size.width, size.height, 2)])
    assert caught.value.field == "video"
    assert visual_layout(rule, [ImageSize(2000, 10)]).features > 0


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        (AnyresRule, {"pinpoints": [[336, 700]]}, "not a multiple of tile_size 336"),
        (AnyresRule, {"pinpoints": []}, "pinpoints"),
        (TileRule, {"merge": 3}, "merge 3 does not divide evenly"),
        (TileRule, {"min_tiles": 13}, "exceeds max_tiles"),
        (SmartResizeRule, {"min_pixels": 2_000_000}, "exceeds max_pixels"),
    ],
)
def test_rules_that_cannot_be(
    rule: type[AnyresRule | TileRule | SmartResizeRule], change: dict[str, object], message: str
) -> None:
    good = next(entry for entry in RULES.values() if isinstance(entry, rule))
    with pytest.raises(SpecError, match=message):
        rule.parse({**good.model_dump(), **change}, "test")
