"""Published token counts, canvases, tiles and grids."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from costmodel.specs.vision_rules import (
    AnyresMaxRule,
    AnyresRule,
    ImageRule,
    SmartResizeRule,
    SplitRule,
    TileRule,
)
from costmodel.vision_tokens import ImageSize, VideoSize, visual_layout
from costmodel.vision_tokens.canvas import best_canvas
from costmodel.vision_tokens.smart_resize import resized
from costmodel.vision_tokens.split import split_grid
from costmodel.vision_tokens.tile import tile_grid

DATA = Path(__file__).parents[1] / "data"
RULES: dict[str, ImageRule] = TypeAdapter(dict[str, ImageRule]).validate_python(
    json.loads((DATA / "image_rules.json").read_text("utf-8"))
)


def read(name: str) -> list[dict[str, str]]:
    lines = (DATA / name).read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def size_of(row: dict[str, str]) -> ImageSize:
    return ImageSize(int(row["img_w"]), int(row["img_h"]))


def pair(text: str) -> tuple[int, int]:
    first, second = ast.literal_eval(text)
    return int(first), int(second)


VECTORS = read("image_token_vectors.csv")
TABLE = read("image_token_table.csv")
FAMILIES = [name for name in TABLE[0] if not name.startswith("img_")]


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: str(size_of(row)))
@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("llava_next_tokens(spatial_unpad)", "llava-next"),
        ("onevision_tokens(anyres_max_9)", "onevision"),
        ("qwen2vl_tokens(hf_default_max1280)", "qwen2-vl-1mp"),
        ("qwen2vl_tokens(max16384)", "qwen2-vl-12.8mp"),
        ("internvl_tokens(max12+thumb)", "internvl"),
    ],
)
def test_published_counts(row: dict[str, str], column: str, name: str) -> None:
    assert visual_layout(RULES[name], [size_of(row)]).features == int(row[column])


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: str(size_of(row)))
@pytest.mark.parametrize(
    ("canvas_column", "tiles_column", "name"),
    [
        ("llava_next_canvas", "llava_next_tiles", "llava-next"),
        ("ov_canvas", "ov_tiles", "onevision"),
    ],
)
def test_published_canvas_and_tiles(
    row: dict[str, str], canvas_column: str, tiles_column: str, name: str
) -> None:
    rule, image = RULES[name], size_of(row)
    assert isinstance(rule, AnyresRule | AnyresMaxRule)
    height, width = best_canvas(image, rule.pinpoints)
    found = (width, height)
    if image.width == image.height:
        # A square image fits a canvas and the same canvas turned equally well.
        assert sorted(found) == sorted(pair(row[canvas_column]))
    else:
        assert found == pair(row[canvas_column])
    assert visual_layout(rule, [image]).tower_sequences == int(row[tiles_column])


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: str(size_of(row)))
def test_published_resize_and_grid(row: dict[str, str]) -> None:
    image = size_of(row)
    qwen, internvl = RULES["qwen2-vl-1mp"], RULES["internvl"]
    assert isinstance(qwen, SmartResizeRule)
    assert isinstance(internvl, TileRule)
    width, height = resized(image.width, image.height, 28, qwen.min_pixels, qwen.max_pixels)
    assert (height, width) == pair(row["qwen2vl_resized_hw"])
    assert tile_grid(internvl, image) == pair(row["internvl_grid_wh"])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(size_of(row)))
@pytest.mark.parametrize("name", FAMILIES)
def test_processor_table(row: dict[str, str], name: str) -> None:
    assert visual_layout(RULES[name], [size_of(row)]).features == int(row[name])


@pytest.mark.parametrize(
    ("name", "features", "projected"),
    [
        ("llava-1.5", 576, 576),  # Liu et al., arXiv:2310.03744
        ("vila-1.5", 196, 196),  # Lin et al., arXiv:2312.07533: 27 x 27 padded to 28 x 28
        ("nvila-lite", 121, 121),  # Liu et al., arXiv:2412.04468: 32 x 32 padded to 33 x 33
        ("llava-next", 2928, 2880),  # 2880 published, without the 48 newline tokens
        ("idefics3", 17 * 169, 17 * 169),
        ("qwen2-vl-1mp", 576, 576),
    ],
)
def test_672_square(name: str, features: int, projected: int) -> None:
    found = visual_layout(RULES[name], [ImageSize(672, 672)])
    assert (found.features, found.projected) == (features, projected)


def test_class_token_is_kept() -> None:
    full: ImageRule = TypeAdapter(ImageRule).validate_python(
        {**RULES["llava-1.5"].model_dump(), "class_token": True}
    )
    assert visual_layout(full, [ImageSize(672, 672)]).features == 577
    next_full: ImageRule = TypeAdapter(ImageRule).validate_python(
        {**RULES["llava-next"].model_dump(), "class_token": True}
    )
    found = visual_layout(next_full, [ImageSize(672, 672)])
    assert (found.features, found.projected) == (2929, 5 * 577)


@pytest.mark.parametrize(
    ("name", "markers"),
    [("llava-1.5", 0), ("llava-next", 0), ("onevision", 0), ("qwen2-vl-1mp", 2), ("internvl", 2)],
)
def test_markers_of_one_image(name: str, markers: int) -> None:
    assert visual_layout(RULES[name], [ImageSize(640, 480)]).markers == markers


def test_split_markers_match_a_real_tokenizer() -> None:
    # SmolVLM2's tokenizer.json gives 333 ids for a 2 x 2 split of 64 tokens per tile
    # (fixture tokenizer_smolvlm2/expected.json of github.com/Dicklesworthstone/franken_ocr).
    rule = RULES["smolvlm-256m"].model_copy(update={"longest_edge": 1024})
    assert isinstance(rule, SplitRule)
    assert split_grid(rule, ImageSize(700, 700)) == (2, 2)
    assert visual_layout(rule, [ImageSize(700, 700)]).tokens == 333


def test_split_markers_where_tags_are_spelled_out() -> None:
    # Llama-3's tokenizer: <|row|_|1|_col|_|1|> and <|global|-img|>.
    found = visual_layout(RULES["idefics3"], [ImageSize(640, 480)])
    assert found.markers == 3 * 4 * (1 + 8) + 3 + (1 + 4 + 1)


def test_no_split_is_one_tile() -> None:
    rule = RULES["idefics3"].model_copy(update={"split": False})
    found = visual_layout(rule, [ImageSize(1920, 1080)])
    assert (found.features, found.markers) == (169, 1 + 4 + 1)


@pytest.mark.parametrize(
    ("name", "video", "features", "sequences", "markers"),
    [
        # 14 x 14 per frame and a newline: arXiv:2408.03326, section 3.2, and transformers.
        ("onevision", VideoSize(640, 480, 32), 32 * 196 + 1, 32, 0),
        ("qwen2-vl-1mp", VideoSize(640, 480, 16), 8 * 17 * 23, 8, 2),
        ("qwen2-vl-1mp", VideoSize(640, 480, 15), 8 * 17 * 23, 8, 2),
        ("qwen2-vl-1mp", VideoSize(640, 480, 1), 17 * 23, 1, 2),
        # A frame has at most 768 tokens, an image 1280.
        ("qwen2-vl-1mp", VideoSize(1920, 1080, 2), 36 * 20, 1, 2),
        ("internvl", VideoSize(1920, 1080, 8), 8 * 256, 8, 8 * (2 + 3 + 1) + 7),
    ],
)
def test_videos(name: str, video: VideoSize, features: int, sequences: int, markers: int) -> None:
    found = visual_layout(RULES[name], [], [video])
    assert (found.features, found.tower_sequences, found.markers) == (features, sequences, markers)


def test_long_video_shrinks_its_frames_where_the_total_is_bounded() -> None:
    rule: Any = RULES["qwen2-vl-1mp"]
    bounded = rule.model_copy(update={"max_video_tokens": 128_000})
    short, long = VideoSize(1920, 1080, 8), VideoSize(1920, 1080, 768)
    assert visual_layout(bounded, [], [short]) == visual_layout(rule, [], [short])
    total = visual_layout(bounded, [], [long]).features
    assert total <= 0.9 * 128_000 < visual_layout(rule, [], [long]).features
