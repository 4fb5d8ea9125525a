"""Token merging that runs, against the published algorithm written out token by token."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.tome import even_schedule, schedule_steps  # noqa: E402
from costmodel.reference.methods.tome_merge import most_removable, reduce_tokens  # noqa: E402
from costmodel.reference.methods.vit import attend, clip_tower, embed, encode  # noqa: E402

pytestmark = pytest.mark.verify

METHOD = load_method("tome")


def by_hand(
    tokens: list[list[float]], metric: list[list[float]], sizes: list[float], removed: int
) -> tuple[list[list[float]], list[float]]:
    """Section 3 of arXiv:2210.09461 for one image, without a tensor.

    Tokens alternate between sets A and B; each of A draws one edge to its most similar of B; the
    r most similar edges stay; connected tokens are averaged by size; the sets are joined again.
    """

    def cosine(one: list[float], two: list[float]) -> float:
        return (
            sum(a * b for a, b in zip(one, two, strict=True)) / math.hypot(*one) / math.hypot(*two)
        )

    first, second = range(0, len(tokens), 2), range(1, len(tokens), 2)
    edges = []
    for a in first:
        if a != 0:  # the class token stays as it is
            edges.append(max((cosine(metric[a], metric[b]), b, a) for b in second))
    joined = {a: b for _, b, a in sorted(edges, reverse=True)[:removed]}
    merged, weights = [], []
    for token in [a for a in first if a not in joined] + list(second):
        group = [token] + [a for a, b in joined.items() if b == token]
        weights.append(sum(sizes[member] for member in group))
        merged.append([
            sum(sizes[member] * tokens[member][channel] for member in group) / weights[-1]
            for channel in range(len(tokens[0]))
        ])  # fmt: skip
    return merged, weights


@pytest.mark.parametrize("count", [2, 3, 8, 17, 50])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sized", [False, True])
def test_one_step_is_the_published_one(count: int, share: float, sized: bool) -> None:
    generator = torch.Generator().manual_seed(count)
    tokens, keys = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, count, 5), (2, 3, count, 4))
    )
    sizes = torch.randint(1, 6, (2, count, 1), generator=generator).double() if sized else None
    removed = round(share * most_removable(count))
    merged, weights = reduce_tokens(tokens, keys, sizes, removed)
    if removed == 0:
        assert merged is tokens
        assert weights is sizes
        return
    assert weights is not None
    before = torch.ones(2, count, 1, dtype=torch.float64) if sizes is None else sizes
    for image in range(2):
        metric = keys[image].mean(0).tolist()
        expected, expected_weights = by_hand(
            tokens[image].tolist(), metric, before[image, :, 0].tolist(), removed
        )
        assert weights[image, :, 0].tolist() == expected_weights
        torch.testing.assert_close(merged[image], torch.tensor(expected, dtype=torch.float64))
    assert weights.sum() == before.sum()
    torch.testing.assert_close((merged * weights).sum(1), (tokens * before).sum(1))
    torch.testing.assert_close(merged[:, 0], tokens[:, 0])
    assert torch.equal(weights[:, 0], before[:, 0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kept", [50, 64])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_it_runs(variant: str, batch: int, kept: int, dtype: str) -> None:
    params = {"heads": 4, "layers": 3}
    ready = METHOD.prepare(
        MethodCase(batch, 64, kept, 32, dtype=dtype, variant=variant, params=params)
    )
    made: Any = ready.run()
    assert made.shape == (batch, kept, 32)
    assert made.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert torch.isfinite(made).all()
    assert not made.requires_grad
    assert torch.equal(made, ready.run())
    assert ready.output_tokens == kept
    assert ready.parameters == 0
    assert ready.graph_safe


def small_tower(layers: int = 4) -> tuple[Any, Any]:
    torch.manual_seed(1)
    tower = clip_tower(side=6, width=32, layers=layers, heads=4, mlp_width=48)
    for weight in tower.parameters():
        weight.normal_(0.0, 0.2)
    return tower, torch.randn(2, 3, 84, 84)


@pytest.mark.parametrize("fused", [False, True])
def test_a_tower_that_merges_nothing_is_the_library_s(fused: bool) -> None:
    tower, pixels = small_tower()
    encoded = encode(tower.encoder.layers, embed(tower, pixels), [None] * 4, fused=fused)
    assert encoded.counts == (37,) * 5
    assert encoded.sizes is None
    expected = tower(pixels).last_hidden_state
    torch.testing.assert_close(encoded.tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_a_large_token_is_attended_to_like_its_copies(fused: bool) -> None:
    tower, _ = small_tower(1)
    attention = tower.encoder.layers[0].self_attn
    tokens, sizes = torch.randn(1, 5, 32), torch.tensor([1, 3, 1, 2, 4])
    copied = tokens.repeat_interleave(sizes, dim=1)
    merged, _ = attend(attention, tokens, sizes.view(1, 5, 1).float(), fused=fused)
    apart, _ = attend(attention, copied, None, fused=fused)
    torch.testing.assert_close(merged.repeat_interleave(sizes, dim=1), apart, rtol=1e-4, atol=1e-5)


def test_tokens_of_each_block() -> None:
    tower, pixels = small_tower()
    removed = (9, 0, 13, 2)
    encoded = encode(tower.encoder.layers, embed(tower, pixels), schedule_steps(removed))
    assert encoded.counts == (37, 28, 28, 15, 13)
    assert encoded.tokens.shape == (2, 13, 32)
    assert encoded.sizes is not None
    assert encoded.sizes.sum(1).tolist() == [[37.0], [37.0]]
    assert encoded.sizes[:, 0].tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("kept", [576, 192, 128, 64])
@pytest.mark.parametrize("layers", [12, 23, 24])
def test_an_even_schedule_reaches_its_goal(kept: int, layers: int) -> None:
    removed = even_schedule(576, kept, layers)
    assert len(removed) == layers
    assert 576 - sum(removed) == kept
    assert all(0 <= one - two <= 1 for one, two in pairwise(removed))


@pytest.mark.parametrize(("tokens", "kept"), [(576, 560), (255, 192), (64, 32)])
@pytest.mark.parametrize("batch", [1, 2])
def test_products(tokens: int, kept: int, batch: int) -> None:
    ready = METHOD.prepare(MethodCase(batch, tokens, kept, 32, params={"heads": 4}))
    count = tokens + 1
    expected = 2 * batch * math.ceil(count / 2) * (count // 2) * 8
    assert count_flops(ready.run) == expected


def test_products_of_a_tower() -> None:
    layers, width, mlp, side = 3, 32, 48, 6
    params = {"heads": 4, "layers": layers, "mlp_width": mlp}
    ready = METHOD.prepare(MethodCase(2, side**2, 20, width, variant="tower", params=params))
    expected, count = 2 * side**2 * width * 3 * 14**2, side**2 + 1
    for removed in even_schedule(side**2, 20, layers):
        expected += 2 * (4 * count * width**2 + 2 * count**2 * width)
        expected += 2 * math.ceil(count / 2) * (count // 2) * (width // 4)
        count -= removed
        expected += 2 * 2 * count * width * mlp
    assert count_flops(ready.run) == 2 * expected


def test_launches() -> None:
    params = {"heads": 4, "layers": 4}
    step = METHOD.prepare(MethodCase(2, 64, 50, 32, params=params))
    assert count_calls(step.run).launches == 19
    tokens, keys = torch.randn(2, 65, 32), torch.randn(2, 4, 65, 8)
    assert count_calls(lambda: reduce_tokens(tokens, keys, None, 8)).launches == 20
    case = MethodCase(2, 64, 64, 32, variant="tower", params=params)
    plain = count_calls(METHOD.prepare(case).run)
    merging = count_calls(
        METHOD.prepare(MethodCase(2, 64, 40, 32, variant="tower", params=params)).run
    )
    assert plain.launches == 5 + 4 * 21
    assert merging.launches == plain.launches + 4 * 19 + 1 + 3 * 2
    assert plain.waits == merging.waits == 0


@pytest.mark.parametrize(
    ("variant", "tokens", "kept", "params", "message"),
    [
        ("step", 64, 31, {}, "kept: one step keeps at least 32 of 64 tokens, not 31"),
        ("step", 64, 60, {"heads": 5}, "heads: 5 do not divide the width 32"),
        ("tower", 64, 60, {"heads": 5}, "heads: 5 do not divide the width 32"),
        ("tower", 60, 50, {}, "tokens: 60 is no square"),
        ("tower", 64, 4, {"layers": 2}, "kept: 4 of 64 tokens would merge 30 of 35 in block 1"),
    ],
)
def test_what_cannot_be_done(
    variant: str, tokens: int, kept: int, params: dict[str, int], message: str
) -> None:
    case = MethodCase(1, tokens, kept, 32, variant=variant, params={"heads": 4, **params})
    with pytest.raises(ValueError, match=message):
        METHOD.prepare(case)


@pytest.mark.parametrize("removed", [-1, 5])
def test_more_than_half_cannot_merge(removed: int) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 4"):
        reduce_tokens(torch.ones(1, 9, 2), torch.ones(1, 1, 9, 2), None, removed)
