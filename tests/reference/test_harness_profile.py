"""The profile of a CPU: what was measured, as the cost model reads it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from costmodel.calibration.building import chip_of
from costmodel.catalog.hardware import load_gpu, load_host
from costmodel.errors import UnsupportedError
from costmodel.reference.harness.machine import Machine
from costmodel.reference.harness.profile import best_bandwidth, best_rates, cpu_profile
from costmodel.specs.workload import Deployment
from costmodel.timing.device import resolve_device

DATE = datetime.date(2026, 1, 2)
MACHINE = Machine(
    gpu="cpu", software="torch 2.9, 8 threads", cache_bytes=32 << 20, memory_bytes=64 << 30,
    processors=8, host={"cpu": 'Maker(R) "Fast" 9000', "clock_mhz": 2450.5},
)  # fmt: skip


def _product(m: int, n: int, k: int, fastest_us: float, dtype: str = "fp32") -> dict[str, Any]:
    return {
        "m": m, "n": n, "k": k, "dtype": dtype, "time_us": 2 * fastest_us,
        "time_us_min": fastest_us,
    }  # fmt: skip


def _copy(rows: int, time_us: float, beyond: bool, op: str = "copy") -> dict[str, Any]:
    return {
        "op": op, "rows": rows, "cols": 1000, "dtype": "fp32", "time_us": time_us,
        "rotates_beyond_cache": beyond,
    }  # fmt: skip


PRODUCTS = [
    _product(100, 100, 100, 10.0),
    _product(1000, 1000, 1000, 4000.0),
    _product(1000, 1000, 1000, 1000.0, "bf16"),
]
COPIES = [_copy(100, 10.0, False), _copy(1000, 400.0, True), _copy(1000, 1.0, True, "add")]


def test_the_profile_holds_the_best_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "cpu.yaml"
    path.write_text(cpu_profile(MACHINE, PRODUCTS, COPIES, DATE) or "")
    profile = load_gpu(path)
    # 2 GFLOP in 4 ms and in 1 ms; 8 MB in 400 us.
    assert profile.peak_flops_per_s("fp32", "vector") == pytest.approx(500e9)
    assert profile.peak_flops_per_s("bf16", "vector") == pytest.approx(2e12)
    assert profile.bandwidth_bytes_per_s == pytest.approx(20e9)
    assert (profile.name, profile.multiprocessors) == ("cpu", 8)
    assert profile.l2_cache.si == 32 << 20
    assert profile.capacity_bytes == 64 << 30
    assert profile.boost_clock.si == pytest.approx(2450.5e6)
    assert {one.date for one in profile.sources.values()} == {DATE}
    assert "costmodel measure on 2026-01-02" in profile.sources["gemm"].title


def test_every_number_names_a_source(tmp_path: Path) -> None:
    path = tmp_path / "cpu.yaml"
    path.write_text(cpu_profile(MACHINE, PRODUCTS, COPIES, DATE) or "")
    profile = load_gpu(path)
    assert {quantity.source for quantity in profile.quantities()} == set(profile.sources)


def test_rates_and_bandwidth() -> None:
    assert best_rates(PRODUCTS) == {"fp32": pytest.approx(500e9), "bf16": pytest.approx(2e12)}
    # 8 MB in 400 us beyond the cache, 0.8 MB in 10 us within it.
    for copies, rate, beyond in ((COPIES, 20e9, True), (COPIES[:1], 80e9, False)):
        found = best_bandwidth(copies)
        assert found is not None
        assert found[0] == pytest.approx(rate)
        assert found[1] is beyond
    assert best_bandwidth(COPIES[2:]) is None


def test_a_profile_from_within_the_cache_says_so() -> None:
    made = cpu_profile(MACHINE, PRODUCTS, COPIES[:1], DATE)
    assert made is not None
    assert "fitted into the cache" in made
    assert "fitted into the cache" not in str(cpu_profile(MACHINE, PRODUCTS, COPIES, DATE))


def test_a_processor_of_which_only_bf16_was_measured_computes_in_bf16(tmp_path: Path) -> None:
    products = [_product(512, 4096, 4096, 100e3, "bf16")]
    path = tmp_path / "cpu.yaml"
    path.write_text(cpu_profile(MACHINE, products, COPIES, DATE) or "")
    profile = load_gpu(path)
    rate = 2 * 512 * 4096 * 4096 / 0.1
    # Profiles hold four decimals of a GFLOP/s.
    assert chip_of(profile, "gemm", "bf16").peak_flops_per_s == pytest.approx(rate, rel=1e-6)
    device = resolve_device(profile, load_host(), Deployment.of(dtype="bf16"))
    for found in (device.linear_flops_per_s, device.vector_flops_per_s):
        assert found == pytest.approx(rate, rel=1e-6)
    with pytest.raises(UnsupportedError, match="bf16"):
        resolve_device(profile, load_host(), Deployment.of(dtype="fp32"))


def test_there_is_no_profile_of_half_of_it() -> None:
    assert cpu_profile(MACHINE, [], COPIES, DATE) is None
    assert cpu_profile(MACHINE, PRODUCTS, [], DATE) is None
