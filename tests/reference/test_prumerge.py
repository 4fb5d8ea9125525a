"""PruMerge that runs, against its algorithm written out token by token."""

from __future__ import annotations

import math
from statistics import quantiles
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.prumerge import (  # noqa: E402
    class_attention,
    class_attention_row,
    merge_at_once,
    merge_by_loop,
    outlier_ratio,
    outlier_ratio_on_device,
    prune_and_merge,
    prune_and_merge_fused,
)
from costmodel.reference.methods.prumerge_inputs import LayerOutputs  # noqa: E402
from costmodel.reference.methods.prumerge_plus import (  # noqa: E402
    grid_step,
    prune_and_merge_plus,
    prune_and_merge_plus_fused,
)

pytestmark = pytest.mark.verify

METHOD, PLUS = load_method("prumerge"), load_method("prumerge+")


def natural(tokens: int, images: int = 1, seed: int = 0, spread: float = 1.5) -> LayerOutputs:
    """Outputs of a layer in fp64 whose attention is log-normal, which has outliers of its own."""
    generator = torch.Generator().manual_seed(seed)
    features, queries, keys = (
        torch.randn(images, count, 12, generator=generator, dtype=torch.float64)
        for count in (tokens, tokens + 1, tokens + 1)
    )
    return LayerOutputs(features, spread * queries, keys)


def attention_by_hand(outputs: LayerOutputs, image: int) -> list[float]:
    query, width = outputs.queries[image, 0].tolist(), outputs.queries.shape[2]
    scores = [
        math.exp(sum(map(math.prod, zip(query, key, strict=True))) / math.sqrt(width))
        for key in outputs.keys[image].tolist()
    ]
    return [score / sum(scores) for score in scores[1:]]


def outliers_by_hand(attention: list[float]) -> list[int]:
    low, _, high = quantiles(attention, n=4, method="inclusive")
    return [i for i, one in enumerate(attention) if one > high + 1.5 * (high - low)]


def merged_by_hand(outputs: LayerOutputs, image: int, chosen: list[int], neighbours: int) -> Any:
    features, keys = outputs.features[image], outputs.keys[image, 1:].tolist()
    attention = attention_by_hand(outputs, image)

    def cosine(one: int, two: int) -> float:
        a, b = keys[one], keys[two]
        return sum(map(math.prod, zip(a, b, strict=True))) / math.hypot(*a) / math.hypot(*b)

    rows = []
    for token in chosen:
        others = [one for one in range(len(keys)) if one != token]
        near = sorted(others, key=lambda one: cosine(token, one), reverse=True)[:neighbours]
        rows.append(features[token] + sum(attention[one] * features[one] for one in near))
    gone = [one for one in range(len(keys)) if one not in chosen]
    rows.append(sum((attention[one] * features[one] for one in gone), torch.zeros(12).double()))
    return torch.stack(rows)


@pytest.mark.parametrize("tokens", [60, 145])
def test_both_variants_are_the_published_algorithm(tokens: int) -> None:
    outputs = natural(tokens, seed=tokens)
    attention = attention_by_hand(outputs, 0)
    chosen = sorted(outliers_by_hand(attention), key=lambda one: attention[one], reverse=True)
    assert 2 < len(chosen) < tokens / 4
    assert int(tokens * (len(chosen) / tokens)) == len(chosen)
    expected = merged_by_hand(outputs, 0, chosen, neighbours=32)
    torch.testing.assert_close(prune_and_merge(outputs)[0], expected)
    torch.testing.assert_close(prune_and_merge_fused(outputs)[0], expected)


@pytest.mark.parametrize("spread", [0.7, 1.5])
def test_both_variants_with_a_grid_are_the_published_algorithm(spread: float) -> None:
    tokens = 144
    outputs = natural(tokens, seed=3, spread=spread)
    attention = attention_by_hand(outputs, 0)
    chosen = sorted(outliers_by_hand(attention), key=lambda one: attention[one], reverse=True)
    step = math.floor(math.floor(tokens / len(chosen)) / 3)
    assert step >= 1
    chosen += [patch for patch in range(0, tokens - 1, step) if patch not in chosen]
    expected = merged_by_hand(outputs, 0, chosen, neighbours=32)
    torch.testing.assert_close(prune_and_merge_plus(outputs)[0], expected)
    torch.testing.assert_close(prune_and_merge_plus_fused(outputs)[0], expected)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("kept", [0, 1, 7, 50])
def test_a_given_number_stays_of_each_image(images: int, kept: int) -> None:
    outputs = natural(50, images)
    loop, once = prune_and_merge(outputs, kept), prune_and_merge_fused(outputs, kept)
    assert loop.shape == (images, kept + 1, 12)
    torch.testing.assert_close(loop, once)
    for image in range(images):
        attention = attention_by_hand(outputs, image)
        chosen = sorted(range(50), key=lambda one: attention[one], reverse=True)[:kept]
        torch.testing.assert_close(loop[image], merged_by_hand(outputs, image, chosen, 32))


def test_keeping_all_without_neighbours_changes_nothing() -> None:
    outputs = natural(20, images=2)
    attention = class_attention(outputs.queries, outputs.keys)
    chosen = torch.stack([torch.randperm(20) for _ in range(2)])
    order = chosen[..., None].expand(-1, -1, 12)
    for merge in (merge_by_loop, merge_at_once):
        made = merge(outputs.features, outputs.keys[:, 1:], attention, chosen, neighbours=0)
        assert torch.equal(made[:, :20], outputs.features.gather(1, order))
        assert not made[:, 20].any()


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("tokens", [20, 21, 22, 23, 577])
def test_shares_of_outliers(tokens: int, images: int) -> None:
    for seed in range(20):
        outputs = natural(tokens, images, seed)
        attention = class_attention(outputs.queries, outputs.keys)
        torch.testing.assert_close(attention, class_attention_row(outputs.queries, outputs.keys))
        values = attention.float().flatten().tolist()
        expected = len(outliers_by_hand(values)) / len(values)
        assert outlier_ratio(attention) == expected
        assert outlier_ratio_on_device(attention) == expected


@pytest.mark.parametrize("variant", METHOD.variants)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("batch", "kept"), [(1, 33), (3, 20), (2, 143)])
def test_planted_outliers_are_found(variant: str, dtype: str, batch: int, kept: int) -> None:
    ready = METHOD.prepare(MethodCase(batch, 576, kept, 64, dtype=dtype, variant=variant))
    made: Any = ready.run()
    assert made.shape == (batch, kept, 64)
    assert made.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.half}[dtype]
    assert torch.isfinite(made).all()
    assert torch.equal(made, ready.run())
    assert ready.output_tokens is None
    assert not ready.graph_safe


@pytest.mark.parametrize("variant", PLUS.variants)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kept", [64, 144, 145, 300])
def test_planted_outliers_and_grid_are_found(variant: str, dtype: str, kept: int) -> None:
    ready = PLUS.prepare(MethodCase(1, 576, kept, 64, dtype=dtype, variant=variant))
    made: Any = ready.run()
    assert made.shape == (1, kept, 64)
    assert ready.output_tokens is None
    assert not ready.graph_safe


@pytest.mark.parametrize("variant", METHOD.variants)
def test_a_fixed_number_waits_for_nothing(variant: str) -> None:
    case = MethodCase(2, 576, 289, 32, variant=variant, params={"adaptive": False})
    ready = METHOD.prepare(case)
    made: Any = ready.run()
    assert made.shape == (2, 289, 32)
    assert ready.output_tokens == 289
    assert ready.graph_safe == (variant == "fused")
    assert count_calls(ready.run).waits == 0


@pytest.mark.parametrize(("batch", "kept"), [(1, 33), (2, 33), (1, 101)])
def test_products(batch: int, kept: int) -> None:
    stay, width = kept - 1, 64
    released, fused = (
        count_flops(METHOD.prepare(MethodCase(batch, 576, kept, width, variant=variant)).run)
        for variant in METHOD.variants
    )
    assert released == batch * 2 * width * (577**2 + stay * 575)
    assert fused == batch * 2 * width * (2 * 576 + 1 + 2 * stay * 576)


@pytest.mark.parametrize(("batch", "kept"), [(1, 33), (2, 33), (1, 101)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_launches_and_waits(batch: int, kept: int, dtype: str) -> None:
    released, fused = (
        count_calls(
            METHOD.prepare(MethodCase(batch, 576, kept, 16, dtype=dtype, variant=variant)).run
        )
        for variant in METHOD.variants
    )
    cast = dtype != "fp32"
    assert released.launches == 23 + 11 * batch * (kept - 1) + cast
    assert released.waits == 0  # its copy to the host is none on the CPU
    assert fused.waits == 1
    case = MethodCase(batch, 576, kept, 16, variant="fused", params={"adaptive": False})
    assert count_calls(METHOD.prepare(case).run).launches == 19
    # Two images are flattened by a copy, since their attention is a slice.
    assert fused.launches == 26 + (cast or batch > 1)


@pytest.mark.parametrize("kept", [100, 145])
def test_launches_and_waits_with_a_grid(kept: int) -> None:
    released, fused = (
        PLUS.prepare(MethodCase(1, 576, kept, 16, variant=variant)) for variant in PLUS.variants
    )
    plain = METHOD.prepare(MethodCase(1, 576, kept, 16, params={"adaptive": False}))
    calls = count_calls(released.run)
    grid, added = calls.operators["aten::any"], calls.waits - calls.operators["aten::any"]
    stay, outliers = kept - 1, kept - 1 - added
    assert grid == len(range(0, 575, grid_step(outliers / 576)))
    assert calls.launches == 25 + 11 * stay + 3 * grid + (stay - outliers)
    assert calls.launches == count_calls(plain.run).launches + 2 + 2 * grid + calls.waits
    assert (count_calls(fused.run).launches, count_calls(fused.run).waits) == (31, 2)


@pytest.mark.parametrize(
    ("method", "case", "message"),
    [
        (METHOD, MethodCase(1, 576, 200, 8), "kept: 199 of 576 tokens cannot be outliers"),
        (METHOD, MethodCase(1, 729, 17, 8), "kept: 16 of 729 tokens cannot be outliers"),
        (METHOD, MethodCase(1, 576, 1, 8), "kept: prumerge keeps at least 2 tokens"),
        (METHOD, MethodCase(1, 32, 5, 8), "kept: prumerge keeps at least 2 tokens of more than 32"),
        (PLUS, MethodCase(2, 576, 144, 8), r"batch: prumerge\+ takes one image at a time, not 2"),
        (PLUS, MethodCase(1, 576, 3, 8), "kept: no number of outliers leaves 3 of 576 tokens"),
        # Every third patch and 64 outliers are fewer, every second and one more than 288.
        (PLUS, MethodCase(1, 576, 288, 8), "kept: no number of outliers leaves 288"),
        (PLUS, MethodCase(1, 32, 8, 8), "tokens: 32 are not more than the 32 neighbours"),
    ],
)
def test_what_cannot_be_done(method: Any, case: MethodCase, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method.prepare(case)


@pytest.mark.parametrize("ratio", [0.0, 0.34])
def test_a_grid_needs_outliers_and_not_too_many(ratio: float) -> None:
    with pytest.raises(ValueError, match="of outliers gives no grid"):
        grid_step(ratio)
