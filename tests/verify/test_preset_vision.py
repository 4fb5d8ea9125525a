"""Tower and projector of every preset, image by image, against transformers' modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import estimate, list_models, load_model
from costmodel.catalog.models_io import load_preset
from costmodel.vision_tokens import ImageSize, VideoSize, VisualLayout, image_layouts

if TYPE_CHECKING:
    from tests.verify.conftest import Reference, Truth

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify


@dataclass(frozen=True)
class Batch:
    """`size` equal requests with these images or videos each."""

    size: int
    images: tuple[ImageSize, ...] = ()
    videos: tuple[VideoSize, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, (*self.images, *self.videos))) + f"-batch{self.size}"

    def layouts(self, parts: Reference) -> list[VisualLayout]:
        """Return what each image or video becomes, of all requests in order."""
        rule = parts.spec.image_rule
        assert rule is not None
        return image_layouts(rule, self.images, self.videos) * self.size


def square(count: int, parts: Reference) -> Any:
    """Make `count` tiles of the tower's own size."""
    side = parts.vision.config.image_size
    side = side[0] if isinstance(side, list | tuple) else side
    return torch.empty(count, 3, side, side, device="meta")


def run_tiles(parts: Reference, batch: Batch) -> Any:
    """LLaVA-1.5 and InternVL, whose frames of a video are tiles like any other."""
    tiles = sum(layout.tower_sequences for layout in batch.layouts(parts))
    return parts.whole.model.get_image_features(square(tiles, parts)).pooler_output


def run_anyres(parts: Reference, batch: Batch) -> Any:
    """LLaVA-NeXT and OneVision; missing tiles are padded to those of the largest image."""
    found = batch.layouts(parts)
    if batch.videos:
        (frames,) = {layout.tower_sequences for layout in found}
        pixels = square(len(found) * frames, parts).unflatten(0, (len(found), frames))
        return parts.whole.model.get_video_features(pixels).pooler_output
    tiles = max(layout.tower_sequences for layout in found)
    several = {}
    if parts.spec.family == "llava_onevision":
        several = {"batch_num_images": [len(batch.images)] * batch.size}
    return parts.whole.model.get_image_features(
        square(len(found) * tiles, parts).unflatten(0, (len(found), tiles)),
        image_sizes=torch.tensor([(i.height, i.width) for i in batch.images] * batch.size),
        **several,
    ).pooler_output


def run_native(parts: Reference, batch: Batch) -> Any:
    """Qwen2-VL and Qwen2.5-VL."""
    segments = [segment for layout in batch.layouts(parts) for segment in layout.segments]
    # On the CPU, since windows and lengths of sequences are read from it.
    grid = torch.tensor([(s.count, s.height_patches, s.width_patches) for s in segments])
    patches = int(grid.prod(-1).sum())
    config = parts.vision.config
    width = config.in_channels * config.temporal_patch_size * config.patch_size**2
    model = parts.whole.model
    run = model.get_video_features if batch.videos else model.get_image_features
    return run(
        torch.empty(patches, width, device="meta"),
        grid,
        position_ids=torch.empty(patches, 2, dtype=torch.long, device="meta"),
    ).pooler_output


def run_split(parts: Reference, batch: Batch) -> Any:
    """Idefics3 and SmolVLM, in the steps of the tower's ``forward``.

    Without data neither empty tiles can be dropped nor a mask be judged, as
    ``get_image_features`` and the tower do; `test_split_forward_with_data` runs both.
    """
    tower = parts.vision
    pixels = square(sum(layout.tower_sequences for layout in batch.layouts(parts)), parts)
    grid = pixels.shape[-1] // tower.patch_size
    mask = torch.ones(len(pixels), grid, grid, dtype=torch.bool, device="meta")
    hidden = tower.embeddings(pixels, mask)
    hidden = tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
    return parts.projector(tower.post_layernorm(hidden))


def run_vila(parts: Reference, batch: Batch) -> Any:
    """VILA reads the tower's output before the last layer, as LLaVA does."""
    pixels = square(len(batch.layouts(parts)), parts)
    return parts.projector(parts.vision(pixels, output_hidden_states=True).hidden_states[-2])


RUNS: dict[str, Callable[[Reference, Batch], Any]] = {
    "llava": run_tiles,
    "internvl": run_tiles,
    "llava_next": run_anyres,
    "llava_onevision": run_anyres,
    "qwen2_vl": run_native,
    "qwen2_5_vl": run_native,
    "idefics3": run_split,
    "smolvlm": run_split,
    "vila": run_vila,
}

IMAGES: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {
    "fixed": (((336, 336),), ((640, 480), (480, 640))),
    "tile": (((448, 448),), ((1920, 1080),), ((640, 480), (300, 900), (448, 448))),
    "anyres": (((672, 672),), ((640, 480),), ((1000, 300), (336, 1008))),
    "anyres_max": (((384, 384),), ((2304, 2304),), ((700, 1900),), ((700, 1900), (64, 64))),
    "split": (((300, 200),), ((672, 672),), ((1920, 1080), (400, 1500))),
    # 16x16, 18x18, 34x46, 2x16, 10x40 and 24x72 patches: whole windows, windows cut at one
    # edge and at both, an image thinner than a window, several images of two shapes.
    "smart_resize": (
        ((224, 224),),
        ((252, 252),),
        ((644, 476),),
        ((224, 28),),
        ((560, 140), (336, 1008), (560, 140)),
    ),
}
"""Images of one request [pixels], by the model's image rule."""

VIDEOS = {
    "tile": (640, 480, 5),
    "anyres_max": (640, 480, 7),
    "smart_resize": (420, 364, 9),
}
"""A video of width, height [pixels] and frames; other rules take none."""


def cases() -> list[Any]:
    found = []
    for name in list_models():
        rule = load_model(name).image_rule
        if rule is None:
            continue
        batches = [
            Batch(size, tuple(ImageSize(*sides) for sides in images))
            for images in IMAGES[rule.rule]
            for size in ((1, 2, 3) if images is IMAGES[rule.rule][0] else (1,))
        ]
        if rule.rule in VIDEOS:
            video = VideoSize(*VIDEOS[rule.rule])
            batches += [Batch(1, videos=(video,)), Batch(2, videos=(video,))]
        found += [pytest.param(name, batch, id=f"{name}-{batch}") for batch in batches]
    return found


def count(truth: Truth, parts: Reference, batch: Batch) -> tuple[int, int, int]:
    """Return FLOPs of tower and projector, and the rows of features that come out."""
    # SigLIP's pooling head runs in transformers, but no language model reads its result.
    unread = [parts.vision.head] if hasattr(parts.vision, "head") else []
    features, (total, projector, *rest) = truth.count_flops(
        lambda: RUNS[parts.spec.family](parts, batch), parts.projector, *unread
    )
    assert projector > 0
    assert all(rest)
    rows = sum(item.shape[:-1].numel() for item in features)
    return total - projector - sum(rest), projector, rows


@pytest.mark.parametrize(("name", "batch"), cases())
def test_tower_and_projector(truth: Truth, name: str, batch: Batch) -> None:
    spec = load_model(name)
    tower, projector, rows = count(truth, truth.reference(name), batch)
    layout = truth.layout(spec, batch.images, batch.videos)
    assert layout.features * batch.size == rows
    for style in truth.styles:
        made = truth.program(spec, batch.images, batch.videos, batch=batch.size, **style)
        found = truth.our_flops(made)
        assert (found["vision_encoder"], found["projector"]) == (tower, projector)


@pytest.mark.parametrize(
    ("name", "key", "layers"),
    [
        ("llava-1.5-7b", "num_hidden_layers", 23),
        ("qwen2-vl-7b", "depth", 5),
        ("qwen2.5-vl-7b", "depth", 7),
        ("qwen2.5-vl-7b", "depth", 20),
    ],
)
def test_fewer_layers_executed(truth: Truth, name: str, key: str, layers: int) -> None:
    """``vision_layers`` leaves out the last ones, as a tower built without them does."""
    config = load_preset(name).config
    shorter = {**config, "vision_config": {**config["vision_config"], key: layers}}
    batch = Batch(2, (ImageSize(644, 476),))
    spec = load_model(name)
    tower, projector, _ = count(truth, truth.parts_of(spec, truth.build(shorter)), batch)
    made = truth.program(spec, batch.images, batch=2, vision_layers=layers)
    found = truth.our_flops(made)
    assert (found["vision_encoder"], found["projector"]) == (tower, projector)
    # The other layers stay in memory.
    expected = truth.reference(name).parameters["vision_encoder"]
    assert truth.our_parameters(made)["vision_encoder"] == expected


@pytest.mark.parametrize("name", ["idefics3-8b", "smolvlm-2b"])
def test_split_forward_with_data(truth: Truth, name: str) -> None:
    """The whole ``get_image_features`` at full width; two layers keep it short on a CPU."""
    preset = load_preset(name)
    config = {**preset.config}
    config["vision_config"] = {**config["vision_config"], "num_hidden_layers": 2}
    spec = truth.read(config, {**(preset.preprocessor or {}), "do_image_splitting": False})
    parts = truth.parts_of(spec, truth.build(config))
    batch = Batch(1, (ImageSize(640, 480), ImageSize(200, 300)))
    for module in (parts.vision, parts.projector):
        module.to_empty(device="cpu")
    side = parts.vision.config.image_size
    features, (total, projector) = truth.count_flops(
        lambda: parts.whole.model.get_image_features(torch.rand(1, 2, 3, side, side)).pooler_output,
        parts.projector,
    )
    made = truth.program(spec, batch.images)
    found = truth.our_flops(made)
    assert (found["vision_encoder"], found["projector"]) == (total - projector, projector)
    assert features[0].shape[0] == truth.layout(spec, batch.images).features


@pytest.mark.parametrize("name", [name for name in list_models() if load_model(name).vision])
def test_estimate_of_default_image(truth: Truth, name: str) -> None:
    """What users see: floats, exact below 2**53."""
    parts, sides = truth.reference(name), load_model(name).default_image
    assert sides is not None
    tower, projector, rows = count(truth, parts, Batch(1, (ImageSize(*sides),)))
    result = estimate(name, "a100-80gb-sxm", text_tokens=64)
    assert result.flops["vision_encoder"] == tower
    assert result.flops["projector"] == projector
    assert result.tokens["visual_features"] == rows
    assert result.params["vision_encoder"] == parts.parameters["vision_encoder"]
    assert result.params["projector"] == parts.parameters["projector"]
