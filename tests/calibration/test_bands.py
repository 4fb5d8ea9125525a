"""Bands cover what they promise, also for groups they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.calibration.bands import (
    Bands,
    bands_from_residuals,
    common_share,
    sum_half_width,
)
from costmodel.calibration.fitting import group_folds
from costmodel.errors import CostModelError


def synthetic(
    groups: int, rows: int, seed: int, *, own: float = 0.05, shared: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return residuals with a part per size that groups share, their sizes and groups."""
    rng = np.random.default_rng(seed)
    size = np.tile(np.arange(rows, dtype=float), groups)
    group = np.repeat(np.arange(groups), rows)
    scale = np.where(size < rows / 2, 2.0, 1.0)
    common = shared * rng.normal(size=rows)[size.astype(int)]
    return scale * (own * rng.normal(size=len(size)) + common), size, group


@pytest.mark.parametrize("level", [0.8, 0.9])
@pytest.mark.parametrize("groups", [20, 150])
def test_unseen_groups_are_covered(level: float, groups: int) -> None:
    residual, size, group = synthetic(groups, 60, seed=3)
    residual = residual + 0.04 * np.random.default_rng(4).normal(size=groups)[group]
    fold = group_folds(group, 5)
    covered = np.zeros(len(residual), dtype=bool)
    for index in range(5):
        inside = fold != index
        bands = bands_from_residuals(
            residual[inside], size[inside], group[inside], level, edges=(30.0,)
        )
        low, high = bands.log_range(size)
        covered[~inside] = ((residual >= low) & (residual <= high))[~inside]
    assert level - 0.05 <= covered.mean() <= level + 0.05


def test_bins_are_as_wide_as_their_scatter() -> None:
    residual, size, group = synthetic(100, 40, seed=1)
    bands = bands_from_residuals(residual, size, group, edges=(20.0,))
    assert bands.high[0] == pytest.approx(2 * bands.high[1], rel=0.15)
    assert bands.low[0] == pytest.approx(-0.05 * 2 * 1.645, rel=0.15)


def test_bins_of_few_rows_take_the_range_of_all() -> None:
    residual, size, group = synthetic(40, 20, seed=2)
    bands = bands_from_residuals(residual, size, group, edges=(100.0,))
    everything = bands_from_residuals(residual, size, group)
    assert (bands.low[1], bands.high[1]) == (everything.low[0], everything.high[0])


def test_bands_do_not_depend_on_the_order_of_rows() -> None:
    residual, size, group = synthetic(30, 20, seed=5)
    order = np.random.default_rng(0).permutation(len(residual))
    first = bands_from_residuals(residual, size, group, edges=(10.0,))
    second = bands_from_residuals(residual[order], size[order], group[order], edges=(10.0,))
    assert first.low == second.low
    assert first.high == second.high


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8])
def test_common_share_is_recovered(share: float) -> None:
    residual, size, group = synthetic(
        80, 400, seed=7, own=0.1 * np.sqrt(1 - share), shared=0.1 * np.sqrt(share)
    )
    assert common_share(residual, size, group) == pytest.approx(share, abs=0.06)


def test_nothing_is_known_of_a_single_group() -> None:
    assert common_share(np.array([0.1, -0.1]), np.array([1.0, 2.0]), np.zeros(2, int)) == 1.0


def test_sums_of_kernels_are_covered() -> None:
    residual, size, group = synthetic(400, 200, seed=9, own=0.06, shared=0.03)
    bands = bands_from_residuals(residual, size, group, edges=(100.0,))
    rng = np.random.default_rng(1)
    members = rng.integers(0, 400, (3000, 4))
    at = rng.integers(100, 200, 3000)
    parts = residual.reshape(400, 200)[members, at[:, None]]
    seconds = rng.lognormal(size=(3000, 4))
    actual = np.log((seconds * np.exp(parts)).sum(axis=1) / seconds.sum(axis=1))
    width = sum_half_width(seconds, np.full((3000, 4), bands.high[1]), bands.common_share)
    assert 0.85 <= (np.abs(actual) <= width).mean() <= 0.97


def test_boundary_belongs_to_the_upper_bin() -> None:
    low, _ = Bands((10.0,), (-1.0, -2.0), (1.0, 2.0), 0.0).log_range(np.array([9.9, 10.0]))
    assert low.tolist() == [-1.0, -2.0]


@pytest.mark.parametrize(("rows", "level"), [(0, 0.9), (5, 0.0), (5, 1.0)])
def test_refuses_what_has_no_answer(rows: int, level: float) -> None:
    zeros = np.zeros(rows)
    with pytest.raises(CostModelError, match="bands"):
        bands_from_residuals(zeros, zeros, zeros.astype(int), level)
