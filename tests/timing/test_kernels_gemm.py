"""Matrix product model: physics, batches, cache residency, quantised weights, residual."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter
from costmodel.timing.kernels.gemm import BENCHMARK_MODEL, MODEL, GemmModel
from costmodel.timing.kernels.gemm_quantised import W4A16, W8A16
from costmodel.timing.kernels.residual import Residual, coordinates

A100 = Chip(312e12, 2039e9, 40 * 2**20, 108, 300e9)
MODELS = [MODEL, BENCHMARK_MODEL, W8A16, W4A16]

sizes = st.integers(1, 40_000)
widths = st.integers(8, 66_000)


@st.composite
def parameter_values(draw: st.DrawFn, model: GemmModel = MODEL) -> dict[str, float]:
    def value(parameter: Parameter) -> float:
        return draw(st.floats(parameter.low, parameter.high))

    return {parameter.name: value(parameter) for parameter in model.parameters}


def start(model: GemmModel) -> dict[str, float]:
    return {parameter.name: parameter.start for parameter in model.parameters}


def time_s(
    values: dict[str, float],
    shape: Mapping[str, float],
    chip: Chip = A100,
    model: GemmModel = MODEL,
) -> float:
    shapes = {name: np.array(size, dtype=np.float64) for name, size in shape.items()}
    return float(model.time_s(values, shapes, chip))


@given(parameter_values(), sizes, widths, widths)
def test_never_faster_than_hardware(values: dict[str, float], m: int, n: int, k: int) -> None:
    seconds = time_s(values, {"m": m, "n": n, "k": k})
    flops, moved = 2.0 * m * n * k, 2.0 * (m * k + k * n + m * n)
    assert seconds >= values["t0"]
    assert seconds >= flops / (A100.peak_flops_per_s * 1.05)
    assert seconds >= moved / (A100.bandwidth_bytes_per_s * 1.1)


@given(parameter_values(), sizes, widths, widths)
def test_a_faster_chip_never_slows(values: dict[str, float], m: int, n: int, k: int) -> None:
    shape = {"m": m, "n": n, "k": k}
    more_sms = dataclasses.replace(
        A100, multiprocessors=216, peak_flops_per_s=2 * A100.peak_flops_per_s
    )
    more_bandwidth = dataclasses.replace(A100, bandwidth_bytes_per_s=2 * 2039e9)
    hard = values | {"beta": 400.0}
    before = time_s(hard, shape)
    # A soft minimum may turn to a candidate that gained less, by at most log(24)/beta.
    assert time_s(hard, shape, more_sms) <= before * 1.01
    assert time_s(hard, shape, more_bandwidth) <= before * 1.01


@pytest.mark.parametrize("model", MODELS)
@given(sizes, widths, widths)
def test_one_more_tile_dips_little(model: GemmModel, m: int, n: int, k: int) -> None:
    values = start(model)
    now = time_s(values, {"m": m, "n": n, "k": k}, model=model)
    later = time_s(values, {"m": m + 256, "n": n, "k": k}, model=model)
    assert later >= 0.9 * now


@given(parameter_values(), st.integers(1, 64), st.integers(1, 4096), widths, widths)
def test_batch_lies_between_one_product_and_as_many_launches(
    values: dict[str, float], batch: int, m: int, n: int, k: int
) -> None:
    values = values | {"beta": 400.0, "pw": 0.0}
    one = time_s(values, {"m": m, "n": n, "k": k})
    all_at_once = time_s(values, {"m": m, "n": n, "k": k, "batch": batch})
    assert 0.99 * one <= all_at_once <= 1.02 * batch * one


def test_batch_of_one_is_a_plain_product() -> None:
    values = start(MODEL)
    shape = {"m": 100, "n": 512, "k": 512}
    assert time_s(values, shape | {"batch": 1}) == time_s(values, shape)


def test_only_a_benchmark_finds_its_weights_in_the_cache() -> None:
    values = start(MODEL) | {"phi": 1.0, "lh": 4.0}
    small, large = {"m": 1, "n": 1024, "k": 1024}, {"m": 1, "n": 65_536, "k": 8192}
    assert time_s(values, small, model=BENCHMARK_MODEL) < time_s(values, small)
    warm, cold = time_s(values, large, model=BENCHMARK_MODEL), time_s(values, large)
    assert warm == pytest.approx(cold, rel=1e-3)


def test_arrays_agree_with_scalars_whatever_their_shape() -> None:
    values = start(MODEL)
    m, n = np.array([[1.0], [300.0], [5000.0]]), np.array([[512.0, 4096.0]])
    together = MODEL.time_s(values, {"m": m, "n": n, "k": np.array(1024.0)}, A100)
    assert together.shape == (3, 2)
    for (i, j), seconds in np.ndenumerate(together):
        alone = time_s(values, {"m": m[i, 0], "n": n[0, j], "k": 1024})
        assert seconds == pytest.approx(alone, rel=1e-12)


def test_long_arrays_are_cut_into_chunks_without_a_seam() -> None:
    values = start(MODEL)
    m = np.arange(1.0, 9001.0)
    shapes = {"m": m, "n": np.array(4096.0), "k": np.array(4096.0)}
    whole = MODEL.time_s(values, shapes, A100)
    parts = [MODEL.time_s(values, shapes | {"m": part}, A100) for part in np.split(m, 9)]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-12)


@pytest.mark.parametrize(("model", "width"), [(W8A16, 1.0), (W4A16, 0.5)])
def test_quantised_weights_pay_where_weights_dominate(model: GemmModel, width: float) -> None:
    values = start(model) | {"t0": 0.3e-6}
    decode = {"m": 1, "n": 16_384, "k": 16_384}
    ratio = time_s(values, decode, model=model) / time_s(values, decode)
    assert 0.9 * width / 2 < ratio < 1.35 * width / 2 + 0.1
    prefill = {"m": 8192, "n": 8192, "k": 8192}
    assert time_s(values, prefill, model=model) >= time_s(values, prefill)


def test_scales_take_bytes() -> None:
    depth: FloatArray = np.array([1024.0])
    assert W4A16.weight_bytes(depth) == pytest.approx(0.5 + 2 / 128)
    assert W8A16.weight_bytes(depth) == pytest.approx(1 + 2 / 1024)


@given(sizes, widths, widths)
def test_correction_is_bounded_and_fades(m: int, n: int, k: int) -> None:
    residual = Residual(np.array([[10.0, 12.0, 12.0]]), np.array([5.0]), np.full(3, 2.0), 0.3)
    here = coordinates({"m": np.array([m]), "n": np.array([n]), "k": np.array([k])}, MODEL.sizes)
    assert abs(residual.log_correction(here)[0]) <= 0.3
    assert 0 <= residual.support(here)[0] <= 1
    far = here + 60
    assert residual.log_correction(far)[0] == pytest.approx(0, abs=1e-12)
    assert residual.support(far)[0] == pytest.approx(0, abs=1e-12)
