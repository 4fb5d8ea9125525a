"""Products counted by torch in the runnable models against the cost model's formulas.

`FlopCounterMode` sees the products of fused attention kernels only on some devices; on the meta
device torch takes attention apart, and all are seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from costmodel import build_program, estimate, evaluate, load_model
from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TokenCount
from costmodel.reference.models.shapes import ModelShape, load_shape
from costmodel.specs.workload import Deployment, Workload
from costmodel.vision_tokens import image_layouts
from costmodel.vision_tokens.layout import combine

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from costmodel.reference.models.eager import build_eager  # noqa: E402
from costmodel.reference.models.fused import build_fused  # noqa: E402
from costmodel.reference.models.pruned import FastV, PyramidDrop  # noqa: E402

pytestmark = pytest.mark.verify

TINY, SMALL = load_shape("llava-tiny"), load_shape("llava-small")
BUILDS = (build_fused, build_eager)
GPU = "a100-80gb-sxm"


@pytest.fixture
def config(tmp_path: Path) -> Callable[[ModelShape], str]:
    """Write a shape as a configuration that the cost model reads."""

    def write(shape: ModelShape) -> str:
        vision, decoder = shape.vision, shape.decoder
        assert vision is not None
        written = {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "llama",
                "hidden_size": decoder.width,
                "intermediate_size": decoder.mlp_width,
                "num_hidden_layers": decoder.layers,
                "num_attention_heads": decoder.heads,
                "num_key_value_heads": decoder.kv_heads,
                "vocab_size": decoder.vocab,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": vision.width,
                "intermediate_size": vision.mlp_width,
                "num_hidden_layers": vision.layers,
                "num_attention_heads": vision.heads,
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
            },
        }
        path = tmp_path / f"{shape.name}.json"
        path.write_text(json.dumps(written))
        return str(path)

    return write


def counted(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def on_meta(shape: ModelShape, batch: int, text: int) -> tuple[Any, Any]:
    assert shape.vision is not None
    side = shape.vision.image_size
    pixels = torch.empty(batch, 3, side, side, device="meta")
    return pixels, torch.empty(batch, text, dtype=torch.long, device="meta")


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-1.5-13b"])
@pytest.mark.parametrize("build", BUILDS)
def test_full_size(build: Any, name: str) -> None:
    shape = load_shape(name)
    model = build(shape, device="meta", attention="eager")
    pixels, text = on_meta(shape, 2, 64)
    cache = model.new_cache(2, 641)
    runtime = "eager" if build is build_eager else "cuda-graph"
    said = estimate(name, GPU, text_tokens=64, batch=2, runtime=runtime)
    assert sum(p.numel() for p in model.parameters()) == said.params["total"]
    found = counted(lambda: model.encode(pixels))
    assert found == said.flops["vision_encoder"]
    features = model.encode(pixels)[0]
    assert counted(lambda: model.projector(features)) == said.flops["projector"]
    assert counted(lambda: model.prefill(pixels, text, cache)) == said.flops["total"]
    step = counted(lambda: model.decode_step(text[:, :1], cache))
    assert step == sum(row.flops for row in said.ops_decode if row.counted)


@pytest.mark.parametrize("shape", [TINY, SMALL], ids=lambda shape: shape.name)
@pytest.mark.parametrize("build", BUILDS)
def test_sizes_for_a_cpu(
    build: Any, shape: ModelShape, config: Callable[[ModelShape], str]
) -> None:
    """On the CPU, where only unfused attention is counted."""
    model = build(shape, attention="eager")
    side = shape.vision.image_size  # type: ignore[union-attr]
    said = estimate(config(shape), GPU, text_tokens=10)
    assert said.params["total"] == shape.parameters == sum(p.numel() for p in model.parameters())
    assert said.tokens["visual_in"] == shape.visual_tokens
    pixels, text = torch.randn(1, 3, side, side), torch.zeros(1, 10, dtype=torch.long)
    cache = model.new_cache(1, 600)
    assert counted(lambda: model.prefill(pixels, text, cache)) == said.flops["total"]
    # Keys in fp32 take what keys and values take in fp16.
    assert sum(keys.nbytes for keys in _held(cache)) == said.memory_bytes["kv_cache"]


def _held(cache: Any) -> list[Any]:
    if hasattr(cache, "snapshot"):
        return [keys for keys, _ in cache.snapshot()]
    return [keys[:, :, :length] for keys, length in zip(cache.keys, cache.lengths, strict=True)]


def test_a_layer_early_is_the_serving_convention() -> None:
    shape = load_shape("llava-1.5-7b")
    model = build_fused(shape, device="meta", attention="eager", vision_layers_run=23)
    pixels, _ = on_meta(shape, 1, 1)
    said = estimate("llava-1.5-7b", GPU, text_tokens=64, vision_layers=23)
    assert counted(lambda: model.encode(pixels)) == said.flops["vision_encoder"]


def program_flops(model: str, text: int, groups: Sequence[tuple[int, int]]) -> float:
    """FLOPs of the decoder's layers where groups of (layers, visual tokens) follow another."""
    spec = load_model(model)
    assert spec.image_rule is not None
    plan = CompressionPlan(
        method="by hand",
        insertion=Insertion("llm", groups[0][0]),
        kept=TokenCount.static(groups[-1][1]),
        decoder_groups=tuple(DecoderGroup(layers, visual) for layers, visual in groups),
    )
    layout = combine(image_layouts(spec.image_rule, [], []))
    made = build_program(spec, layout, Workload(text_tokens=text), Deployment.of(), plan)
    counted_ops = [op.matmul and op.stage == "llm" for op in made.ops]
    done = evaluate(made)
    return float(done.total(done.flops, counted_ops))


FASTV = [(2, 288), (3, 144), (1, 1), (31, 500)]


@pytest.mark.parametrize(("layer", "kept"), FASTV)
def test_fastv(layer: int, kept: int) -> None:
    shape, text = load_shape("llava-1.5-7b"), 64
    model = build_fused(shape, device="meta", attention="eager").decoder
    d = shape.decoder
    tokens = text + 576
    cache = build_fused(shape, device="meta").new_cache(1, tokens)
    groups = program_flops("llava-1.5-7b", text, [(layer, 576), (d.layers - layer, kept)])
    once = program_flops("llava-1.5-7b", text, [(32, 576)]) / 32
    hidden = torch.empty(1, tokens, d.width, device="meta")
    extra = {"paper": 0, "released": once, "last-row": 2 * d.heads * tokens * d.head_dim}
    for variant, more in extra.items():
        method = FastV(layer, kept, variant)  # type: ignore[arg-type]
        found = counted(partial(method.run, model, hidden, cache, 35, 576))
        assert found == groups + more


def test_pyramid_drop() -> None:
    shape, text = load_shape("llava-1.5-7b"), 64
    model, d = build_fused(shape, device="meta", attention="eager"), shape.decoder
    hidden = torch.empty(1, text + 576, d.width, device="meta")
    groups = program_flops("llava-1.5-7b", text, [(8, 576), (8, 288), (8, 144), (8, 72)])
    before = [text + visual for visual in (576, 288, 144)]
    # Keys of all tokens and one query from the width, and one row of weights.
    ranking = sum(2 * (n + 1) * d.width**2 + 2 * n * d.width for n in before)
    method, cache = PyramidDrop.of_paper(32, 576, "lean"), model.new_cache(1, text + 576)
    found = counted(lambda: method.run(model.decoder, hidden, cache, 35, 576))
    assert found == groups + ranking


def test_released_pyramid_drop_projects_a_layer_again(
    config: Callable[[ModelShape], str],
) -> None:
    """On the CPU: the released loop asks the device for lengths."""
    model, d, text = build_fused(TINY, attention="eager"), TINY.decoder, 20
    groups = program_flops(config(TINY), text, [(1, 64), (1, 32), (1, 16), (1, 8)])
    before = [text + visual for visual in (64, 32, 16)]
    ranking = sum(2 * n * 3 * d.width**2 + 2 * n * d.width for n in before)
    method, cache = PyramidDrop.of_paper(4, 64), model.new_cache(1, text + 64)
    hidden = torch.randn(1, text + 64, d.width)
    found = counted(lambda: method.run(model.decoder, hidden, cache, 19, 64))
    assert found == groups + ranking
