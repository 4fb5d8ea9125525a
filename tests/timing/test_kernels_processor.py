"""Kernel models of a processor: limits, monotony and recovery of their own parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration.fitting import Samples, fit
from costmodel.calibration.processor_setups import setup_of
from costmodel.calibration.setups import SETUPS
from costmodel.catalog.hardware import load_gpu
from costmodel.timing.kernels.base import Chip, KernelModel
from costmodel.timing.kernels.processor import MODELS
from costmodel.timing.kernels.registry import kernel_model

CHIP = Chip(150e9, 15e9, 32e6, 1, 15e9)
ids = [model.name for model in MODELS]
SMALL = {"batch": 1.0, "m": 8.0, "n": 64.0, "k": 64.0, "q_len": 16.0, "kv_len": 64.0,
         "heads": 4.0, "kv_heads": 4.0, "head_dim": 32.0, "read_bytes": 4096.0,
         "write_bytes": 4096.0, "rows": 16.0, "cols": 64.0}  # fmt: skip


def start(model: KernelModel) -> dict[str, float]:
    return {parameter.name: parameter.start for parameter in model.parameters}


@pytest.mark.parametrize("model", MODELS, ids=ids)
@given(data=st.data())
def test_larger_sizes_never_take_less(model: KernelModel, data: st.DataObject) -> None:
    sizes = {name: np.asarray(SMALL[name]) for name in model.sizes}
    grown = data.draw(st.sampled_from([n for n in model.sizes if n not in ("cols", "q_len")]))
    factor = data.draw(st.floats(1, 1000))
    larger = sizes | {grown: sizes[grown] * factor}
    before, after = (float(model.time_s(start(model), s, CHIP)) for s in (sizes, larger))
    assert after >= before * (1 - 1e-9)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_nothing_beats_the_peak(model: KernelModel) -> None:
    values = {p.name: p.high if p.name in ("e", "eb") else p.low for p in model.parameters}
    sizes = {name: np.asarray(SMALL[name] * 8) for name in model.sizes}
    seconds = float(model.time_s(values, sizes, CHIP))
    if model.kind == "gemm":
        flops = 2 * np.prod([sizes[name] for name in "mnk"])
        assert seconds >= flops / (1.1 * CHIP.peak_flops_per_s)
    assert seconds > 0


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_a_fit_finds_what_made_the_times(model: KernelModel) -> None:
    rng = np.random.default_rng(0)
    sizes = {
        name: np.round(SMALL[name] * 2 ** rng.uniform(0, 7, 200)) for name in model.sizes
    }  # fmt: skip
    if "q_len" in sizes:
        sizes["kv_len"] = sizes["kv_len"] + sizes["q_len"]
    truth = start(model)
    seconds = model.time_s(truth, sizes, CHIP)
    samples = Samples(sizes, seconds, np.arange(200))
    values = fit(model, samples, CHIP, starts=3).values
    assert model.time_s(values, sizes, CHIP) == pytest.approx(seconds, rel=0.03)


def test_a_product_of_one_row_packs_nothing() -> None:
    model = kernel_model("processor_gemm")
    values = start(model) | {"t0": 1e-12, "mh": 12.0}
    rows = {"m": np.array([1.0, 2.0, 3.0]), "n": np.array(1024.0), "k": np.array(1024.0)}
    one, two, three = model.time_s(values, rows, CHIP)
    # Two rows cost what the third costs over the second, twelve rows of packing more.
    assert two - one == pytest.approx(13 * (three - two), rel=0.02)
    # Of one row nothing is left but reading the matrix, nearly.
    assert one == pytest.approx(1024**2 * 2 / CHIP.bandwidth_bytes_per_s, rel=0.15)


def test_softmax_pays_for_short_rows_and_pages_of_large_results() -> None:
    model = kernel_model("processor_loop")
    values = start(model) | {"ts": 20e-9, "tf": 2e-6}
    free = values | {"ts": 0.0, "tf": 0.0}

    def more_s(rows: float, cols: float) -> float:
        moved = np.asarray(4 * rows * cols)
        shapes = {"read_bytes": moved, "write_bytes": moved, "rows": rows, "cols": cols}
        sizes = {name: np.asarray(size) for name, size in shapes.items()}
        return float(model.time_s(values, sizes, CHIP) - model.time_s(free, sizes, CHIP))

    assert more_s(100.0, 15.0) == pytest.approx(100 * 15 * 20e-9)
    assert more_s(100.0, 16.0) == 0.0
    assert more_s(8191.0, 1024.0) == 0.0
    assert more_s(8192.0, 1024.0) == pytest.approx(8192 * 2e-6)


def test_only_softmax_is_fitted_with_them() -> None:
    processor = load_gpu("a40").model_copy(update={"compute_capability": "none"})
    for kind, setup in SETUPS.items():
        fixed = setup_of(kind, processor).fixed
        alone = setup.timings == "memory_bound" and kind != "softmax"
        assert {"ts", "tf"} <= set(fixed) if alone else not {"ts", "tf"} & set(fixed)


def test_a_processor_has_models_of_its_own() -> None:
    gpu = load_gpu("a40")
    processor = gpu.model_copy(update={"compute_capability": "none"})
    for kind, setup in SETUPS.items():
        assert setup_of(kind, gpu) is setup
        own = setup_of(kind, processor)
        assert own.sizes == setup.sizes
        if setup.timings != "collective":
            assert own.model.startswith("processor_")
            assert set(kernel_model(own.model).sizes) == set(setup.sizes)


def test_only_a_sort_makes_an_element_dearer_in_a_longer_row() -> None:
    profile = load_gpu("a40").model_copy(update={"compute_capability": "none"})
    for kind in ("copy", "reduction", "argmin", "softmax", "rmsnorm"):
        assert setup_of(kind, profile).fixed["lg"] == 0.0
    assert "lg" not in setup_of("topk", profile).fixed
    loop = kernel_model("processor_loop")
    values = start(loop) | {"t0": 0.0, "tr": 0.0, "ts": 0.0, "tf": 0.0, "lx": 1.0, "lg": 0.2}
    sizes = {"read_bytes": np.asarray(4e6), "write_bytes": np.asarray(0.0)}
    short, long = (
        float(loop.time_s(values, {**sizes, "rows": 1e6 / cols, "cols": cols}, CHIP))
        for cols in (np.asarray(16.0), np.asarray(1024.0))
    )
    # Four doublings and ten: 1 + 0.2 log2(c).
    assert long / short == pytest.approx((1 + 0.2 * 10) / (1 + 0.2 * 4))
    # Calibrations of before know nothing of it.
    del values["lg"]
    one = np.asarray(1.0)
    assert float(loop.time_s(values, {**sizes, "rows": one, "cols": 64 * one}, CHIP)) > 0
