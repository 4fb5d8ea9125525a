"""The trace follows the Trace Event Format and says what the estimate says."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

import costmodel
from costmodel.report.chrome_trace import chrome_trace

CASES = [
    {},
    {"runtime": "eager", "compress": "fastv"},
    {"compress": "cluster:k=64"},
    {"compress": "cluster:k=64,impl=sklearn"},
    {"time_model": "ideal", "batch": 4},
]


def _trace(**options: Any) -> tuple[dict[str, Any], costmodel.Estimate]:
    asked = {"text_tokens": 64} | options
    case = costmodel.prepare("llava-1.5-7b", "a100-80gb-sxm", **asked)
    estimate = costmodel.estimate("llava-1.5-7b", "a100-80gb-sxm", **asked)
    return json.loads(json.dumps(chrome_trace(case), allow_nan=False)), estimate


def _spans(trace: dict[str, Any], track: str) -> list[dict[str, Any]]:
    (number,) = (
        e["tid"] for e in trace["traceEvents"]
        if e["name"] == "thread_name" and e["args"]["name"] == track
    )  # fmt: skip
    return [e for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] == number]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_gpu_track_lasts_the_time_to_the_first_token(options: dict[str, Any]) -> None:
    trace, estimate = _trace(**options)
    for track in ("GPU", "stages"):
        total_us = sum(span["dur"] for span in _spans(trace, track))
        assert total_us == pytest.approx(1e6 * estimate.time_s["ttft"], rel=1e-6)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_spans_of_a_track_follow_one_another(options: dict[str, Any]) -> None:
    trace, _ = _trace(**options)
    for track in ("GPU", "host", "stages"):
        spans = _spans(trace, track)
        for before, after in itertools.pairwise(spans):
            assert after["ts"] >= before["ts"] + before["dur"] - 2e-4


@pytest.mark.parametrize("options", CASES, ids=str)
def test_events_have_the_keys_of_the_format(options: dict[str, Any]) -> None:
    trace, _ = _trace(**options)
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("X", "M", "C")
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] > 0
            assert isinstance(event["tid"], int)
        if event["ph"] == "C":
            assert all(isinstance(value, float) for value in event["args"].values())


@pytest.mark.parametrize("options", CASES, ids=str)
def test_operators_sum_to_the_estimate(options: dict[str, Any]) -> None:
    trace, estimate = _trace(**options)
    work = [span["args"] for span in _spans(trace, "GPU") if "flop" in span["args"]]
    assert sum(args["flop"] for args in work) == pytest.approx(sum(o.flops for o in estimate.ops))
    waits = sum(s["dur"] for s in _spans(trace, "GPU") if s["name"] == "waiting")
    assert waits == pytest.approx(1e6 * estimate.time_s["host_overhead"], rel=1e-3, abs=0.2)


def test_layers_are_unrolled_and_carry_formula_and_evidence() -> None:
    trace, _ = _trace()
    spans = {span["name"]: span["args"] for span in _spans(trace, "GPU")}
    layers = {name.partition(":")[0] for name in spans if name.startswith("layer ")}
    assert layers == {f"layer {i}" for i in range(32)}
    assert {n.partition(":")[0] for n in spans if n.startswith("block ")} == {
        f"block {i}" for i in range(24)
    }
    args = spans["layer 7: qkv_proj"]
    assert args["flop"] == 2 * 640 * 4096 * 3 * 4096
    assert args["flop_formula"]
    assert args["time_from"]


def test_layers_of_a_method_that_drops_tokens_are_counted_on() -> None:
    trace, _ = _trace(compress="fastv")
    names = {s["name"] for s in _spans(trace, "GPU") if s["name"].startswith("layer ")}
    assert {name.partition(":")[0] for name in names} == {f"layer {i}" for i in range(32)}


def test_the_cache_grows_to_that_of_the_estimate() -> None:
    trace, estimate = _trace()
    counters = [e["args"] for e in trace["traceEvents"] if e["ph"] == "C"]
    assert counters[0]["KV cache"] == 0
    assert counters[-1]["KV cache"] == pytest.approx(estimate.memory_bytes["kv_cache"])
    assert counters[-1]["weights"] == pytest.approx(estimate.memory_bytes["weights"])
