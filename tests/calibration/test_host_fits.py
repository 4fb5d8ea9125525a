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
