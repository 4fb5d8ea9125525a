"""VisionZip that runs, against its algorithm written out token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls, count_flops  # noqa: E402
from costmodel.reference.methods.visionzip import Budget, FusedZip, zip_tokens  # noqa: E402

pytestmark = pytest.mark.verify

METHOD = load_method("visionzip")
HEADS = 3


def outputs(count: int, seed: int = 0, images: int = 2) -> tuple[Any, Any, Any]:
    """Hidden states, attention and keys of a layer with `count` tokens."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(*shape: int) -> Any:
        return torch.randn(images, *shape, generator=generator, dtype=torch.float64)

    attention = (3 * fresh(HEADS, count, count)).softmax(-1)
    return fresh(count, 6), attention, fresh(HEADS, count, 4)


def by_hand(hidden: Any, attention: Any, keys: Any, budget: Budget) -> list[list[float]]:
    """Section 3 of arXiv:2412.04467 for one image, one token at a time."""
    count = len(hidden)
    saliency = {
        patch: sum(float(attention[head, 0, patch]) for head in range(HEADS))
        for patch in range(1, count)
    }
    ranked = sorted(saliency, key=lambda patch: saliency[patch], reverse=True)
    dominant = sorted([0, *ranked[: budget.dominant - 1]])
    rest = [token for token in range(count) if token not in dominant]
    metric = {token: keys[:, token].mean(0).tolist() for token in rest}

    def cosine(one: int, two: int) -> float:
        a, b = metric[one], metric[two]
        return sum(map(math.prod, zip(a, b, strict=True))) / math.hypot(*a) / math.hypot(*b)

    targets = rest[:: len(rest) // budget.contextual][: budget.contextual]
    groups: dict[int, list[int]] = {target: [] for target in targets}
    for token in rest:
        if token not in groups:
            groups[max(targets, key=lambda target: cosine(token, target))].append(token)
    contextual = [
        hidden[target] + (hidden[group].mean(0) if group else 0) for target, group in groups.items()
    ]
    return [*hidden[dominant].tolist(), *(one.tolist() for one in contextual)]


@pytest.mark.parametrize(
    ("count", "dominant", "contextual"),
    [(577, 54, 10), (577, 108, 20), (577, 162, 30), (20, 1, 4), (20, 12, 8), (33, 7, 5)],
)
def test_both_variants_are_the_published_algorithm(
    count: int, dominant: int, contextual: int
) -> None:
    budget, given = Budget(dominant, contextual), outputs(count, seed=dominant)
    released, fused = zip_tokens(*given, budget), FusedZip(count, budget)(*given)
    assert released.shape == (2, dominant + contextual, 6)
    torch.testing.assert_close(fused, released)
    hidden, attention, keys = given
    for image in range(2):
        expected = by_hand(hidden[image], attention[image], keys[image], budget)
        torch.testing.assert_close(released[image], torch.tensor(expected, dtype=torch.float64))


def test_keeping_all_changes_nothing() -> None:
    given = outputs(30)
    assert torch.equal(zip_tokens(*given, Budget(30, 0)), given[0])
    assert torch.equal(FusedZip(30, Budget(30, 0))(*given), given[0])


def test_where_all_others_are_targets_each_stays_as_it_is() -> None:
    hidden, attention, keys = outputs(30)
    for made in (
        zip_tokens(hidden, attention, keys, Budget(10, 20)),
        FusedZip(30, Budget(10, 20))(hidden, attention, keys),
    ):
        assert torch.equal(
            torch.cat(list(made)).sort(dim=0).values.view(-1),
            torch.cat(list(hidden)).sort(dim=0).values.view(-1),
        )


def test_budgets_of_the_paper() -> None:
    budgets = [Budget.of(kept) for kept in (64, 128, 192)]
    assert budgets == [Budget(54, 10), Budget(108, 20), Budget(162, 30)]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kept", [64, 192])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_it_runs(variant: str, batch: int, kept: int, dtype: str) -> None:
    case = MethodCase(batch, 576, kept, 64, dtype=dtype, variant=variant, params={"heads": 4})
    ready = METHOD.prepare(case)
    made: Any = ready.run()
    assert made.shape == (batch, kept, 64)
    assert made.dtype == case.torch_dtype
    assert torch.isfinite(made).all()
    assert torch.equal(made, ready.run())
    assert ready.output_tokens == kept
    assert ready.parameters == 0
    assert ready.graph_safe == (variant == "fused")


@pytest.mark.parametrize("variant", METHOD.variants)
@pytest.mark.parametrize(("kept", "contextual"), [(64, None), (192, None), (50, 1), (50, 0)])
@pytest.mark.parametrize("batch", [1, 2])
def test_products(variant: str, kept: int, contextual: int | None, batch: int) -> None:
    params = {"heads": 4, "contextual": contextual}
    ready = METHOD.prepare(MethodCase(batch, 576, kept, 64, variant=variant, params=params))
    targets = Budget.of(kept).contextual if contextual is None else contextual
    moving = 577 - kept
    assert count_flops(ready.run) == batch * 2 * moving * targets * (16 + 64)


@pytest.mark.parametrize(("variant", "expected"), [("released", (35, 5)), ("fused", (25, 0))])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("kept", [64, 192])
def test_launches_and_waits(variant: str, expected: tuple[int, int], batch: int, kept: int) -> None:
    case = MethodCase(batch, 576, kept, 32, variant=variant, params={"heads": 4})
    calls = count_calls(METHOD.prepare(case).run)
    # With 30 targets each of two isin looks for unique values twice.
    sorts = 4 if (variant, kept) == ("released", 192) else 0
    assert (calls.launches, calls.waits - sorts) == expected


@pytest.mark.parametrize(
    ("kept", "params", "message"),
    [
        (60, {"contextual": 60}, "kept: 0 dominant and 60 contextual tokens do not fit into 577"),
        (60, {"contextual": -1}, "kept: 61 dominant and -1 contextual"),
        (60, {"heads": 5}, "heads: 5 do not divide the width 32"),
    ],
)
@pytest.mark.parametrize("variant", METHOD.variants)
def test_what_cannot_be_done(variant: str, kept: int, params: dict[str, int], message: str) -> None:
    case = MethodCase(1, 576, kept, 32, variant=variant, params={"heads": 4, **params})
    with pytest.raises(ValueError, match=message):
        METHOD.prepare(case)
