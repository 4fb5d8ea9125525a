"""Traces of torch.profiler: outermost operators, linked kernels, shapes by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from costmodel.calibration.loading import load_timings
from costmodel.errors import SpecError

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "timings" / "trace.json"


def _trace() -> dict[str, Any]:
    trace: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return trace


def _write(tmp_path: Path, trace: dict[str, Any]) -> Path:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace), encoding="utf-8")
    return path


def test_matrix_products() -> None:
    timings, _ = load_timings([SAMPLE])
    frame = next(each.frame for each in timings if each.kind == "gemm")
    # linear of 2 x 2048 tokens counts once, with both kernels of the addmm inside: 550 + 50 us.
    assert list(frame[["m", "n", "k", "time_us"]].loc[3]) == [4096, 4096, 4096, 600]
    # mm whose kernel is linked by correlation only.
    assert list(frame[["m", "n", "k", "time_us"]].loc[10]) == [16, 12288, 4096, 60]
    assert list(frame[["batch", "m", "n", "k"]].loc[13]) == [32, 128, 128, 64]
    assert len(frame) == 3
    assert set(frame["dtype"]) == {"fp16"}
    assert set(frame["gpu"]) == {"a100-80gb-sxm"}


def test_attention() -> None:
    timings, _ = load_timings([SAMPLE])
    rows = {each.kind: each.frame for each in timings}
    sizes = ["batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "time_us"]
    prefill, encoder = rows["attention_prefill"], rows["attention_encoder"]
    assert list(prefill[sizes].loc[16]) == [1, 2048, 2048, 32, 8, 128, 240]
    assert list(encoder[sizes].loc[20]) == [4, 577, 577, 16, 16, 64, 60]


def test_what_has_no_tidy_shape_is_counted() -> None:
    _, report = load_timings([SAMPLE])
    assert {problem.reason: problem.rows for problem in report.problems} == {
        "aten::scaled_dot_product_attention: an explicit mask: neither causal nor full": (23,),
        "aten::mm: no GPU kernel belongs to it": (26,),
        "aten::mm: Input Dims: missing; record with record_shapes=True": (27,),
    }
    assert (report.read, report.kept) == (8, 5)


def test_packed_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(SAMPLE.read_bytes()))
    for a, b in zip(load_timings([path])[0], load_timings([SAMPLE])[0], strict=True):
        pd.testing.assert_frame_equal(a.frame, b.frame)


def test_older_traces_spell_the_link_differently(tmp_path: Path) -> None:
    text = SAMPLE.read_text(encoding="utf-8").replace("External id", "external id")
    path = tmp_path / "trace.json"
    path.write_text(text, encoding="utf-8")
    assert load_timings([path])[1].kept == 5


def test_overlapping_kernels_count_once(tmp_path: Path) -> None:
    trace = _trace()
    reduce = next(e for e in trace["traceEvents"] if e["name"] == "splitk_reduce")
    reduce["ts"] = 725
    timings, _ = load_timings([_write(tmp_path, trace)])
    assert timings[0].frame.loc[3, "time_us"] == 725 + 50 - 200


def test_without_kernels_the_operator_is_timed(tmp_path: Path) -> None:
    trace = _trace()
    trace["traceEvents"] = [e for e in trace["traceEvents"] if e.get("cat") != "kernel"]
    # The host's time of an asynchronous launch is no time of the device.
    with pytest.raises(SpecError, match="kernels were launched but not recorded"):
        load_timings([_write(tmp_path, trace)])
    trace["traceEvents"] = [e for e in trace["traceEvents"] if e.get("cat") != "cuda_runtime"]
    trace["traceEvents"][2]["dur"] = 900
    timings, _ = load_timings([_write(tmp_path, trace)])
    frame = timings[0].frame
    assert frame.loc[3, "time_us"] == 900
    assert set(frame["software"]) == {"torch (host time of operators)"}


def test_without_a_device_the_caller_names_one(tmp_path: Path) -> None:
    trace = _trace()
    del trace["deviceProperties"]
    path = _write(tmp_path, trace)
    with pytest.raises(SpecError, match=r"column 'gpu'.*pass gpu="):
        load_timings([path])
    timings, _ = load_timings([path], gpu="a100")
    assert set(timings[0].frame["gpu"]) == {"a100-80gb-sxm"}


def test_odd_events_are_passed_over(tmp_path: Path) -> None:
    trace = _trace()
    odd = [None, 3, {}, {"ph": "X", "ts": "1", "dur": 2}, {"ph": "X", "ts": 1, "dur": 2, "args": 0}]
    trace["traceEvents"] += odd
    assert load_timings([_write(tmp_path, trace)])[1].kept == 5
