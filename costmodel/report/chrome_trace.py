"""A predicted prefill in the Trace Event Format, which Perfetto and chrome://tracing open.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
(complete events "X" with ``ts`` and ``dur`` in microseconds, metadata "M", counters "C").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from costmodel.case import Case
from costmodel.report.method_runs import setting
from costmodel.report.timeline import Step, Timeline, timeline
from costmodel.results import STAGES

__all__ = ["chrome_trace"]

_PROCESS = 1
_TRACKS = {"stages": 1, "GPU": 2, "host": 3}
_PLACES = 4
"""Decimals of a microsecond: ends of one event and beginnings of the next stay equal."""


@dataclass
class _Writer:
    events: list[dict[str, Any]] = field(default_factory=list)

    def span(
        self, track: str, name: str, category: str, start_s: float, end_s: float,
        args: dict[str, Any],
    ) -> None:  # fmt: skip
        start, end = (round(1e6 * value, _PLACES) for value in (start_s, end_s))
        if end > start:
            self.events.append({
                "name": name, "cat": category, "ph": "X", "ts": start,
                "dur": round(end - start, _PLACES), "pid": _PROCESS, "tid": _TRACKS[track],
                "args": args,
            })  # fmt: skip

    def counter(self, name: str, at_s: float, values: dict[str, float]) -> None:
        self.events.append({
            "name": name, "ph": "C", "ts": round(1e6 * at_s, _PLACES), "pid": _PROCESS,
            "args": values,
        })  # fmt: skip


def chrome_trace(case: Case) -> dict[str, Any]:
    """Return the predicted prefill of a case as a trace.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.

    Returns
    -------
    dict
        Ready for JSON.  Track ``GPU`` has every operator and every wait for the host, end to
        end, and lasts the time to the first token; ``host`` launches, CPU work and waits for
        results; ``stages`` the stages.  A counter follows weights and KV cache.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> trace = chrome_trace(prepare("llama-2-7b", "a100-80gb-sxm", text_tokens=64))
    >>> sorted({event["ph"] for event in trace["traceEvents"]})
    ['C', 'M', 'X']
    """
    found = timeline(case)
    label = case.request.label if case.request is not None else "no compression"
    writer = _Writer(_metadata(f"{setting(case)}, {label}"))
    _draw_gpu(writer, found)
    _draw_host(writer, found)
    return {
        "traceEvents": writer.events,
        "displayTimeUnit": "ms",
        "otherData": {
            "what": "predicted by costmodel, not measured",
            "case": f"{setting(case)}, {label}",
            "time_to_first_token_ms": f"{1e3 * found.ttft_s:.6g}",
            "order": "operators stand by stage; those of a method inside the language model "
            "stand before it",
            "waits": "known for each stage as a whole, spread over its launches",
        },
    }


def _metadata(title: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": _PROCESS, "args": {"name": title}}
    ]
    for name, track in _TRACKS.items():
        place = {"ph": "M", "pid": _PROCESS, "tid": track}
        events.append({"name": "thread_name", **place, "args": {"name": name}})
        events.append({"name": "thread_sort_index", **place, "args": {"sort_index": track}})
    return events


def _draw_gpu(writer: _Writer, found: Timeline) -> None:
    now = cached = 0.0
    writer.counter("memory [B]", 0.0, {"weights": found.weights_bytes, "KV cache": 0.0})
    for stage in STAGES:
        begun, waited = now, 0.0
        for step in (step for step in found.steps if step.row.stage == stage):
            if step.wait_s:
                cause = {"waits_for": "launches of the host"}
                writer.span("GPU", "waiting", "wait", now, now + step.wait_s, cause)
                now += step.wait_s
                waited += step.wait_s
            name, category = (step.name, step.row.kind)
            if step.on_host:
                name, category = f"idle: {step.name} on the host", "wait"
            writer.span("GPU", name, category, now, now + step.time_s, _args(step))
            now += step.time_s
            written = step.row.bytes.get("kv_write", 0.0) * step.count / step.row.repeat
            if written:
                cached += written
                values = {"weights": found.weights_bytes, "KV cache": cached}
                writer.counter("memory [B]", now, values)
        writer.span(
            "stages", stage.replace("_", " "), "stage", begun, now,
            {"time_ms": 1e3 * (now - begun), "waiting_ms": 1e3 * waited},
        )  # fmt: skip


def _draw_host(writer: _Writer, found: Timeline) -> None:
    host = gpu = 0.0
    stage = ""
    for step in found.steps:
        begun = gpu
        gpu += step.wait_s + step.time_s
        if step.row.stage != stage:
            # A stage's first launch is what its first wait is for.
            stage, host = step.row.stage, max(host, begun)
        if step.on_host:
            host = max(host, begun + step.wait_s)
            writer.span("host", step.name, "cpu", host, host + step.time_s, _args(step))
            host += step.time_s
            continue
        # The host cannot start a kernel later than the GPU runs it.
        start = max(host, 0.0)
        end = min(start + step.launch_s, max(begun + step.wait_s, start))
        kernels = {"kernels": step.row.launches / step.row.repeat * step.count}
        writer.span("host", f"launch {step.name}", "launch", start, end, kernels)
        host = end
        if step.syncs:
            writer.span("host", f"wait for {step.name}", "sync", host, gpu, {"syncs": step.syncs})
            host = max(host, gpu)


def _args(step: Step) -> dict[str, Any]:
    row, share = step.row, step.count / step.row.repeat
    args: dict[str, Any] = {
        "operator": row.name,
        "kind": row.kind,
        "flop": row.flops * share,
        **{f"{kind}_bytes": size * share for kind, size in row.bytes.items() if size},
        **row.shape,
        "flop_formula": row.formula["flops"],
        "bytes_formula": row.formula["bytes"],
        "bound_by": row.bound_by,
        "time_from": row.provenance,
    }
    return args | ({"note": row.note} if row.note else {})
