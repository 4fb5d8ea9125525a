"""The longest of a micro batch: against draws, and what training spends on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from costmodel.training import Recipe, load_recipe, train_cost
from costmodel.training.padding import expected_longest

GPU = "a100-80gb-sxm"


@pytest.mark.parametrize(
    ("mean", "samples", "most"), [(250, 16, 1472), (25, 32, 1472), (1024, 16, 2048), (300, 4, 700)]
)
def test_longest_of_draws(mean: float, samples: int, most: float) -> None:
    """Exponential lengths, cut off, with a mean that is reached after the cut."""
    scales = np.linspace(mean, 20 * mean, 200_000)
    scale = scales[np.argmin(np.abs(scales * -np.expm1(-most / scales) - mean))]
    draws = np.minimum(np.random.default_rng(7).exponential(scale, (40_000, samples)), most)
    assert draws.mean() == pytest.approx(mean, rel=0.01)
    found = expected_longest(mean, samples, most)
    assert found == pytest.approx(draws.max(axis=1).mean(), rel=0.01)


def test_one_sample_needs_no_padding_and_the_limit_holds() -> None:
    for mean in (1.0, 250.0, 1471.0, 1471.999):
        assert expected_longest(mean, 1, 1472) == pytest.approx(mean, rel=1e-6)
        assert mean <= expected_longest(mean, 64, 1472) * (1 + 1e-9) <= 1472 * (1 + 1e-6)
    assert expected_longest(1500, 16, 1472) == 1500
    longest = [expected_longest(250, samples, 1472) for samples in (1, 2, 16, 128, 10_000)]
    assert longest == sorted(longest)
    assert longest[1] == pytest.approx(1.5 * 250, rel=0.02)


def _with_stage(**changes: Any) -> Recipe:
    recipe = load_recipe("llava-1.5").model_dump(mode="json")
    recipe["stages"] = [{**recipe["stages"][1], **changes}]
    return Recipe.parse(recipe, "test")


def test_padding_takes_time_but_is_no_useful_work() -> None:
    padded, alone = (
        train_cost("llava-1.5-7b", GPU, recipe=_with_stage(max_tokens=most)).stages[0]
        for most in (2048, 826)
    )
    # Nothing is longer than the mean of samples with images where that is the limit.
    assert padded.flops == alone.flops
    assert padded.tokens == alone.tokens == alone.padded_tokens
    assert padded.padded_tokens > 1.3 * padded.tokens
    assert padded.compute_s > 1.3 * alone.compute_s
    assert padded.achieved_share < alone.achieved_share
    assert padded.band_s is not None
    assert padded.band_s[0] < padded.time_s < padded.band_s[1]


def test_a_sample_at_a_time_is_not_padded() -> None:
    stage = train_cost("llava-1.5-7b", GPU, recipe=_with_stage(micro_batch=1)).stages[0]
    assert stage.padded_tokens == pytest.approx(stage.tokens, rel=1e-6)


def test_tokens_saved_are_saved_padded_too() -> None:
    """Padding depends on the text alone until samples reach their limit."""
    full, few = (
        train_cost("llava-1.5-7b", GPU, compress=method).stages[0]
        for method in ("none", "random:k=64")
    )
    saved = full.samples * (576 - 64)
    assert full.tokens - few.tokens == saved
    assert full.padded_tokens - few.padded_tokens == pytest.approx(saved, rel=0.01)
