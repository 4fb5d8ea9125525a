"""Fits recover what made the data, ignore outliers, repeat exactly and keep groups apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration.evaluation_gemm import GemmStack, across_labs, evaluate_gemm
from costmodel.calibration.fitting import Samples, cross_validate, fit, group_folds
from costmodel.calibration.residuals import (
    NEAR,
    corrected_time_s,
    cross_validate_corrected,
    fit_residual,
)
from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import Chip
from costmodel.timing.kernels.gemm import BENCHMARK_MODEL, MODEL
from costmodel.timing.kernels.residual import coordinates

A100 = Chip(312e12, 2039e9, 40 * 2**20, 108, 300e9)
TRUTH = {
    "e": 0.9, "eb": 0.8, "t0": 5e-6, "al": 0.4, "beta": 30.0, "kf": 200.0, "pw": 0.1, "tp": 3e-4,
    "l2": 6e12, "sk": 3e-6, "wr": 1.3, "pn": 3.0, "phi": 0.4, "lh": 3.0,
}  # fmt: skip
LAYER = ((12_288, 4096), (4096, 4096), (22_016, 4096), (4096, 11_008))


def synthetic(noise: float = 0.0, outliers: float = 0.0, seed: int = 0) -> Samples:
    """Return timings of `TRUTH` with log-normal noise and a share of rows ten times too long."""
    rng = np.random.default_rng(seed)
    pairs = [(1024.0 * a, 512.0 * b) for a in (1, 4, 12, 24) for b in (1, 4, 8, 24)]
    pairs += [(float(n), float(k)) for n, k in LAYER]
    m_values = np.unique(np.geomspace(1, 8192, 40).round())
    n, k = (np.repeat(np.array(column), len(m_values)) for column in zip(*pairs, strict=True))
    shapes = {"m": np.tile(m_values, len(pairs)), "n": n, "k": k}
    time_s = BENCHMARK_MODEL.time_s(TRUTH, shapes, A100) * np.exp(noise * rng.normal(size=len(n)))
    time_s = np.where(rng.random(len(n)) < outliers, 10 * time_s, time_s)
    return Samples(shapes, time_s, (n * 100_000 + k).astype(np.int64))


@pytest.mark.parametrize(("noise", "outliers"), [(0.0, 0.0), (0.02, 0.03)])
def test_known_parameters_are_recovered(noise: float, outliers: float) -> None:
    samples = synthetic(noise, outliers)
    found = fit(BENCHMARK_MODEL, samples, A100, starts=1)
    clean = synthetic().time_s
    predicted = BENCHMARK_MODEL.time_s(found.values, samples.shapes, A100)
    assert np.abs(predicted / clean - 1).mean() < 0.003 + noise / 2
    for name, tolerance in {"e": 0.05, "eb": 0.05, "t0": 0.15, "pn": 0.3, "kf": 0.3}.items():
        assert found.values[name] == pytest.approx(TRUTH[name], rel=tolerance), name


def test_the_same_data_give_the_same_fit() -> None:
    samples = synthetic(0.02)
    first, second = (fit(MODEL, samples, A100, starts=2, max_rows=200) for _ in range(2))
    assert first == second


def test_fixed_parameters_stay() -> None:
    found = fit(MODEL, synthetic(), A100, starts=1, fixed={"al": 0.25}, max_rows=200)
    assert found.values["al"] == 0.25


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(CostModelError, match="too few"):
        fit(MODEL, synthetic().take(np.arange(10)), A100)


@given(st.lists(st.integers(0, 12), min_size=4, max_size=200), st.integers(2, 5))
def test_folds_keep_groups_together(groups: list[int], folds: int) -> None:
    fold = group_folds(groups, folds)
    assert fold.min() >= 0
    assert fold.max() < folds
    for group in set(groups):
        assert len(set(fold[np.array(groups) == group])) == 1


def test_cross_validation_does_not_see_what_it_predicts() -> None:
    samples = synthetic()
    odd = samples.groups == samples.groups[0]
    broken = Samples(samples.shapes, np.where(odd, 5 * samples.time_s, samples.time_s),
                     samples.groups)  # fmt: skip
    predicted = cross_validate(BENCHMARK_MODEL, broken, A100, starts=1, max_rows=300)
    assert np.median(broken.time_s[odd] / predicted[odd]) == pytest.approx(5, rel=0.1)


def test_residual_learns_a_smooth_error_and_nothing_else() -> None:
    samples = synthetic(noise=0.02)
    points = coordinates(samples.shapes, MODEL.sizes)
    smooth = 0.2 * np.sin(points[:, 0] / 2)
    modelled = synthetic().time_s
    ratio = np.log(samples.time_s / modelled) + smooth
    residual = fit_residual(points, ratio, scales=(2.0, 2.0, 2.0), max_points=300)
    assert np.abs(residual.log_correction(points) - smooth).mean() < 0.02
    assert len(residual.points) <= 300
    away = points + np.array([0.0, 0.0, 40.0])
    assert np.abs(residual.log_correction(away)).max() < 1e-6
    unchanged = corrected_time_s(modelled, None, points)
    assert unchanged is modelled


def test_near_residual_leaves_other_shapes_alone() -> None:
    samples = synthetic()
    points = coordinates(samples.shapes, MODEL.sizes)
    residual = fit_residual(
        points, np.full(len(samples), 0.2), scales=NEAR, max_points=800, noise_ratio=0.1
    )
    assert np.abs(residual.log_correction(points) - 0.2).max() < 0.02
    assert np.abs(residual.log_correction(points + np.array([0.0, 0.45, 0.45]))).max() < 0.01


def test_evaluation_has_every_quantity() -> None:
    layers = {"seven": LAYER}
    stack = GemmStack("g", "s", "w", "fp16", A100, synthetic(0.01), layers)
    rows = evaluate_gemm(stack)
    assert [row.quantity.split(",")[0] for row in rows] == [
        "unseen (n", "unseen m of seen (n", "sum of a layer's products",
    ]  # fmt: skip
    assert all(row.mape_pct < 4 for row in rows)
    assert all(row.mape_pct < row.roofline_mape_pct for row in rows)
    assert across_labs(stack, stack).mape_pct < 2


@pytest.fixture(scope="module")
def a100_fp16(shared_dir: Path) -> Samples:
    columns = ["gpu", "source", "m", "n", "k", "time_us"]
    wanted: list[Any] = [("gpu", "==", "A100-SXM4-80GB"), ("source", "==", "vidur@7d47513")]
    frame = pd.read_parquet(shared_dir / "measurements/gemm.parquet", columns=columns,
                            filters=wanted)  # fmt: skip
    frame = frame[frame.time_us >= 10]
    shapes = {name: frame[name].to_numpy(np.float64) for name in ("m", "n", "k")}
    groups = (shapes["n"] * 1_000_000 + shapes["k"]).astype(np.int64)
    return Samples(shapes, frame.time_us.to_numpy(np.float64) * 1e-6, groups)


def test_unseen_shapes_of_vidur_on_a100(a100_fp16: Samples) -> None:
    predicted = cross_validate(BENCHMARK_MODEL, a100_fp16, A100, starts=1, max_rows=700)
    error = 100 * np.abs(predicted / a100_fp16.time_s - 1)
    assert error.mean() <= 6
    assert np.quantile(error, 0.9) <= 12.5


def test_unseen_m_of_vidur_on_a100(a100_fp16: Samples) -> None:
    m_values, fold = np.unique(a100_fp16.shapes["m"], return_inverse=True)
    assert len(m_values) > 200
    thinned = a100_fp16.take(np.flatnonzero(np.arange(len(a100_fp16)) % 3 == 0))
    plain, corrected = cross_validate_corrected(
        BENCHMARK_MODEL, thinned, A100, fold=(fold[::3] % 2).astype(np.int64), starts=1,
        max_rows=700, scales=NEAR, noise_ratio=0.3, max_points=600,
    )  # fmt: skip
    error = [100 * np.abs(time / thinned.time_s - 1).mean() for time in (plain, corrected)]
    assert error[1] < min(5.0, error[0] - 1)
