"""Random and spatial sampling that run."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

from costmodel.reference.methods import MethodCase, load_method  # noqa: E402
from costmodel.reference.methods.counting import count_calls  # noqa: E402
from costmodel.reference.methods.random import keep_random, keep_random_per_image  # noqa: E402
from costmodel.reference.methods.spatial import (  # noqa: E402
    even_indices,
    grid_indices,
    keep_spatial,
)

pytestmark = pytest.mark.verify

DRAWS = (keep_random, keep_random_per_image)


def seeded(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("name", "variant"),
    [("random", "batched"), ("random", "loop"), ("spatial", "even"), ("spatial", "grid")],
)
def test_shapes(name: str, variant: str, batch: int, dtype: str) -> None:
    case = MethodCase(batch, 144, 36, 32, dtype=dtype, variant=variant)
    made = load_method(name).prepare(case)
    out: Any = made.run()
    assert out.shape == (batch, 36, 32)
    assert out.dtype == case.torch_dtype
    assert (made.output_tokens, made.parameters) == (36, 0)


@pytest.mark.parametrize("keep", DRAWS)
def test_random_tokens_are_distinct_tokens_of_their_image(keep: Any) -> None:
    tokens = torch.randn(4, 50, 8)
    kept, indices = keep(tokens, 20, seeded())
    for image, rows, chosen in zip(tokens, kept, indices, strict=True):
        assert len(set(chosen.tolist())) == 20
        assert torch.equal(rows, image[chosen])
    assert not torch.equal(indices[0], indices[1])
    assert torch.equal(keep(tokens, 20, seeded())[1], indices)
    assert not torch.equal(keep(tokens, 20, seeded(1))[1], indices)


@pytest.mark.parametrize("keep", DRAWS)
def test_every_token_is_as_likely(keep: Any) -> None:
    images, tokens, kept = 4000, 12, 3
    _, indices = keep(torch.zeros(images, tokens, 1), kept, seeded())
    share, spread = kept / tokens, (kept / tokens * (1 - kept / tokens) / images) ** 0.5
    # Five standard deviations of a binomial share, for the set and for its first place.
    found = indices.flatten().bincount(minlength=tokens) / images
    assert (found - share).abs().max() < 5 * spread
    first = indices[:, 0].bincount(minlength=tokens) / images
    assert (first - 1 / tokens).abs().max() < 5 * (1 / tokens * (1 - 1 / tokens) / images) ** 0.5


@pytest.mark.parametrize("keep", DRAWS)
def test_keeping_all_is_the_identity_up_to_order(keep: Any) -> None:
    tokens = torch.randn(2, 30, 4)
    kept, indices = keep(tokens, 30, seeded())
    order = indices.argsort(1)[..., None].expand_as(kept)
    assert torch.equal(kept.gather(1, order), tokens)


@pytest.mark.parametrize(("tokens", "kept"), [(576, 64), (576, 115), (196, 39), (7, 7), (9, 1)])
def test_even_indices_are_even(tokens: int, kept: int) -> None:
    found = even_indices(tokens, kept)
    steps = found.diff()
    assert found[0] >= 0
    assert found[-1] < tokens
    if kept > 1:
        assert tokens // kept <= steps.min()
        assert steps.max() <= -(-tokens // kept)
    assert abs(found[0] - (tokens - 1 - found[-1])) <= 1


def test_grid_indices_are_even_in_rows_and_columns() -> None:
    found = grid_indices(24, 8)
    line = even_indices(24, 8).tolist()
    assert found.tolist() == [24 * row + column for row in line for column in line]


def test_keeping_all_in_place_is_the_identity() -> None:
    tokens = torch.randn(2, 36, 4)
    for indices in (even_indices(36, 36), grid_indices(6, 6)):
        assert torch.equal(keep_spatial(tokens, indices), tokens)


def test_launches() -> None:
    """The cost model counts a permutation and a gather, and a gather alone."""
    tokens = torch.randn(3, 36, 4)
    assert count_calls(lambda: keep_spatial(tokens, even_indices(36, 9))).waits == 0
    indices = even_indices(36, 9)
    assert count_calls(lambda: keep_spatial(tokens, indices)).launches == 1
    found = count_calls(lambda: keep_random(tokens, 9)).operators
    assert found == {"aten::rand": 1, "aten::topk": 1, "aten::gather": 1}
    looped = count_calls(lambda: keep_random_per_image(tokens, 9)).operators
    assert looped == {"aten::randperm": 3, "aten::index_select": 3, "aten::stack": 2}


def test_cases_that_cannot_be_done() -> None:
    with pytest.raises(ValueError, match="kept: 37 is more than the 36 tokens"):
        MethodCase(1, 36, 37, 4)
    with pytest.raises(ValueError, match="dtype: 'int4' is none of fp32, fp16, bf16"):
        MethodCase(1, 36, 9, 4, dtype="int4")
    with pytest.raises(ValueError, match="variant: spatial has no 'odd', only even, grid"):
        load_method("spatial").prepare(MethodCase(1, 36, 9, 4, variant="odd"))
    with pytest.raises(ValueError, match="params: random has no 'speed', only none"):
        load_method("random").prepare(MethodCase(1, 36, 9, 4, params={"speed": 1}))
    with pytest.raises(ValueError, match="kept: 10 is no square"):
        load_method("spatial").prepare(MethodCase(1, 36, 10, 4, variant="grid"))
    with pytest.raises(ValueError, match="there is no 'magic', only avgpool, "):
        load_method("magic")
