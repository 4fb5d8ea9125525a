"""Runs of compression methods alone: measured against the operators of their plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from costmodel import estimate
from costmodel.calibration.judging import Judged, validate_timings
from costmodel.calibration.loading import load_timings
from costmodel.calibration.method_overheads import (
    OverheadGroup,
    overhead_groups,
    predict_overheads,
)
from costmodel.calibration.method_requests import params_of, request_of
from costmodel.catalog.hardware import load_gpu
from costmodel.compression.method import parse
from costmodel.errors import SpecError

GPU = "a100-80gb-sxm"
FACTOR = 1.25
ROWS: dict[str, dict[str, Any]] = {
    "random:k=64": {"method": "random", "variant": "batched", "kept": 64},
    "spatial:k=64": {"method": "spatial", "variant": "even", "kept": 64},
    "cluster:check=false,impl=eager,iterations=5,k=64": {
        "method": "cluster", "variant": "eager", "kept": 64,
        "params": "check=false,iterations=5,tolerance=0.0",
    },
    "cluster:impl=fused,k=64": {"method": "cluster", "variant": "fused", "kept": 64},
    "cluster:impl=compiled,k=64": {"method": "cluster", "variant": "compiled", "kept": 64},
    "cluster:impl=sklearn,k=64": {"method": "cluster", "variant": "sklearn", "kept": 64},
    "avgpool:window=2": {"method": "avgpool", "variant": "pool", "kept": 144},
    "stf:window=2": {
        "method": "stf", "variant": "linear", "kept": 144, "width": 1024,
        "params": "out_width=4096",
    },
    "mbtf:blocks=8": {
        "method": "mbtf", "variant": "linear", "kept": 576, "width": 1024, "params": "blocks=8",
    },
    "mbtf+stf:blocks=8,window=3": {
        "method": "mbtf+stf", "variant": "linear", "kept": 64, "width": 1024,
        "params": "blocks=8,out_width=4096,tower_dtype=",
    },
}  # fmt: skip
"""What measured rows should be asked as."""


def row(**changes: Any) -> dict[str, Any]:
    return {
        "gpu": GPU, "source": "lab", "software": "torch 2.9", "dtype": "fp16", "runtime": "eager",
        "batch": 2, "tokens": 576, "width": 4096, "params": "", "time_us": 100.0, **changes,
    }  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "compression.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def predicted(changes: dict[str, Any], **more: Any) -> pd.Series[Any]:
    one = row(**changes, **more)
    one |= {"compress": request_of(one), "time_s": 1e-4}
    group = OverheadGroup(GPU, "lab", "torch 2.9", "fp16", str(one["method"]))
    return predict_overheads(group, pd.DataFrame([one]), load_gpu(GPU), None).iloc[0]


@pytest.mark.parametrize(("asked", "changes"), ROWS.items(), ids=ROWS)
def test_rows_are_asked_as_options(asked: str, changes: dict[str, Any]) -> None:
    assert request_of(row(**changes)) == asked
    assert parse(asked).label


@pytest.mark.parametrize("runtime", ["eager", "cuda-graph"])
@pytest.mark.parametrize(("asked", "changes"), ROWS.items(), ids=ROWS)
def test_time_is_that_of_the_stage_in_an_estimate(
    asked: str, changes: dict[str, Any], runtime: str
) -> None:
    found = predicted(changes, runtime=runtime)
    whole = estimate(
        "llava-1.5-7b", GPU, text_tokens=64, batch=2, compress=asked, runtime=runtime
    )  # fmt: skip
    own = [op for op in whole.ops if op.stage == "compression"]
    busy = sum(op.time_s for op in own)
    assert busy == pytest.approx(whole.time_s["compression"], rel=1e-12)
    assert found["predicted_s"] - found["host_s"] == pytest.approx(busy, rel=1e-9)
    assert found["predicted_launches"] == sum(op.launches for op in own)
    # What the host costs is of its own stage, so a whole pass pays no less of it.
    assert found["host_s"] <= whole.time_s["host_overhead"] + 1e-12
    low, high = found["low_s"], found["high_s"]
    assert 0 < found["any_low_s"] <= low <= found["predicted_s"] < high <= found["any_high_s"]


def test_width_and_tokens_are_those_of_the_row() -> None:
    wide = predicted({"method": "cluster", "variant": "fused", "kept": 64, "width": 8192})
    thin = predicted({"method": "cluster", "variant": "fused", "kept": 64, "width": 512})
    assert wide["roofline_s"] > 4 * thin["roofline_s"]
    odd = predicted({"method": "random", "variant": "", "kept": 7, "tokens": 37})
    assert odd["predicted_s"] > 0


def test_iterations_cost_the_same_each() -> None:
    five, six, twenty = (
        predicted({"method": "cluster", "variant": "eager", "kept": 64,
                   "params": f"check=false,iterations={number}"})
        for number in (5, 6, 20)
    )  # fmt: skip
    one = six["predicted_launches"] - five["predicted_launches"]
    assert one > 0
    assert twenty["predicted_launches"] - five["predicted_launches"] == 15 * one
    assert five["predicted_s"] < six["predicted_s"] < twenty["predicted_s"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "tome", "kept": 288}, "'tome' has no plan"),
        ({"method": "random", "variant": "loop", "kept": 64}, "variant 'loop' of random"),
        ({"method": "avgpool", "kept": 100}, "kept 100: no window"),
        ({"method": "mbtf", "kept": 100}, "kept 100: the method keeps all"),
        ({"method": "cluster", "kept": 64, "params": "distances=fp32"}, "distances"),
        ({"method": "cluster", "kept": 64, "params": "iterations"}, "expected key=value"),
        ({"method": "cluster", "kept": 64, "params": "iteration=3"}, "iteration"),
    ],
)
def test_what_no_plan_describes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        request_of(row(**changes))


def test_params_are_read() -> None:
    assert params_of("a=1,b=x=y") == {"a": "1", "b": "x=y"}
    assert params_of("") == {}


def test_rows_without_a_plan_are_left_out_and_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        [
            row(method="random", variant="batched", kept=64),
            row(method="tome", variant="step", kept=288),
            row(method="visionzip", variant="fused", kept=64),
        ],
    )
    timings, report = load_timings([path])
    assert not report.problems
    groups, problems = overhead_groups(timings)
    assert [group.method for group, _ in groups] == ["random"]
    assert [problem.rows for problem in problems] == [(2,), (3,)]
    assert all(problem.dropped for problem in problems)
    result = validate_timings([path])
    assert [group.stack.kind for group in result.groups] == ["compression random"]
    assert {problem.rows for problem in result.problems} == {(2,), (3,)}


def judged(folder: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Judged]:
    result = validate_timings([written(folder, rows)], **options)
    return {group.stack.kind: group for group in result.groups}


def test_validate_judges_each_method(tmp_path: Path) -> None:
    rows = [row(**changes) for changes in ROWS.values()]
    for one in rows:
        one["time_us"] = 1e6 * FACTOR * predicted(one)["predicted_s"]
    # The same again is a repetition: the median counts.
    rows.append({**rows[0], "time_us": rows[0]["time_us"]})
    groups = judged(tmp_path, rows)
    assert set(groups) == {f"compression {one['method']}" for one in rows}
    for group in groups.values():
        assert group.errors.bias_pct == pytest.approx(100 * (1 / FACTOR - 1), abs=1e-3)
        assert group.calibration is not None
    assert groups["compression cluster"].errors.n == 4
    assert groups["compression random"].errors.n == 1


def test_short_runs_are_not_judged(tmp_path: Path) -> None:
    rows = [
        row(method="random", variant="batched", kept=k, time_us=t) for k, t in ((8, 5), (64, 50))
    ]
    (group,) = judged(tmp_path, rows).values()
    assert list(group.points["kept"]) == [64]
    (group,) = judged(tmp_path, rows, min_time_us=0).values()
    assert group.errors.n == 2


def test_one_device_of_several(tmp_path: Path) -> None:
    rows = [row(method="random", kept=64), row(method="random", kept=64, gpu="h100-sxm")]
    (group,) = judged(tmp_path, rows, gpu="h100-sxm").values()
    assert group.stack.gpu == "h100-sxm"
