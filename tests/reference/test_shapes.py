"""Shapes of the runnable models against the catalogue they stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel import estimate, load_model
from costmodel.reference.models.shapes import DTYPE_BYTES, PRESETS, ModelShape, load_shape

CATALOGUED = ("llava-1.5-7b", "llava-1.5-13b", "llama-2-7b", "llama-3-8b")


@pytest.mark.parametrize("name", CATALOGUED)
def test_presets_have_the_shapes_of_the_catalogue(name: str) -> None:
    shape, spec = load_shape(name), load_model(name)
    _same_decoder(shape, name)
    assert (shape.vision is None) == (spec.vision is None)
    if shape.vision is None or spec.vision is None or spec.projector is None:
        return
    for ours, theirs in (
        ("image_size", "image_size"), ("patch_size", "patch_size"), ("width", "hidden_size"),
        ("layers", "layers"), ("layers", "layers_executed"), ("heads", "heads"),
        ("mlp_width", "intermediate_size"),
    ):  # fmt: skip
        assert getattr(shape.vision, ours) == getattr(spec.vision, theirs), ours
    assert shape.projector == spec.projector.widths
    assert spec.vision.positions == shape.visual_tokens + 1


def test_qwen_is_the_language_model_of_the_vision_preset() -> None:
    _same_decoder(load_shape("qwen2.5-7b"), "qwen2.5-vl-7b")


def _same_decoder(shape: ModelShape, name: str) -> None:
    text = load_model(name).text
    for ours, theirs in (
        ("layers", "layers"), ("width", "hidden_size"), ("heads", "heads"),
        ("kv_heads", "kv_heads"), ("head_dim", "head_dim"), ("vocab", "vocab_size"),
        ("mlp_width", "intermediate_size"), ("qkv_bias", "qkv_bias"),
    ):  # fmt: skip
        assert getattr(shape.decoder, ours) == getattr(text, theirs), ours


@pytest.mark.parametrize("name", CATALOGUED)
def test_parameters_cache_and_visual_tokens_equal_an_estimate(name: str) -> None:
    shape = load_shape(name)
    result = estimate(name, "a100-80gb-sxm", text_tokens=64)
    assert shape.parameters == result.params["total"]
    assert shape.projector_parameters == result.params["projector"]
    assert shape.visual_tokens == result.tokens["visual_in"]
    tokens = result.tokens["prefill"]
    assert shape.decoder.kv_cache_bytes(tokens, "fp16") == result.memory_bytes["kv_cache"]


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
@pytest.mark.parametrize("name", PRESETS)
def test_as_many_layers_fit_as_the_bytes_say(name: str, dtype: str) -> None:
    shape, tokens, batch = PRESETS[name], 640, 2

    def held(layers: int) -> int:
        cut = shape.truncated(layers)
        cache = cut.decoder.kv_cache_bytes(tokens, dtype, batch)
        return cut.parameters * DTYPE_BYTES[dtype] + cache

    for layers in range(1, shape.decoder.layers + 1):
        assert shape.fits(held(layers), dtype, tokens, batch) == layers
        assert shape.fits(held(layers) - 1, dtype, tokens, batch) == layers - 1
    assert shape.fits(10 * held(shape.decoder.layers), dtype) == shape.decoder.layers
    assert shape.fits(0, dtype) == 0


def test_a_cut_model_says_so() -> None:
    shape = load_shape("llava-1.5-7b")
    assert shape.truncated(8).truncated(4) == load_shape("llava-1.5-7b@4layers")
    assert shape.truncated(32) is shape
    assert shape.truncated(4).vision == shape.vision


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llava", "none of llava-1.5-7b"),
        ("llava-tiny@5layers", "5 is not a number from 1 to 4"),
        ("llava-tiny@0layers", "0 is not a number from 1 to 4"),
        ("llava-tiny@some", "@<number>layers"),
    ],
)
def test_unknown_shapes_are_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_shape(name)


def test_impossible_shapes_are_refused() -> None:
    tiny = load_shape("llava-tiny")
    with pytest.raises(ValueError, match="heads"):
        replace(tiny.decoder, kv_heads=3)
    with pytest.raises(ValueError, match="head_dim"):
        replace(tiny.decoder, head_dim=7)
    with pytest.raises(ValueError, match="belong together"):
        replace(tiny, projector=())
    with pytest.raises(ValueError, match="width 64"):
        replace(tiny, projector=(128, 64))
    with pytest.raises(ValueError, match="fp8"):
        tiny.fits(1e9, "fp8")
