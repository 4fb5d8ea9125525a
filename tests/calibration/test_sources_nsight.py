"""Nsight Systems and Nsight Compute: units, preambles, grouped thousands, read-only databases."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration.loading import load_timings
from costmodel.calibration.profiler_numbers import decimal_mark, parse_number, union_length
from costmodel.calibration.schema import KINDS
from costmodel.calibration.sources.nsys_sqlite import busy_time_s

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "timings"


def test_nsys_csv() -> None:
    (timings,), report = load_timings([SAMPLES / "nsys.csv"])
    assert timings.kind == "kernel"
    assert not KINDS["kernel"].fit
    frame = timings.frame
    assert frame["name"].tolist() == [
        "void gemm<half, 128>(Params)",
        "void norm<half, float>(Params)",
    ]
    assert frame["calls"].tolist() == [5, 4]
    assert frame["time_us"].tolist() == [590, 200]
    assert frame["total_us"].tolist() == [3000, 800]
    assert [problem.rows for problem in report.problems] == [(3,)]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Time (%),Total Time (us),Instances,Avg (us),Name", "9,3000,5,600,k"),
        ("Time(%),Total Time (ms),Instances,Average (ms),Name", "9,3,5,0.6,k"),
        ("Time (%),Total Time (sec),Instances,Name", "9,0.003,5,k"),
        ("Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),GridXYZ,BlockXYZ,Name",
         '9,3000000,5,1,600000,"1 1 1","256 1 1",k'),
    ],
)  # fmt: skip
def test_nsys_units_and_absent_columns(header: str, row: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    (timings,), _ = load_timings([path])
    assert list(timings.frame[["calls", "time_us", "total_us"]].loc[1]) == [5, 600, 3000]


def _database(path: Path, gpus: tuple[str, ...] = ("NVIDIA A100-SXM4-80GB",)) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
        CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INT, end INT, demangledName INT);
        CREATE TABLE TARGET_INFO_GPU (name TEXT);
        INSERT INTO StringIds VALUES (1, 'gemm<half, 128>(Params)'), (2, 'norm');
        """
    )
    kernels = [(0, 1000, 1), (2000, 5000, 1), (500, 1500, 2), (9000, 9000, 2), (9000, 9500, 3)]
    connection.executemany("INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?, ?, ?)", kernels)
    connection.executemany("INSERT INTO TARGET_INFO_GPU VALUES (?)", [(name,) for name in gpus])
    connection.commit()
    connection.close()
    return path


def test_nsys_sqlite(tmp_path: Path) -> None:
    path = _database(tmp_path / "a #1?.sqlite")
    (timings,), report = load_timings([path])
    frame = timings.frame.set_index("name")
    assert list(frame[["calls", "time_us", "total_us"]].loc["gemm<half, 128>(Params)"]) == [
        2,
        2,
        4,
    ]
    assert frame["calls"].to_dict() == {"gemm<half, 128>(Params)": 2, "norm": 1, "unknown": 1}
    assert set(frame["gpu"]) == {"a100-80gb-sxm"}
    (problem,) = report.problems
    assert (problem.rows, problem.count) == ((4,), 1)
    # 0 to 1.5 us on two streams, 2 to 5 and 9 to 9.5 us.
    assert busy_time_s(path) == pytest.approx(5e-6)


def test_kernels_of_any_device_may_be_compared(tmp_path: Path) -> None:
    path = _database(tmp_path / "a.sqlite", gpus=("Some Other Card",))
    (timings,), _ = load_timings([path])
    assert set(timings.frame["gpu"]) == {"Some Other Card"}


def test_ncu_long() -> None:
    (timings,), report = load_timings([SAMPLES / "ncu_long.csv"])
    frame = timings.frame.set_index("name")
    gemm, norm = frame.loc["gemm<half, 128>(Params)"], frame.loc["norm(float *)"]
    assert gemm["calls"] == 2
    assert gemm["total_us"] == pytest.approx(1600.25 + 1800)
    assert gemm["bytes"] == pytest.approx(1100.5e6 + 1.1e9)
    assert norm["time_us"] == pytest.approx(9.5)
    assert np.isnan(norm["bytes"])
    (problem,) = report.problems
    assert not problem.dropped
    assert problem.reason == "dram__bytes.sum: not a number, 'n/a'"


def test_ncu_wide_with_european_numbers() -> None:
    (timings,), _ = load_timings([SAMPLES / "ncu_wide.csv"])
    frame = timings.frame.set_index("name")
    copy = frame.loc["copy(float *)"]
    assert copy["time_us"] == pytest.approx((45.12 + 47.12) / 2)
    assert copy["bytes"] == pytest.approx(2 * (27_595_520 + 27_000_000))
    assert np.isnan(frame["bytes"].loc["fill(float *)"])


@pytest.mark.parametrize(
    ("numbers", "mark", "value"),
    [
        (["1,234.5"], ".", 1234.5),
        (["1.234,5"], ",", 1234.5),
        (["27.595.520"], ",", 27595520),
        (["27,595,520"], ".", 27595520),
        (["0,52"], ",", 0.52),
        (["0.520"], ".", 0.52),
        (["1,234"], ".", 1234),
        (["1.234"], ".", 1.234),
        (["1.234", "5,5"], ",", 1234),
        (["n/a", "12"], ".", float("nan")),
        (["1e3"], ".", 1000),
    ],
)
def test_grouped_thousands(numbers: list[str], mark: str, value: float) -> None:
    assert decimal_mark(numbers) == mark
    assert parse_number(numbers[0], mark) == pytest.approx(value, nan_ok=True)


@given(value=st.floats(min_value=0, max_value=1e12), english=st.booleans())
def test_printed_numbers_come_back(value: float, english: bool) -> None:
    text = f"{value:,.2f}"
    if not english:
        text = text.translate(str.maketrans(",.", ".,"))
    assert parse_number(text, decimal_mark([text])) == pytest.approx(round(value, 2))


@given(spans=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_the_union_counts_covered_points(spans: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    ends = starts + np.array([length for _, length in spans], dtype=np.int64)
    covered = {point for start, length in spans for point in range(start, start + length)}
    assert union_length(starts, ends) == len(covered)
