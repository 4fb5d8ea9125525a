"""The reference measurements: every row kept or dropped for a known reason.

Numbers of rows are those of the files; the 122 impossible rows of A30 are a known
problem of their source.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.calibration.loading import load_timings
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import SpecError

CASES = {
    "gemm": ({"gemm": 217_999}, 122),
    "elementwise": ({"memory_bound": 41_545}, 0),
    "attention_prefill": ({"attention_prefill": 83_528, "attention_encoder": 39_893}, 0),
    "attention_decode": ({"attention_decode": 98_506}, 0),
    "collectives": ({"collective": 22_597}, 0),
}


@pytest.mark.parametrize(("name", "kept", "dropped"), [(n, *c) for n, c in CASES.items()])
def test_rows(name: str, kept: dict[str, int], dropped: int, shared_dir: Path) -> None:
    timings, report = load_timings([shared_dir / "measurements" / f"{name}.parquet"])
    assert {each.kind: len(each) for each in timings} == kept
    assert report.dropped == dropped
    for each in timings:
        for gpu in each.frame["gpu"].unique():
            assert load_gpu(gpu).name == gpu


def test_the_corrupt_rows_are_of_a30(shared_dir: Path) -> None:
    (timings,), report = load_timings([shared_dir / "measurements" / "gemm.parquet"])
    (corrupt,) = (problem for problem in report.problems if problem.dropped)
    assert corrupt.count == 122
    assert "faster than the fp16 peak of a30, 165 TFLOP/s" in corrupt.reason
    assert (timings.frame["gpu"] == "a30").sum() == 4855 - 122
    assert set(timings.frame["gpu"]) == {
        "a100-80gb-sxm", "a100-40gb-pcie", "a30", "a40", "h100-sxm", "h200", "l40s", "rtx-a6000"
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["e2e_llamacpp.csv", "host_overheads_a100.csv", "host_overheads_a40.csv"]
)
def test_other_measurements_are_no_kernel_timings(name: str, shared_dir: Path) -> None:
    with pytest.raises(SpecError, match="not a format that is read"):
        load_timings([shared_dir / "measurements" / name])
