"""The serving-like model against transformers' modules with the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costmodel.reference.models.shapes import ModelShape, load_shape

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
transformers = pytest.importorskip("transformers", reason="needs the extra 'verify'")

from costmodel.reference.models.attention import ATTENTION_KINDS, attend  # noqa: E402
from costmodel.reference.models.base import visual_start  # noqa: E402
from costmodel.reference.models.eager import build_eager  # noqa: E402
from costmodel.reference.models.fused import build_fused  # noqa: E402
from costmodel.reference.models.weights import copy_weights  # noqa: E402

pytestmark = pytest.mark.verify

TINY = load_shape("llava-tiny")
GROUPED = replace(TINY, decoder=replace(TINY.decoder, kv_heads=2, rope_theta=500000.0))
WITH_BIAS = replace(TINY, decoder=replace(TINY.decoder, kv_heads=1, qkv_bias=True, norm_eps=1e-6))
SHAPES = {"heads of their own": TINY, "grouped heads": GROUPED, "qwen": WITH_BIAS}


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return make_pair(request.param)


def make_pair(shape: ModelShape, attention: Any = "flash") -> tuple[Any, Any]:
    """Two models with one set of weights, in which nothing is zero or one by construction."""
    theirs, ours = build_eager(shape), build_fused(shape, attention=attention)
    torch.manual_seed(7)
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    copy_weights(theirs, ours)
    return theirs, ours


def inputs(shape: ModelShape, batch: int = 2, text: int = 40) -> tuple[Any, Any]:
    assert shape.vision is not None
    side = shape.vision.image_size
    torch.manual_seed(1)
    pixels = torch.randn(batch, 3, side, side)
    return pixels, torch.randint(0, shape.decoder.vocab, (batch, text))


def test_tower(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    pixels, _ = inputs(ours.shape)
    (expected, expected_pooled), (features, pooled) = theirs.encode(pixels), ours.encode(pixels)
    assert features.shape == (2, 64, 64)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pooled, expected_pooled, rtol=1e-4, atol=1e-4)


def test_tower_reads_the_last_layer_but_one(pair: tuple[Any, Any]) -> None:
    """Without our wrapper of transformers' tower."""
    theirs, ours = pair
    pixels, _ = inputs(ours.shape)
    states = theirs.vision(pixels, output_hidden_states=True).hidden_states
    assert len(states) == ours.shape.vision.layers + 1
    torch.testing.assert_close(ours.encode(pixels)[0], states[-2][:, 1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours.encode(pixels)[0], states[-1][:, 1:], rtol=1e-2, atol=1e-2)


def test_stopping_a_layer_early_changes_no_features() -> None:
    whole, short = build_fused(TINY), build_fused(TINY, vision_layers_run=2)
    pixels, _ = inputs(TINY)
    assert torch.equal(whole.encode(pixels)[0], short.encode(pixels)[0])
    assert short.encode(pixels)[1] is None
    with pytest.raises(ValueError, match="neither 3 nor 2"):
        build_fused(TINY, vision_layers_run=1)


@pytest.mark.parametrize("attention", ATTENTION_KINDS)
def test_decoder_is_that_of_transformers(attention: str) -> None:
    for shape in SHAPES.values():
        theirs, ours = make_pair(shape, attention)
        hidden = torch.randn(2, 50, shape.decoder.width)
        expected = theirs.decoder(inputs_embeds=hidden).last_hidden_state
        found = ours.decoder.norm(ours.decoder.prefill(hidden, ours.new_cache(2, 50)))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_prefill_and_decode(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    pixels, text = inputs(ours.shape)
    caches = theirs.new_cache(2, 120), ours.new_cache(2, 120)
    expected, found = (m.prefill(pixels, text, c) for m, c in zip(pair, caches, strict=True))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
    assert found.logits.shape == (2, ours.shape.decoder.vocab)
    for step in range(3):
        ids = torch.randint(0, 1000, (2, 1))
        logits = [m.decode_step(ids, c) for m, c in zip(pair, caches, strict=True)]
        torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=1e-3)
        assert set(caches[0].lengths) == set(caches[1].lengths) == {40 + 64 + step + 1}
    for index, (keys, values) in enumerate(caches[0].snapshot()):
        torch.testing.assert_close(caches[1].keys[index][:, :, :107], keys, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            caches[1].values[index][:, :, :107], values, rtol=1e-3, atol=1e-3
        )


def test_decode_steps_equal_one_long_prompt(pair: tuple[Any, Any]) -> None:
    _, text = inputs(TINY, text=30)
    for model in pair:
        cache = model.new_cache(2, 30)
        model.prefill(None, text[:, :25], cache)
        for index in range(25, 30):
            stepped = model.decode_step(text[:, index : index + 1], cache)
        whole = model.prefill(None, text, model.new_cache(2, 30)).logits
        torch.testing.assert_close(stepped, whole, rtol=1e-4, atol=1e-4)


def test_a_step_that_does_not_advance_can_be_repeated(pair: tuple[Any, Any]) -> None:
    _, text = inputs(TINY)
    for model in pair:
        cache = model.new_cache(2, 41)
        model.prefill(None, text, cache)
        first = model.decode_step(text[:, :1], cache, advance=False)
        assert set(cache.lengths) == {40}
        assert torch.equal(model.decode_step(text[:, :1], cache, advance=False), first)
        assert torch.equal(model.decode_step(text[:, :1], cache), first)
        assert set(cache.lengths) == {41}


def test_a_cache_can_be_used_again(pair: tuple[Any, Any]) -> None:
    pixels, text = inputs(TINY)
    for model in pair:
        cache = model.new_cache(2, 110)
        first = model.prefill(pixels, text, cache)
        model.decode_step(text[:, :1], cache)
        assert torch.equal(model.prefill(pixels, text, cache).logits, first.logits)
        assert set(cache.lengths) == {104}


def test_visual_tokens_stand_between_the_text(pair: tuple[Any, Any]) -> None:
    pixels, text = inputs(TINY, text=60)
    start = visual_start(60)
    for model in pair:
        visual = model.projector(model.encode(pixels)[0])
        embedded = model.embed(text)
        prompt = torch.cat((embedded[:, :start], visual, embedded[:, start:]), dim=1)
        as_tokens = model.prefill(prompt, text[:, :0], model.new_cache(2, 124)).logits
        as_pixels = model.prefill(pixels, text, model.new_cache(2, 124)).logits
        torch.testing.assert_close(as_tokens, as_pixels)


def test_compression_and_several_tiles(pair: tuple[Any, Any]) -> None:
    pixels, text = inputs(TINY)
    for model in pair:
        tiles = torch.stack((pixels, pixels.flip(0)), dim=1)
        visual, _ = model.visual_tokens(tiles)
        single, _ = model.visual_tokens(pixels)
        torch.testing.assert_close(visual, torch.cat((single, single.flip(0)), dim=1))
        cache = model.new_cache(2, 60)
        model.prefill(pixels, text, cache, compress=lambda tokens: tokens[:, ::4])
        assert set(cache.lengths) == {40 + 16}


@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (8, 1)])
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_attention_by_its_definition(kind: Any, heads: tuple[int, int]) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, heads[0], 9, 16, dtype=torch.float64)
    keys, values = torch.randn(2, 2, heads[1], 9, 16, dtype=torch.float64)
    for causal in (False, True):
        found = attend(query, keys, values, causal=causal, kind=kind)
        for head in range(heads[0]):
            group = head * heads[1] // heads[0]
            for row in range(9):
                seen = row + 1 if causal else 9
                scores = keys[:, group, :seen] @ query[:, head, row, :, None] / 4.0
                weights = scores.softmax(dim=1)
                expected = (weights * values[:, group, :seen]).sum(dim=1)
                torch.testing.assert_close(found[:, head, row], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("build", [build_eager, build_fused])
def test_half_precision_runs_and_stays(build: Any, dtype: str) -> None:
    model = build(TINY, dtype=dtype)
    expected = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert {p.dtype for p in model.parameters()} == {expected}
    pixels, text = inputs(TINY)
    done = model.prefill(pixels.to(expected), text, model.new_cache(2, 104))
    assert done.logits.dtype == expected
    assert done.logits.isfinite().all()
    assert done.logits.std() > 0


@pytest.mark.parametrize("build", [build_eager, build_fused])
def test_weights_follow_the_seed_and_are_all_drawn(build: Any) -> None:
    one, same, other = build(TINY), build(TINY), build(TINY, seed=1)
    drawn = 0
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad
        if a.std() > 0:
            drawn += a.numel()
            assert not torch.equal(a, c)
            assert a.std().item() == pytest.approx(0.02, rel=0.25)
    assert drawn > 0.98 * TINY.parameters


def test_buffers_of_transformers_are_as_it_makes_them() -> None:
    """Memory taken without initialising must not show in rotary frequencies or positions."""
    ours = build_eager(WITH_BIAS)
    for part in (ours.decoder, ours.vision):
        made = type(part)(part.config)
        found = dict(part.named_buffers(remove_duplicate=False))
        expected = dict(made.named_buffers(remove_duplicate=False))
        assert found.keys() == expected.keys()
        for name, buffer in expected.items():
            torch.testing.assert_close(found[name], buffer)


@pytest.mark.parametrize("build", [build_eager, build_fused])
def test_wrong_options_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="dtype: 'float16' is none of fp32, fp16, bf16"):
        build(TINY, dtype="float16")
    with pytest.raises(ValueError, match="attention: 'paged' is none of"):
        build(TINY, attention="paged")
    language = build(replace(TINY, vision=None, projector=()))
    with pytest.raises(ValueError, match="no vision tower"):
        language.prefill(*inputs(TINY), language.new_cache(2, 104))


def test_a_step_of_two_tokens_is_refused() -> None:
    model = build_fused(TINY)
    with pytest.raises(ValueError, match="1 token of each sequence, not 2"):
        model.decode_step(torch.zeros(1, 2, dtype=torch.long), model.new_cache(1, 4))


def test_a_full_cache_is_not_written_past_its_end() -> None:
    model = build_fused(TINY)
    cache, ids = model.new_cache(1, 5), torch.zeros(1, 5, dtype=torch.long)
    model.prefill(None, ids, cache)
    with pytest.raises(ValueError, match="a cache for 5 tokens cannot hold 6"):
        model.decode_step(ids[:, :1], cache)
    with pytest.raises(ValueError, match="for 4 tokens cannot hold 5"):
        model.prefill(None, ids, model.new_cache(1, 4))
