"""Prefill, decode step, head and KV cache of every preset against transformers' modules."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import estimate, list_models, load_model
from costmodel.specs.model import ModelSpec
from costmodel.vision_tokens import ImageSize

if TYPE_CHECKING:
    from tests.verify.conftest import Reference, Truth

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
transformers = pytest.importorskip("transformers", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify

PRESETS = list_models()
PASSES = ((1, 64), (2, 17), (3, 300))
"""Batch and text tokens; the first has the model's default image beside the text."""


def images_of(spec: ModelSpec, batch: int) -> tuple[ImageSize, ...]:
    return (ImageSize(*spec.default_image),) if spec.default_image and batch == 1 else ()


def decoder_pass(
    parts: Reference, batch: int, tokens: int, cache: Any = None, past: int = 0
) -> Callable[[], Any]:
    """Return a pass of the language model over embeddings, after `past` cached tokens."""
    # A mask of the final shape is taken as it is; making one would look at positions.
    dtype = parts.language.dtype
    width = parts.spec.text.hidden_size
    hidden = torch.empty(batch, tokens, width, device="meta", dtype=dtype)
    mask = torch.empty(batch, 1, tokens, past + tokens, device="meta", dtype=dtype)
    return lambda: (
        parts.language(
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
    )


@contextmanager
def cast(module: Any, dtype: Any) -> Generator[None, None, None]:
    """Give a module another number format for a while: presets are built once."""
    before = module.dtype
    module.to(dtype)
    try:
        yield
    finally:
        module.to(before)


@pytest.mark.parametrize(("batch", "text"), PASSES)
@pytest.mark.parametrize("name", PRESETS)
def test_prefill(truth: Truth, name: str, batch: int, text: int) -> None:
    parts, spec = truth.reference(name), load_model(name)
    images = images_of(spec, batch)
    tokens = text + truth.layout(spec, images).tokens
    hidden, (expected,) = truth.count_flops(decoder_pass(parts, batch, tokens))
    assert hidden.shape == (batch, tokens, spec.text.hidden_size)
    for style in truth.styles:
        made = truth.program(spec, images, text=text, batch=batch, **style)
        assert truth.our_flops(made)["llm"] == expected


@pytest.mark.parametrize(("batch", "past"), [(1, 640), (3, 33)])
@pytest.mark.parametrize("name", PRESETS)
def test_decode_step(truth: Truth, name: str, batch: int, past: int) -> None:
    parts, spec = truth.reference(name), load_model(name)
    cache = transformers.DynamicCache(config=parts.language.config)
    decoder_pass(parts, batch, past, cache)()
    hidden, (expected,) = truth.count_flops(decoder_pass(parts, batch, 1, cache, past))
    _, (head,) = truth.count_flops(lambda: parts.head(hidden))
    assert cache.get_seq_length() == past + 1
    for style in truth.styles:
        made = truth.program(spec, text=past, batch=batch, **style)
        found = truth.our_flops(made, "decode")
        assert (found["llm"], found["lm_head"]) == (expected, head)


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize(("batch", "text"), PASSES)
@pytest.mark.parametrize("name", PRESETS)
def test_head(truth: Truth, name: str, batch: int, text: int, positions: str) -> None:
    parts, spec = truth.reference(name), load_model(name)
    images = images_of(spec, batch)
    tokens = text + truth.layout(spec, images).tokens
    chosen = tokens if positions == "all" else 1
    hidden = torch.empty(batch, chosen, spec.text.hidden_size, device="meta")
    logits, (expected,) = truth.count_flops(lambda: parts.head(hidden))
    assert logits.shape == (batch, chosen, spec.text.vocab_size)
    made = truth.program(spec, images, text=text, batch=batch, head_tokens=positions)
    assert truth.our_flops(made)["lm_head"] == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 640), (3, 33)])
@pytest.mark.parametrize("name", PRESETS)
def test_kv_cache(truth: Truth, name: str, batch: int, tokens: int, dtype: str) -> None:
    parts, spec = truth.reference(name), load_model(name)
    cache = transformers.DynamicCache(config=parts.language.config)
    with cast(parts.language, getattr(torch, dtype)):
        decoder_pass(parts, batch, tokens, cache)()
    assert {layer.keys.dtype for layer in cache.layers} == {getattr(torch, dtype)}
    expected = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    short = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}[dtype]
    made = truth.program(spec, text=tokens, batch=batch, kv_dtype=short)
    assert truth.our_cache_bytes(made) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_estimate(truth: Truth, name: str) -> None:
    """What users see: floats, exact below 2**53."""
    parts, spec = truth.reference(name), load_model(name)
    tokens = 64 + truth.layout(spec, images_of(spec, 1)).tokens
    cache = transformers.DynamicCache(config=parts.language.config)
    with cast(parts.language, torch.float16):
        hidden, (prefill,) = truth.count_flops(decoder_pass(parts, 1, tokens, cache))
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        _, (step,) = truth.count_flops(decoder_pass(parts, 1, 1, cache, tokens))
    _, (head,) = truth.count_flops(lambda: parts.head(hidden[:, -1].float()))
    result = estimate(name, "a100-80gb-sxm", text_tokens=64)
    assert result.flops["llm_prefill"] == prefill
    assert result.flops["lm_head"] == head
    assert sum(row.flops for row in result.ops_decode if row.counted) == step + head
    assert result.memory_bytes["weights"] == 2 * sum(parts.parameters.values())
    assert result.memory_bytes["kv_cache"] == held
