"""Inputs: random, apart from each other, and more than the cache holds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from costmodel.reference.harness.case import rotating
from costmodel.reference.harness.inputs import DTYPES, Inputs, Pool, Rotation

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

MIB = 1 << 20


def _inputs(dtype: str = "fp32", cache: int = MIB, cap: int = 1 << 30) -> Inputs:
    return Inputs(Pool("cpu"), dtype, Rotation(cache, cap))


def _span(tensor: Any) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("dtype", DTYPES)
def test_data_are_standard_normal_and_not_zero(dtype: str) -> None:
    made = _inputs(dtype).normal(300, 700)
    assert str(made.dtype) == f"torch.{DTYPES[dtype]}"
    assert (made == 0).float().mean() < 1e-3
    # 210,000 samples: ten standard errors of mean and deviation.
    assert abs(made.double().mean()) < 10 / 210_000**0.5
    assert abs(made.double().std() - 1) < 10 / (2 * 210_000) ** 0.5


def test_sets_together_exceed_twice_the_cache() -> None:
    sets: list[Any] = []
    runnable = rotating(_inputs(), lambda some: (some.normal(100, 100),), sets.append)
    assert runnable.set_bytes == 40_000
    assert runnable.rotation_bytes > 2 * MIB
    for number in range(2 * runnable.sets):
        runnable.run(number)
    spans = sorted({_span(one) for one in sets})
    assert len(spans) == runnable.sets
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert not torch.equal(sets[0], sets[1])


def test_a_cap_on_memory_is_kept_and_told() -> None:
    rotation = Rotation(cache_bytes=64 * MIB, cap_bytes=MIB)
    inputs = Inputs(Pool("cpu"), "fp32", rotation)
    runnable = rotating(inputs, lambda some: (some.normal(1000),), lambda x: x)
    assert runnable.rotation_bytes <= MIB
    assert not rotation.exceeds_cache(runnable.rotation_bytes)


def test_inputs_that_exceed_the_memory_alone_are_one_set() -> None:
    assert Rotation(cache_bytes=MIB, cap_bytes=MIB).sets(10 * MIB) == 1


def test_outputs_do_not_overwrite_inputs() -> None:
    pool = Pool("cpu")
    inputs = Inputs(pool, "fp32", Rotation(MIB, 1 << 30))
    before = inputs.normal(1000).clone()
    inputs.scratch(1000).fill_(7)
    pool.rewind()
    assert torch.equal(Inputs(pool, "fp32", Rotation(MIB, 1 << 30)).normal(1000), before)


def test_a_seed_gives_the_same_numbers() -> None:
    rotation = Rotation(MIB, 1 << 30)
    one, same, other = (
        Inputs(Pool("cpu", seed), "bf16", rotation).normal(50) for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_more_than_a_chunk_is_made_at_once() -> None:
    made = _inputs("fp16").normal(40 * MIB)
    assert made.numel() == 40 * MIB
    assert made[-1] != made[0]


def test_integers_are_below_their_limit() -> None:
    made = _inputs().below(7, 1000)
    assert (int(made.min()), int(made.max())) == (0, 6)
