"""Host costs from launch timings."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd
import pytest

from costmodel.calibration.host_fits import HOST_COSTS, host_fits
from costmodel.calibration.loading import load_timings
from costmodel.calibration.user import calibrate
from costmodel.catalog.hardware import load_gpu

DATE = datetime.date(2026, 1, 1)
TIMES = {"launch": 7.0, "start": 30.0, "gap": 0.5, "sync": 11.0}


def launches(folder: Path, runtime: str = "eager") -> Path:
    rows = [
        {
            "gpu": "a40", "source": "lab", "software": "torch 2.9", "runtime": runtime, "op": op,
            "time_us": time, "time_us_mean": 1.2 * time, "time_us_min": 0.8 * time,
            "time_us_max": 9 * time, "time_us_std": time,
        }
        for op, time in TIMES.items()
    ]  # fmt: skip
    path = folder / "launch.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_medians_and_range_become_host_costs(tmp_path: Path) -> None:
    timings, _ = load_timings([launches(tmp_path)])
    (fit,) = host_fits(timings, load_gpu("a40"), DATE)
    found = (fit.launch_s, fit.start_s, fit.gap_s, fit.sync_s)
    assert found == pytest.approx([1e-6 * TIMES[op] for op in HOST_COSTS])
    # The largest single run is an interruption, not the cost of a launch.
    assert (fit.launch_low_s, fit.launch_high_s) == pytest.approx((5.6e-6, 8.4e-6))
    assert (fit.runtime, fit.source, fit.rows) == ("eager", "lab", 4)


def test_runtimes_without_launch_rows_keep_their_defaults(tmp_path: Path) -> None:
    timings, _ = load_timings([launches(tmp_path, "compiled")])
    assert [fit.runtime for fit in host_fits(timings, load_gpu("a40"), DATE)] == ["compiled"]


KERNEL_US = 1.7
"""Of the stand-in for a kernel; costs of the runtimes are those of `MEASURED`."""

TORCH_US = 4.0
"""Of a launch without the modules around it."""

MEASURED = {
    "eager": {"launch": 16.0, "start": 0.0, "gap": 0.4, "sync": 9.0},
    "compiled": {"launch": 8.0, "start": 30.0, "gap": 0.4, "sync": 9.0},
    "cuda-graph": {"launch": 0.6, "start": 12.0, "gap": 0.3, "sync": 10.0},
}


def measured(folder: Path, noise: float = 0.0) -> Path:
    """Rows as the suite `launch` measures them on a device that has these costs."""

    def row(runtime: str, op: str, kernels: int, time: float) -> dict[str, object]:
        time *= 1 + noise * (-1) ** kernels
        return {
            "gpu": "a40", "source": "lab", "software": "torch 2.9", "runtime": runtime, "op": op,
            "kernels": kernels, "time_us": time, "time_us_mean": 1.1 * time,
            "time_us_min": 0.9 * time, "time_us_max": 9 * time, "time_us_std": time,
        }  # fmt: skip

    eager, graph = MEASURED["eager"], MEASURED["cuda-graph"]
    rows = [
        row("eager", "launch", 1, TORCH_US),
        row("eager", "sync", 1, eager["sync"]),
        row("eager", "queued", 1, KERNEL_US + eager["gap"]),
        row("cuda-graph", "kernel", 1, KERNEL_US),
        row("cuda-graph", "sync", 1, graph["sync"]),
    ]
    measured = {"eager": (60, 100, 340), "compiled": (2, 20, 100), "cuda-graph": (1, 10, 100, 1000)}
    for runtime, counts in measured.items():
        costs = MEASURED[runtime]
        # What modules do but once, before and after the layers, is no start of each stage.
        before = 50.0 if runtime == "eager" else costs["start"]
        rows += [row(runtime, "call", n, before + n * costs["launch"]) for n in counts]
    for n in (1, 10, 100, 1000):
        wall = graph["start"] + graph["launch"] + n * (KERNEL_US + graph["gap"]) + graph["sync"]
        rows.append(row("cuda-graph", "replay", n, wall))
    path = folder / "launch.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_every_cost_is_recovered_from_what_the_suite_measures(tmp_path: Path) -> None:
    timings, _ = load_timings([measured(tmp_path)])
    fits = {fit.runtime: fit for fit in host_fits(timings, load_gpu("a40"), DATE)}
    assert set(fits) == set(MEASURED)
    for runtime, costs in MEASURED.items():
        fit = fits[runtime]
        found = {op: getattr(fit, f"{op}_s") * 1e6 for op in HOST_COSTS}
        assert found == pytest.approx(costs, abs=1e-6), runtime
        low = 0.9e-6 * TORCH_US if runtime == "eager" else 0.9 * fit.launch_s
        assert fit.launch_low_s == pytest.approx(low)
        assert fit.launch_high_s == pytest.approx(1.1 * fit.launch_s)


def test_noise_of_long_rows_does_not_reach_the_start(tmp_path: Path) -> None:
    """One percent of a replay of 1000 kernels is half the start of a graph."""
    timings, _ = load_timings([measured(tmp_path, noise=0.01)])
    fits = {fit.runtime: fit for fit in host_fits(timings, load_gpu("a40"), DATE)}
    assert fits["cuda-graph"].start_s * 1e6 == pytest.approx(12.0, rel=0.05)
    assert fits["cuda-graph"].launch_s * 1e6 == pytest.approx(0.6, rel=0.05)


def test_a_gap_is_only_what_times_of_kernels_do_not_have(tmp_path: Path) -> None:
    path = measured(tmp_path)
    rows = pd.read_parquet(path)
    rows[rows["op"] != "kernel"].to_parquet(path)
    timings, _ = load_timings([path])
    fits = host_fits(timings, load_gpu("a40"), DATE)
    assert {fit.gap_s for fit in fits} == {0.0}


def test_one_row_is_no_line(tmp_path: Path) -> None:
    path = measured(tmp_path)
    rows = pd.read_parquet(path)
    rows[(rows["op"] != "call") | (rows["kernels"] == 2)].to_parquet(path)
    timings, _ = load_timings([path])
    (fit,) = host_fits(timings, load_gpu("a40"), DATE)
    assert fit.runtime == "eager"
    assert fit.launch_s * 1e6 == pytest.approx(TORCH_US)


def test_a_processor_starts_nothing_elsewhere() -> None:
    processor = load_gpu("a40").model_copy(update={"compute_capability": "none"})
    fits = host_fits([], processor, DATE)
    assert {fit.runtime for fit in fits} == {"eager", "compiled", "cuda-graph"}
    assert not any(fit.launch_high_s or fit.sync_s for fit in fits)


def test_a_calibration_keeps_them(tmp_path: Path) -> None:
    rows = 40
    add = pd.DataFrame(
        {
            "gpu": "a40", "source": "lab", "software": "torch 2.9", "dtype": "fp16", "op": "add",
            "rows": [2**i for i in range(4, 14)] * 4,
            "cols": [c for c in (1024, 2048, 4096, 8192) for _ in range(10)],
        },
        index=range(rows),
    )  # fmt: skip
    add["time_us"] = 5.0 + 6.0 * add["rows"] * add["cols"] / 600e3
    path = tmp_path / "add.csv"
    add.to_csv(path, index=False)
    result = calibrate([path, launches(tmp_path)], "a40", today=DATE)
    assert result.calibration.find_host("eager") is not None
    assert not result.problems
