"""What a result hangs on: against profiles that say so, physics, and published indices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from costmodel import estimate, prepare
from costmodel.catalog.hardware import load_gpu
from costmodel.catalog.runtimes import load_runtime
from costmodel.errors import InputError, UnknownNameError
from costmodel.evaluation import FloatArray
from costmodel.search import sensitivity, sobol, what_if
from costmodel.search.variance import sobol_indices
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.runtime import RuntimeProfile
from costmodel.timing import host

MODEL = "llava-1.5-7b"
CASES: list[tuple[str, dict[str, Any]]] = [
    ("a100-80gb-sxm", {"compress": "cluster:k=64"}),
    ("a100-80gb-sxm", {"compress": "cluster:k=64,impl=sklearn", "time_model": "ideal"}),
    ("rtx-a6000", {"compress": "fastv:k=144", "runtime": "eager", "batch": 4}),
    ("h100-sxm", {"tp": 2, "weights_dtype": "int4", "output_tokens": 20}),
    ("v100-sxm", {"compress": "spatial:k=64"}),
]


def _quantity(value: Any, factor: float) -> Any:
    return value.model_copy(update={"value": value.value * factor}) if value else None


def profile(gpu: str, quantity: str, factor: float) -> HardwareProfile:
    """Return a GPU whose datasheet has another value."""
    own = load_gpu(gpu)
    changed: dict[str, Any] = {
        "bandwidth": {
            "memory": own.memory.model_copy(
                update={"bandwidth": _quantity(own.memory.bandwidth, factor)}
            )
        },
        "compute": {"peaks": tuple(_quantity(peak, factor) for peak in own.peaks)},
        "l2": {"l2_cache": _quantity(own.l2_cache, factor)},
        "interconnect": {
            "interconnect": own.interconnect.model_copy(
                update={
                    name: _quantity(getattr(own.interconnect, name), factor)
                    for name in ("nvlink_per_direction", "pcie_per_direction")
                }
            )
        },
    }
    return own.model_copy(update=changed[quantity])


@pytest.mark.parametrize(("gpu", "options"), CASES)
@pytest.mark.parametrize("quantity", ["bandwidth", "compute", "l2", "interconnect"])
def test_a_factor_is_another_datasheet(gpu: str, options: dict[str, Any], quantity: str) -> None:
    case = prepare(MODEL, gpu, text_tokens=64, **options)
    factors = [0.5, 1.0, 2.0]
    found = what_if(case, **{quantity: factors})
    for index, factor in enumerate(factors):
        single = estimate(MODEL, profile(gpu, quantity, factor), text_tokens=64, **options)
        assert found.ttft_s[index] == pytest.approx(single.time_s["ttft"], rel=1e-9)
        assert found.tpot_s[index] == pytest.approx(single.time_s["tpot"], rel=1e-9)
        for stage, column in found.stages_s.items():
            assert column[index] == pytest.approx(single.time_s[stage], rel=1e-9)


@pytest.mark.parametrize(("gpu", "options"), CASES)
def test_a_launch_costs_what_the_runtime_says(
    gpu: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower(name: str) -> RuntimeProfile:
        own = load_runtime(name)
        names = ("launch", "start", "sync")
        return own.model_copy(update={n: _quantity(getattr(own, n), 3.0) for n in names})

    found = what_if(prepare(MODEL, gpu, text_tokens=64, **options), launch=[1.0, 3.0])
    before = estimate(MODEL, gpu, text_tokens=64, **options)
    monkeypatch.setattr(host, "load_runtime", slower)
    after = estimate(MODEL, gpu, text_tokens=64, **options)
    for index, single in enumerate((before, after)):
        assert found.ttft_s[index] == pytest.approx(single.time_s["ttft"], rel=1e-9)
        assert found.tpot_s[index] == pytest.approx(single.time_s["tpot"], rel=1e-9)


@pytest.mark.parametrize(("gpu", "options"), CASES)
def test_more_of_a_rate_never_slows(gpu: str, options: dict[str, Any]) -> None:
    case = prepare(MODEL, gpu, text_tokens=64, **options)
    factors = np.geomspace(0.25, 4.0, 9)
    # The soft minimum over kernels weighs a slower one more where the others gain.
    rise = 1e-4 if case.time_model == "calibrated" else 0.0
    for quantity in ("bandwidth", "compute", "interconnect"):
        found = what_if(case, **{quantity: factors})
        for column in (found.ttft_s, found.tpot_s):
            assert (np.diff(column) <= rise * column[:-1]).all(), quantity
    assert (np.diff(what_if(case, launch=factors).ttft_s) >= 0).all()


@pytest.mark.parametrize("options", [{}, {"tp": 4}, {"compress": "cluster:k=64"}, {"batch": 32}])
def test_all_rates_together_scale_an_ideal_machine(options: dict[str, Any]) -> None:
    """Time is homogeneous of degree -1 in the rates: elasticities sum to -1 (Euler)."""
    case = prepare(MODEL, "a100-80gb-sxm", text_tokens=64, time_model="ideal", **options)
    found = sensitivity(case)
    for name in ("ttft", "tpot"):
        assert sum(getattr(e, name) for e in found.elasticities) == pytest.approx(-1, abs=1e-5)
    twice = what_if(case, bandwidth=2.0, compute=2.0, interconnect=2.0)
    assert float(twice.ttft_s) == pytest.approx(found.base.ttft_s / 2)


def test_an_ideal_elasticity_is_the_share_of_the_time_that_is_bound() -> None:
    options: dict[str, Any] = {"text_tokens": 64, "time_model": "ideal"}
    single = estimate(MODEL, "a100-80gb-sxm", **options)
    found = sensitivity(prepare(MODEL, "a100-80gb-sxm", **options), ["bandwidth", "compute"])
    for name, bound in (("bandwidth", "memory"), ("compute", "compute")):
        share = sum(op.time_s for op in single.ops if op.bound_by == bound) / single.time_s["ttft"]
        (one,) = (e for e in found.elasticities if e.quantity == name)
        assert one.ttft == pytest.approx(-share, abs=1e-5)


def test_changes_hold_the_saving() -> None:
    case = prepare(MODEL, "a100-80gb-sxm", text_tokens=64, compress="cluster:k=64")
    found = sensitivity(case, ["bandwidth", "launch"], [0.5, 2])
    assert [(c.quantity, c.factor) for c in found.changes] == [
        ("bandwidth", 0.5), ("bandwidth", 2.0), ("launch", 0.5), ("launch", 2.0),
    ]  # fmt: skip
    single = estimate(MODEL, "a100-80gb-sxm", text_tokens=64, compress="cluster:k=64")
    assert found.base.speedup == pytest.approx(single.savings["ttft_s_ratio"])
    for one in (found.base, *found.changes):
        assert sum(one.stages_s.values()) == pytest.approx(one.ttft_s)
    slow, fast = found.changes[3], found.changes[2]
    assert slow.speedup < found.base.speedup < fast.speedup


def ishigami(unit: FloatArray) -> FloatArray:
    x = -math.pi + 2 * math.pi * unit
    value = np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])
    return np.stack([value, 0 * value])


def test_indices_of_the_ishigami_function() -> None:
    """a = 7, b = 0.1: Sobol' and Levitan 1999; Saltelli et al., Global Sensitivity Analysis."""
    first, total = sobol_indices(ishigami, 3, 4096, seed=1)
    assert first[0] == pytest.approx([0.3139, 0.4424, 0.0], abs=0.01)
    assert total[0] == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.01)
    assert not first[1].any()
    assert not total[1].any()


def test_one_input_explains_all_where_the_others_do_nothing() -> None:
    case = prepare(MODEL, "a100-80gb-sxm", text_tokens=64, time_model="ideal")
    found = sobol(case, ["launch", "bandwidth"], samples=64)
    assert found.first["tpot"] == pytest.approx([0, 1], abs=0.02)
    assert found.total["tpot"] == pytest.approx([0, 1], abs=0.02)
    assert found.mean["speedup"] == 1
    assert found.evaluations == 4 * 64 * (2 + 2)


def test_seeds_repeat() -> None:
    case = prepare(MODEL, "rtx-a6000", text_tokens=64, compress="cluster:k=64")
    options: dict[str, Any] = {"quantities": ["compute", "weights_dtype"], "samples": 8}
    one, same, other = (sobol(case, **options, seed=seed) for seed in (3, 3, 4))
    assert one.first["ttft"].tolist() == same.first["ttft"].tolist()
    assert one.first["ttft"].tolist() != other.first["ttft"].tolist()
    assert one.spans[1].choices == ("fp16", "int8", "int4")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"bandwith": 2}, ("bandwith", "bandwidth")),
        ({"bandwidth": 0}, ("bandwidth", "above 0")),
        ({"bandwidth": [1, -1]}, ("above 0",)),
        ({"launch": float("nan")}, ("launch",)),
        ({"launch": []}, ("launch", "at least one")),
    ],
)
def test_bad_factors(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    case = prepare(MODEL, "a40", text_tokens=64)
    with pytest.raises((InputError, UnknownNameError)) as caught:
        what_if(case, **options)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"quantities": ["l2", "launch"]}, ("l2", "one at a time")),
        ({"quantities": ["launch"]}, ("at least two",)),
        ({"samples": 100}, ("samples", "100", "power of two")),
        ({"seed": -1}, ("seed",)),
        ({"ranges": {"launch": (2, 1)}}, ("launch=2:1", "LOW < HIGH")),
        ({"ranges": {"interconnect": (1, 2)}}, ("interconnect", "vary")),
    ],
)
def test_bad_ranges(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    case = prepare(MODEL, "a40", text_tokens=64)
    with pytest.raises((InputError, UnknownNameError)) as caught:
        sobol(case, **options)
    assert all(part in str(caught.value) for part in parts)
