"""Token counts of transformers' own processors, on real (blank) images and without weights."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import math
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from costmodel.specs.vision_rules import AnyresMaxRule, AnyresRule, ImageRule, SplitRule
from costmodel.vision_tokens import ImageSize, VideoSize, visual_layout
from costmodel.vision_tokens.split import split_grid

pytest.importorskip("torch", reason="needs the extra 'verify'")
transformers = pytest.importorskip("transformers", reason="needs the extra 'verify'")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra 'verify'")
Image = pytest.importorskip("PIL.Image", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify


def hf(module: str, name: str) -> Any:
    """Take a class from the module of one model, past transformers' fallback to torchvision."""
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)


def without_video(module: str, name: str) -> Any:
    """Take a processor class that accepts None as its video processor.

    transformers' video processors need torchvision; the counts of images, and those of
    videos computed here, use none of it.
    """
    kind = hf(module, name)
    return type(name, (kind,), {"check_argument_for_proper_class": lambda *_: None})


DATA = Path(__file__).parents[1] / "data"
RULES: dict[str, ImageRule] = TypeAdapter(dict[str, ImageRule]).validate_python(
    json.loads((DATA / "image_rules.json").read_text("utf-8"))
)

GotOcr2ImageProcessorPil = hf("got_ocr2.image_processing_pil_got_ocr2", "GotOcr2ImageProcessorPil")
Idefics3ImageProcessorPil = hf(
    "idefics3.image_processing_pil_idefics3", "Idefics3ImageProcessorPil"
)
Idefics3Processor = hf("idefics3.processing_idefics3", "Idefics3Processor")
InternVLProcessor = without_video("internvl.processing_internvl", "InternVLProcessor")
LlavaProcessor = hf("llava.processing_llava", "LlavaProcessor")
LlavaNextImageProcessorPil = hf(
    "llava_next.image_processing_pil_llava_next", "LlavaNextImageProcessorPil"
)
LlavaNextProcessor = hf("llava_next.processing_llava_next", "LlavaNextProcessor")
LlavaOnevisionImageProcessorPil = hf(
    "llava_onevision.image_processing_pil_llava_onevision", "LlavaOnevisionImageProcessorPil"
)
LlavaOnevisionProcessor = without_video(
    "llava_onevision.processing_llava_onevision", "LlavaOnevisionProcessor"
)
Qwen2_5_VLProcessor = without_video("qwen2_5_vl.processing_qwen2_5_vl", "Qwen2_5_VLProcessor")
Qwen2VLProcessor = without_video("qwen2_vl.processing_qwen2_vl", "Qwen2VLProcessor")
Qwen2VLImageProcessorPil = hf("qwen2_vl.image_processing_pil_qwen2_vl", "Qwen2VLImageProcessorPil")
SmolVLMImageProcessorPil = hf("smolvlm.image_processing_pil_smolvlm", "SmolVLMImageProcessorPil")
get_image_prompt_string = hf("smolvlm.processing_smolvlm", "get_image_prompt_string")
CLIPImageProcessorPil = hf("clip.image_processing_pil_clip", "CLIPImageProcessorPil")

EDGES = [
    (1, 1), (13, 13), (14, 14), (42, 42), (56, 56), (57, 55), (336, 336), (337, 336), (364, 364),
    (365, 364), (384, 384), (448, 448), (449, 448), (640, 480), (480, 640), (672, 672), (897, 896),
    (1000, 500), (500, 1000), (1456, 1092), (1920, 1080), (1080, 1920), (2000, 100), (100, 2000),
    (1999, 11),
]  # fmt: skip


def sizes(count: int, seed: int, longest: int) -> list[ImageSize]:
    """Log-uniform sizes at most 150 times as long as wide, after the edge cases."""
    draw = random.Random(seed)
    found = [ImageSize(*edge) for edge in EDGES]
    while len(found) < count:
        width, height = (round(16 * (longest / 16) ** draw.random()) for _ in range(2))
        if max(width, height) <= 150 * min(width, height):
            found.append(ImageSize(width, height))
    return found


REAL = sizes(45, seed=1, longest=1600)
"""Sizes that go through the processors as pixels."""

MANY = sizes(1500, seed=2, longest=9000)
"""Sizes for the processors' own formulas, which need no pixels."""


def blank(size: ImageSize) -> Any:
    return Image.new("RGB", (size.width, size.height))


def pairs(many: list[ImageSize]) -> list[tuple[int, int]]:
    return [(size.height, size.width) for size in many]


def ours(name: str, size: ImageSize) -> int:
    return visual_layout(RULES[name], [size]).features


def tokenizer(*special: str, pieces: str = "", **attributes: str) -> Any:
    r"""Make a tokenizer in which `special`, ``\n`` and ``\n\n`` are one token each.

    Everything else is cut into the matches of `pieces`, one token each.
    """
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    pattern = tokenizers.Regex(r"\n\n|\n" + (f"|{pieces}" if pieces else ""))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, "isolated")
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")
    made.add_special_tokens({"additional_special_tokens": [*special, *attributes.values()]})
    for name, token in attributes.items():
        setattr(made, name, token)
        setattr(made, f"{name}_id", made.convert_tokens_to_ids(token))
    return made


def prompt_tokens(processor: Any, image: Any) -> int:
    """Tokens of a prompt that consists of one image, as the processor writes and encodes it."""
    with warnings.catch_warnings():
        # A blank 1 x 1 or 3-pixel image looks like channels to transformers; it says so and
        # goes on, since PIL images carry their channel dimension.
        warnings.filterwarnings("ignore", message=".*channel dimension.*")
        found = processor(text="<image>", images=image)
    ids = found["input_ids"]
    return len(ids[0]) if isinstance(ids[0], list) else len(ids)


def test_fixed_llava() -> None:
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    processor = LlavaProcessor(
        images,
        tokenizer("<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    for size in REAL[5:]:
        if max(size.width, size.height) < 30 * min(size.width, size.height):
            assert prompt_tokens(processor, blank(size)) == ours("llava-1.5", size)
    full = RULES["llava-1.5"].model_copy(update={"class_token": True})
    processor.vision_feature_select_strategy = "full"
    counts = processor._get_num_multimodal_tokens(image_sizes=[(480, 640)]).num_image_tokens
    assert counts == [visual_layout(full, [ImageSize(640, 480)]).features] == [577]


@pytest.fixture(scope="module")
def next_processor() -> Any:
    rule = RULES["llava-next"]
    assert isinstance(rule, AnyresRule)
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_grid_pinpoints=[list(point) for point in rule.pinpoints],
    )
    return LlavaNextProcessor(
        images,
        tokenizer("<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


@pytest.mark.parametrize("size", REAL, ids=str)
def test_next_pixels(next_processor: Any, size: ImageSize) -> None:
    found = visual_layout(RULES["llava-next"], [size])
    image = blank(size)
    tiles = next_processor.image_processor(images=image)["pixel_values"][0]
    assert len(tiles) == found.tower_sequences
    assert prompt_tokens(next_processor, image) == found.tokens


def test_next_formula(next_processor: Any) -> None:
    counts = next_processor._get_num_multimodal_tokens(image_sizes=pairs(MANY)).num_image_tokens
    assert counts == [ours("llava-next", size) for size in MANY]


def test_next_full_strategy_keeps_one_class_token(next_processor: Any) -> None:
    rule = RULES["llava-next"].model_copy(update={"class_token": True})
    full = LlavaNextProcessor(
        next_processor.image_processor,
        next_processor.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
    )
    counts = full._get_num_multimodal_tokens(image_sizes=pairs(MANY[:100])).num_image_tokens
    assert counts == [visual_layout(rule, [size]).features for size in MANY[:100]]


@pytest.fixture(scope="module")
def onevision_processor() -> Any:
    rule = RULES["onevision"]
    assert isinstance(rule, AnyresMaxRule)
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 384, "width": 384},
        image_grid_pinpoints=[list(point) for point in rule.pinpoints],
    )
    return LlavaOnevisionProcessor(
        images,
        tokenizer("<image>", "<video>"),
        num_image_tokens=729,
        vision_feature_select_strategy="full",
    )


@pytest.mark.parametrize("size", REAL, ids=str)
def test_onevision_pixels(onevision_processor: Any, size: ImageSize) -> None:
    found = visual_layout(RULES["onevision"], [size])
    images = onevision_processor.image_processor(images=blank(size))
    assert len(images["pixel_values"][0]) == found.tower_sequences
    text = onevision_processor.replace_image_token(images, 0)
    assert text.count("<image>") == found.tokens


def test_onevision_formula(onevision_processor: Any) -> None:
    counts = onevision_processor._get_num_multimodal_tokens(
        image_sizes=pairs(MANY)
    ).num_image_tokens
    assert counts == [ours("onevision", size) for size in MANY]


def test_onevision_several_images_of_one_prompt(onevision_processor: Any) -> None:
    several = REAL[10:14]
    found = onevision_processor.image_processor(images=[[blank(size) for size in several]])
    expected = visual_layout(RULES["onevision"], several)
    replaced = [onevision_processor.replace_image_token(found, i) for i in range(len(several))]
    assert sum(text.count("<image>") for text in replaced) == expected.features
    assert sum(len(tiles) for tiles in found["pixel_values"]) == expected.tower_sequences


@pytest.mark.parametrize("frames", [1, 2, 7, 32])
def test_onevision_video(onevision_processor: Any, frames: int) -> None:
    expected = visual_layout(RULES["onevision"], [], [VideoSize(640, 480, frames)])
    counts = onevision_processor._get_num_multimodal_tokens(video_sizes=[(frames, 480, 640)])
    assert counts.num_video_tokens == [expected.features]


def qwen_processor(kind: Any, longest: int) -> Any:
    size = {"shortest_edge": 3136, "longest_edge": longest}
    return kind(Qwen2VLImageProcessorPil(size=size), tokenizer("<|image_pad|>"))


@pytest.mark.parametrize(
    ("name", "longest"), [("qwen2-vl-1mp", 1_003_520), ("qwen2-vl-12.8mp", 12_845_056)]
)
@pytest.mark.parametrize("kind", [Qwen2VLProcessor, Qwen2_5_VLProcessor])
def test_qwen_pixels(kind: Any, name: str, longest: int) -> None:
    processor = qwen_processor(kind, longest)
    for size in REAL:
        found = visual_layout(RULES[name], [size])
        images = processor.image_processor(images=blank(size))
        (segment,) = found.segments
        steps, rows, columns = (int(n) for n in images["image_grid_thw"][0])
        assert (steps, rows, columns) == (1, segment.height_patches, segment.width_patches)
        assert len(images["pixel_values"]) == segment.patches
        text = processor.replace_image_token(images, 0)
        assert text.count("<|image_pad|>") == found.features


@pytest.mark.parametrize(
    ("name", "longest"), [("qwen2-vl-1mp", 1_003_520), ("qwen2-vl-12.8mp", 12_845_056)]
)
@pytest.mark.parametrize("kind", [Qwen2VLProcessor, Qwen2_5_VLProcessor])
def test_qwen_formula(kind: Any, name: str, longest: int) -> None:
    processor = qwen_processor(kind, longest)
    counts = processor._get_num_multimodal_tokens(image_sizes=pairs(MANY)).num_image_tokens
    assert counts == [ours(name, size) for size in MANY]


@pytest.mark.parametrize(
    ("name", "longest"), [("qwen2-vl-1mp", 1_003_520), ("qwen2-vl-12.8mp", 12_845_056)]
)
@pytest.mark.parametrize("kind", [Qwen2VLProcessor, Qwen2_5_VLProcessor])
def test_qwen_limit(kind: Any, name: str, longest: int) -> None:
    processor = qwen_processor(kind, longest)
    with pytest.raises(ValueError, match="aspect ratio must be smaller than 200"):
        processor.image_processor.get_number_of_image_patches(10, 2001)
    assert processor.image_processor.get_number_of_image_patches(10, 2000) > 0


def qwen_video_patches() -> Any:
    """Compile the video processor's formula and frame bounds; its module needs torchvision."""
    name = "transformers.models.qwen2_vl.video_processing_qwen2_vl"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    (kind,) = (n for n in tree.body if getattr(n, "name", "") == "Qwen2VLVideoProcessor")
    assert isinstance(kind, ast.ClassDef)
    wanted = [n for n in tree.body if getattr(n, "name", "") == "smart_resize"]
    wanted += [n for n in kind.body if getattr(n, "name", "") == "get_num_of_video_patches"]
    wanted += [n for n in kind.body if isinstance(n, ast.Assign) and "size" in ast.unparse(n)]
    space: dict[str, Any] = {"math": math}
    exec(compile(ast.Module(wanted, []), spec.origin, "exec"), space)
    settings = {name: space[name] for name in ("size", "patch_size", "temporal_patch_size")}
    settings |= {"merge_size": space["merge_size"]}
    formula = space["get_num_of_video_patches"]
    return lambda *video: formula(None, *video, settings)


def test_qwen_video() -> None:
    patches = qwen_video_patches()
    draw = random.Random(3)
    for size in MANY[:500]:
        frames = draw.randint(1, 300)
        found = visual_layout(
            RULES["qwen2-vl-1mp"], [], [VideoSize(size.width, size.height, frames)]
        )
        assert patches(frames, size.height, size.width) == found.features * 4


@pytest.fixture(scope="module")
def internvl_processor() -> Any:
    images = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12
    )
    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<image>",
        video_token="<video>",
        # Qwen2's tokenizer: digits apart, the blank before <img> alone.
        pieces=r"Frame|\d|:| ",
    )
    return InternVLProcessor(images, words, image_seq_length=256)


@pytest.mark.parametrize("size", REAL, ids=str)
def test_internvl_pixels(internvl_processor: Any, size: ImageSize) -> None:
    found = visual_layout(RULES["internvl"], [size])
    images = internvl_processor.image_processor(images=blank(size))
    assert images["num_patches"] == [found.tower_sequences]
    text = internvl_processor.replace_image_token(images, 0)
    assert len(internvl_processor.tokenizer(text)["input_ids"]) == found.tokens


def test_internvl_formula(internvl_processor: Any) -> None:
    counts = internvl_processor._get_num_multimodal_tokens(image_sizes=pairs(MANY)).num_image_tokens
    assert counts == [visual_layout(RULES["internvl"], [size]).tokens for size in MANY]


@pytest.mark.parametrize("maximum", [1, 2, 6, 24, 40])
def test_internvl_other_maxima(internvl_processor: Any, maximum: int) -> None:
    rule = RULES["internvl"].model_copy(update={"max_tiles": maximum})
    for size in MANY[:500]:
        tiles = internvl_processor.image_processor.get_number_of_image_patches(
            size.height, size.width, {"max_patches": maximum}
        )
        assert tiles == visual_layout(rule, [size]).tower_sequences


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 32, 128])
def test_internvl_video(internvl_processor: Any, frames: int) -> None:
    import numpy as np

    found = visual_layout(RULES["internvl"], [], [VideoSize(640, 480, frames)])
    text = internvl_processor.replace_video_token(
        {"pixel_values_videos": [np.zeros((frames, 1))]}, video_idx=0
    )
    assert text.count("<image>") == found.features
    assert len(internvl_processor.tokenizer(text)["input_ids"]) == found.tokens


TAGS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


@pytest.fixture(scope="module")
def idefics3_processor() -> Any:
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 1456}, max_image_size={"longest_edge": 364}
    )
    # Llama-3's tokenizer spells the tags out; these are its pieces.
    words = tokenizer(
        "<image>", "<fake_token_around_image>", pieces=r"<|row|_col|_|\d|>|global|-img"
    )
    return Idefics3Processor(images, words, image_seq_len=169)


@pytest.mark.parametrize("size", REAL, ids=str)
def test_idefics3_pixels(idefics3_processor: Any, size: ImageSize) -> None:
    found = visual_layout(RULES["idefics3"], [size])
    image = blank(size)
    tiles = idefics3_processor.image_processor(images=image, return_row_col_info=True)
    rule = RULES["idefics3"]
    assert isinstance(rule, SplitRule)
    assert split_grid(rule, size) == (tiles["rows"][0][0], tiles["cols"][0][0])
    assert len(tiles["pixel_values"][0]) == found.tower_sequences
    assert prompt_tokens(idefics3_processor, image) == found.tokens


def test_idefics3_formula(idefics3_processor: Any) -> None:
    # transformers' formula takes a tag for one token.
    one = {"tile_tag_tokens": 1, "global_tag_tokens": 1}
    rule = RULES["idefics3"].model_copy(update=one)
    counts = idefics3_processor._get_num_multimodal_tokens(image_sizes=pairs(MANY)).num_image_tokens
    assert counts == [visual_layout(rule, [size]).tokens for size in MANY]


@pytest.mark.parametrize("longest", [364, 728, 1820, 4004])
def test_idefics3_other_longest_edges(idefics3_processor: Any, longest: int) -> None:
    rule = RULES["idefics3"].model_copy(update={"longest_edge": longest})
    kwargs = {"size": {"longest_edge": longest}}
    for size in MANY[:500]:
        assert isinstance(rule, SplitRule)
        _, rows, columns = idefics3_processor.image_processor.get_number_of_image_patches(
            size.height, size.width, kwargs
        )
        assert split_grid(rule, size) == (rows, columns)


@pytest.mark.parametrize("longest", [500, 1000, 1400, 4500])
def test_idefics3_edges_that_are_no_multiple_of_the_tile(longest: int) -> None:
    rule = RULES["idefics3"].model_copy(update={"longest_edge": longest})
    assert isinstance(rule, SplitRule)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": longest},
        max_image_size={"longest_edge": 364},
        do_rescale=False,
        do_normalize=False,
    )
    for size in REAL[14:24]:
        if max(size.width, size.height) < 30 * min(size.width, size.height):
            found = images(images=blank(size), return_row_col_info=True)
            assert split_grid(rule, size) == (found["rows"][0][0], found["cols"][0][0])


@pytest.mark.parametrize(("name", "tile"), [("smolvlm", 384), ("smolvlm-256m", 512)])
def test_smolvlm_pixels(name: str, tile: int) -> None:
    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 4 * tile},
        max_image_size={"longest_edge": tile},
        do_rescale=False,
        do_normalize=False,
    )
    words = tokenizer("<image>", "<fake>", "<global-img>", *TAGS)
    length = {"smolvlm": 81, "smolvlm-256m": 64}[name]
    for size in REAL:
        found = visual_layout(RULES[name], [size])
        cut = images(images=blank(size), return_row_col_info=True)
        assert len(cut["pixel_values"][0]) == found.tower_sequences
        text = get_image_prompt_string(
            cut["rows"][0][0], cut["cols"][0][0], length, "<fake>", "<image>", "<global-img>"
        )
        assert text.count("<image>") == found.features
        assert len(words(text)["input_ids"]) == found.tokens


@pytest.mark.parametrize(("name", "tile"), [("smolvlm", 384), ("smolvlm-256m", 512)])
def test_smolvlm_formula(name: str, tile: int) -> None:
    rule = RULES[name]
    assert isinstance(rule, SplitRule)
    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 4 * tile}, max_image_size={"longest_edge": tile}
    )
    for size in MANY:
        _, rows, columns = images.get_number_of_image_patches(size.height, size.width)
        assert split_grid(rule, size) == (rows, columns)
