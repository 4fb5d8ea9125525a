"""Features of tilings equal counting by hand, and a correction with them fades like any other."""

from __future__ import annotations

import datetime
from math import log2
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration.building import build_kind, chip_of
from costmodel.calibration.residuals import TILING, WIDE_TILED, fit_residual
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.calibrations import load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError
from costmodel.specs.calibration import Calibration
from costmodel.timing.kernels.gemm import BENCHMARK_MODEL, MODEL
from costmodel.timing.kernels.residual import coordinates
from costmodel.timing.kernels.tile_features import tile_features
from costmodel.timing.prediction import kernel_time_s

sizes = st.integers(1, 70_000)


def covering(size: int, tile: int) -> int:
    """Return how many tiles cover a size, laid out one after the other."""
    return len(range(0, size, tile))


@given(sizes, sizes, st.integers(1, 4), st.integers(1, 200))
def test_features_are_what_counting_gives(m: int, n: int, batch: int, multiprocessors: int) -> None:
    shapes = {"m": np.array([m]), "n": np.array([n]), "batch": np.array([batch])}
    names = ("tiles_128x64", "waves_128x64", "pad_m128", "pad_n64")
    tiles, waves, pad_m, pad_n = (
        float(column[0]) for column in tile_features(shapes, names, multiprocessors)
    )
    count = batch * covering(m, 128) * covering(n, 64)
    rounds = covering(count, multiprocessors)
    assert tiles == pytest.approx(log2(count / multiprocessors))
    assert waves == pytest.approx(min(2.0, log2(rounds * multiprocessors / count)))
    assert pad_m == pytest.approx(min(2.0, log2(128 * covering(m, 128) / m)))
    assert pad_n == pytest.approx(min(2.0, log2(64 * covering(n, 64) / n)))


@pytest.mark.parametrize("name", ["pad_k64", "waves_128", "tiles", "pad_m256 ", ""])
def test_unknown_features_are_refused(name: str) -> None:
    with pytest.raises(CostModelError, match="pad_m<tile>"):
        tile_features({"m": np.ones(1), "n": np.ones(1)}, (name,), 108)


def test_coordinates_are_sizes_then_features() -> None:
    shapes = {"m": np.array([[1.0], [300.0]]), "n": np.array([512.0, 1024.0])}
    plain = coordinates(shapes, ("m", "n"))
    more = coordinates(shapes, ("m", "n"), ("tiles_128x128",), 4)
    assert plain.tolist() == more[:, :2].tolist()
    assert more[:, 2].tolist() == pytest.approx([0.0, 1.0, log2(3), log2(6)])


def test_an_error_that_depends_on_waves_carries_over_to_other_shapes_only_with_features() -> None:
    rng = np.random.default_rng(0)
    shapes = {"m": 2 ** rng.uniform(7, 13, 4000), "n": 2 ** rng.uniform(9, 13, 4000)}
    shapes = {name: size.round() for name, size in shapes.items()} | {"k": np.full(4000, 4096.0)}
    missed = 0.15 * tile_features(shapes, ("waves_128x128",), 108)[0]
    half = np.arange(4000) < 2000
    left = {}
    for features in ((), tuple(TILING)):
        points = coordinates(shapes, ("m", "n", "k"), features, 108)
        scales = (*WIDE_TILED, *(TILING[name] for name in features))
        residual = fit_residual(points[half], missed[half], scales=scales, max_points=500)
        left[features] = np.abs(missed - residual.log_correction(points))[~half].mean()
    assert left[tuple(TILING)] < 0.35 * left[()]


def test_a_correction_with_features_fades_away_from_data() -> None:
    rng = np.random.default_rng(0)
    near = {name: 2 ** rng.uniform(9, 13, 500).round(1) for name in ("m", "n", "k")}
    points = coordinates(near, ("m", "n", "k"), tuple(TILING), 108)
    residual = fit_residual(points, np.full(500, 0.2), scales=(*WIDE_TILED, *TILING.values()))
    assert np.abs(residual.log_correction(points) - 0.2).mean() < 0.02
    for name, size in near.items():
        far = {**near, name: 2.0**16 * size}
        away = coordinates(far, ("m", "n", "k"), tuple(TILING), 108)
        assert np.abs(residual.log_correction(away)).max() < 0.005, name


def test_a_table_with_features_survives_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shapes = {name: rng.integers(1, 40_000, 900).astype(np.float64) for name in ("m", "n", "k")}
    frame = pd.DataFrame(shapes | {"measurements": 1})
    profile = load_gpu("l40s")
    waves = tile_features(shapes, ("waves_128x128",), profile.multiprocessors)[0]
    values = {parameter.name: parameter.start for parameter in MODEL.parameters}
    modelled = BENCHMARK_MODEL.time_s(values, shapes, chip_of(profile))
    frame["time_s"] = modelled * np.exp(0.2 * waves)
    fit = build_kind("gemm", frame, profile, source="s", software="w", dtype="fp16", sha256="",
                     fitted=datetime.date(2026, 1, 1))  # fmt: skip
    assert fit.residual is not None
    assert fit.residual.features == tuple(TILING)
    assert set(fit.residual.points["m"]) <= set(shapes["m"])
    path = tmp_path / "l40s.mine.yaml"
    write_calibration(
        Calibration(name="l40s.mine", device="l40s", title="t", date=fit.fitted, kinds=(fit,)), path
    )
    read = load_calibration(str(path), profile).find("gemm")
    assert read is not None
    assert read.residual == fit.residual
    chip = chip_of(profile)
    corrected = kernel_time_s(read, shapes, chip, benchmark=True)
    plain = kernel_time_s(read.model_copy(update={"residual": None}), shapes, chip, benchmark=True)
    error = [np.abs(time_s / frame["time_s"] - 1).mean() for time_s in (corrected, plain)]
    assert error[0] < 0.6 * error[1]
