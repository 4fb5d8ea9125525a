"""Cross-modal saliency that runs."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.saliency import (  # noqa: E402
    attention_saliency,
    embedding_saliency,
    keep_salient,
)

pytestmark = pytest.mark.verify

PARAMS = {"text_tokens": 12, "text_before": 5, "heads": 4, "key_heads": 2}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["embedding", "projected", "attention"])
def test_shapes(variant: str, batch: int, dtype: str) -> None:
    case = MethodCase(batch, 40, 9, 32, dtype=dtype, variant=variant, params=PARAMS)
    made = load_method("saliency").prepare(case)
    out: Any = made.run()
    assert out.shape == (batch, 9, 32)
    assert out.dtype == case.torch_dtype
    assert (made.output_tokens, made.parameters) == (9, 0)
    assert count_calls(made.run).waits == 0
    assert torch.equal(out, made.run())


def test_scores_of_embeddings() -> None:
    text, visual = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    found = embedding_saliency(text, visual)
    for image in range(2):
        rows = [
            torch.exp(word @ visual[image].T / 8**0.5)
            / torch.exp(word @ visual[image].T / 8**0.5).sum()
            for word in text[image]
        ]
        torch.testing.assert_close(found[image], sum(rows) / 3)


@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_is_that_of_torch(key_heads: int) -> None:
    """Attention to an identity matrix of values is the weights themselves."""
    queries, keys = torch.randn(2, 4, 10, 16), torch.randn(2, key_heads, 10, 16)
    values = torch.eye(10).expand(2, key_heads, 10, 10)
    weights = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, values, is_causal=True, enable_gqa=True
    )
    for rows in (slice(-1, None), slice(7, 10)):
        found = attention_saliency(queries, keys, slice(2, 7), rows)
        torch.testing.assert_close(found, weights[:, :, rows, 2:7].mean((1, 2)))


def test_the_most_salient_remain() -> None:
    tokens, saliency = (
        torch.randn(2, 6, 3),
        torch.tensor([[1.0, 5, 2, 9, 0, 3], [6, 5, 4, 3, 2, 1]]),
    )
    kept, indices = keep_salient(tokens, saliency, 3)
    assert indices.tolist() == [[1, 3, 5], [0, 1, 2]]
    assert torch.equal(kept[0], tokens[0, [1, 3, 5]])
    assert keep_salient(tokens, saliency, 3, by_position=False)[1].tolist() == [
        [3, 1, 5],
        [0, 1, 2],
    ]
    assert torch.equal(keep_salient(tokens, saliency, 6)[0], tokens)


@pytest.mark.parametrize(("batch", "tokens", "text", "width"), [(1, 576, 64, 128), (3, 40, 7, 32)])
def test_flops(batch: int, tokens: int, text: int, width: int) -> None:
    """Products only: 2 t n d, twice (n + t) d**2 before it, and 2 (n + t)**2 d in a layer."""
    per_image = {
        "embedding": 2 * text * tokens * width,
        "projected": 2 * text * tokens * width + 2 * (tokens + text) * width**2,
        "attention": 2 * (tokens + text) ** 2 * width,
    }
    for variant, expected in per_image.items():
        for key_heads in (4, 2):
            params = {"text_tokens": text, "text_before": 3, "heads": 4, "key_heads": key_heads}
            case = MethodCase(batch, tokens, 5, width, variant=variant, params=params)
            assert count_flops(load_method("saliency").prepare(case).run) == batch * expected


def test_cases_that_cannot_be_done() -> None:
    for params, message in (
        ({"heads": 5}, "heads: 5 does not divide the width 32"),
        ({"heads": 4, "key_heads": 3}, "key_heads: 3 does not divide the 4 heads"),
        ({"text_tokens": 0}, "text_tokens: 0 is not at least 1"),
        ({"heads": 4, "key_heads": 4, "text_before": 64}, "text_before: 64 is not below the 64"),
    ):
        case = MethodCase(1, 40, 9, 32, variant="attention", params=params)
        with pytest.raises(ValueError, match=message):
            load_method("saliency").prepare(case)
