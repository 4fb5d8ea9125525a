"""From evaluated operators to the sections of a result: sums by stage, memory, parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from costmodel.evaluation import Evaluation, evaluate_expressions, resolve
from costmodel.memory import Memory, largest_batch
from costmodel.ops import ZERO, Op
from costmodel.program import Program
from costmodel.results import STAGES, OpRow, stage_of
from costmodel.timing.device import Device
from costmodel.timing.difference import Side, ratio_bounds
from costmodel.timing.host import End, exposed_by_stage
from costmodel.timing.model import BOUNDS, PassTimes, Provenance

__all__ = [
    "Passes",
    "bytes_by_stage",
    "flops_by_stage",
    "host_by_stage",
    "interval",
    "memory_section",
    "op_rows",
    "parameters",
    "savings_interval",
    "stage_provenance",
    "times_by_stage",
]


Passes = Mapping[str, Side]
"""Prefill as ``ttft`` and a decode step as ``tpot``."""

_STAGE_NAMES = {"llm": "llm_prefill"}
_WEAKNESS = get_args(Provenance)
_MOST = 0.8


def op_rows(evaluation: Evaluation, times: PassTimes) -> tuple[OpRow, ...]:
    """Return one row per operator, totals over its repeats."""
    return tuple(
        _row(op, index, evaluation, times) for index, op in enumerate(evaluation.ops)
    )  # fmt: skip


def _row(op: Op, index: int, evaluation: Evaluation, times: PassTimes) -> OpRow:
    repeat = float(evaluation.repeat[index])
    return OpRow(
        name=op.name,
        stage=stage_of(op),
        kind=op.kind,
        part=op.part,
        counted=op.matmul,
        repeat=repeat,
        launches=float(evaluation.launches[index]) * repeat,
        host_syncs=float(evaluation.host_syncs[index]) * repeat,
        shape={name: float(size) for name, size in evaluation.shapes[index].items()},
        flops=float(evaluation.flops[index]) * repeat,
        bytes={
            kind: float(rows[index]) * repeat for kind, rows in evaluation.traffic.items()
        },
        time_s=float(times.op_s[index]) * repeat,
        bound_by=BOUNDS[int(times.bound[index])],
        provenance=times.provenance[index],
        note=op.note,
        op=op,
    )  # fmt: skip


def _sum(rows: Sequence[OpRow], value: Callable[[OpRow], float]) -> float:
    return float(sum(value(row) for row in rows))


def _by_stage(rows: Sequence[OpRow], value: Callable[[OpRow], float]) -> dict[str, float]:
    return {stage: _sum([row for row in rows if row.stage == stage], value) for stage in STAGES}


def flops_by_stage(rows: Sequence[OpRow]) -> dict[str, float]:
    """Return FLOPs by stage and in total; matrix products and convolutions [FLOP]."""
    counted = [row for row in rows if row.counted]
    result = _by_stage(counted, lambda row: row.flops)
    language = [row for row in counted if row.stage == "llm_prefill"]
    attention = [row for row in language if row.part == "attention"]
    result["llm_attention"] = _sum(attention, lambda row: row.flops)
    result["llm_linear"] = result["llm_prefill"] - result["llm_attention"]
    result["total"] = sum(result[stage] for stage in STAGES)
    return result


def bytes_by_stage(rows: Sequence[OpRow]) -> dict[str, float]:
    """Return bytes moved by stage and in total, all operators [B]."""
    result = _by_stage(rows, lambda row: sum(row.bytes.values()))
    language = [row for row in rows if row.stage == "llm_prefill"]
    attention = [row for row in language if row.part == "attention"]
    result["llm_attention"] = _sum(attention, lambda row: sum(row.bytes.values()))
    result["llm_linear"] = result["llm_prefill"] - result["llm_attention"]
    result["total"] = sum(result[stage] for stage in STAGES)
    return result


def times_by_stage(
    rows: Sequence[OpRow],
    prefill: PassTimes,
    decode_rows: Sequence[OpRow],
    decode: PassTimes,
) -> dict[str, float]:
    """Return time by stage, exposed host time, TTFT and TPOT [s]."""
    result = _by_stage(rows, lambda row: row.time_s)
    result["host_overhead"] = float(prefill.host_overhead_s)
    result["ttft"] = sum(result.values())
    result["tpot"] = _sum(decode_rows, lambda row: row.time_s) + float(decode.host_overhead_s)
    return result


def interval(times: PassTimes, decode: PassTimes | None = None) -> dict[str, Any]:
    """Return the bands of TTFT, of its stages and of TPOT by kind, None where there is none [s].

    Parameters
    ----------
    times : PassTimes
        Of prefill.
    decode : PassTimes, optional
        Of a decode step; without it there is no band of TPOT.
    """
    kinds = ("any_stack", "same_stack")

    def bands(of: PassTimes) -> dict[str, list[float] | None]:
        return {
            kind: [float(of.low_s[kind]), float(of.high_s[kind])] if kind in of.low_s else None
            for kind in kinds
        }

    stages = {
        _STAGE_NAMES.get(stage, stage): {
            kind: [
                float(times.stage_low_s[kind][stage]), float(times.stage_high_s[kind][stage]),
            ]
            for kind in kinds
        }
        for stage in next(iter(times.stage_low_s.values()), {})
    }  # fmt: skip
    return {
        "ttft": bands(times),
        "stages": stages,
        **({} if decode is None else {"tpot": bands(decode)}),
        "level": times.level,
    }


def host_by_stage(side: Side) -> dict[str, list[float]]:
    """Return the exposed host time of each stage: with cheap, usual and dear launches [s]."""
    found: dict[str, list[float]] = {}
    ends: tuple[End, ...] = ("low", "mid", "high")
    for end in ends:
        times = side.times
        for stage, seconds in exposed_by_stage(
            side.evaluation, times.op_s, times.queues, end
        ).items():
            found.setdefault(_STAGE_NAMES.get(stage, stage), []).append(float(seconds))
    return found


def savings_interval(before: Passes, after: Passes) -> dict[str, Any]:
    """Return the bands of how many times faster `after` is than `before`, by kind of band.

    Errors that both share cancel, so that they are narrower than the bands of the times
    (`costmodel.timing.difference.ratio_bounds`).  An upper end is None where it has no bound.
    """
    return {
        f"{name}_s_ratio": {
            kind: [float(low), float(high) if math.isfinite(high) else None]
            for kind, (low, high) in bounds.items()
        }
        for name in before
        if (bounds := ratio_bounds(before[name], after[name]))
    }


def stage_provenance(rows: Sequence[OpRow]) -> dict[str, str]:
    """Return for each stage the weakest tag among the operators that make up most of its time.

    Operators count from the longest on until they cover four fifths of the stage.
    """
    found = {}
    for stage in STAGES:
        own = sorted((row for row in rows if row.stage == stage), key=lambda row: -row.time_s)
        total = sum(row.time_s for row in own)
        covered, tags = 0.0, set()
        for row in own:
            if covered >= _MOST * total:
                break
            covered += row.time_s
            tags.add(row.provenance)
        if tags:
            found[stage] = max(tags, key=_WEAKNESS.index)
    return found


def parameters(program: Program) -> dict[str, float]:
    """Return parameters by module and in total; tied weights once."""
    modules = ("vision_encoder", "projector", "compression", "llm", "lm_head")
    sums = [
        sum((item.count for item in program.weights if item.stage == module), start=ZERO)
        for module in modules
    ]
    values = evaluate_expressions(sums, resolve(program, "prefill"))
    result = {module: float(value) for module, value in zip(modules, values, strict=True)}
    return result | {"total": sum(result.values())}


def memory_section(now: Memory, program: Program, device: Device) -> dict[str, Any]:
    """Return memory of one device, whether it fits, and the largest batch that does [B]."""
    total = float(now.total)
    capacity = device.capacity_bytes
    return {
        "weights": float(now.weights),
        "kv_cache": float(now.kv_cache),
        "kv_cache_groups": [
            {"layers": layers, "bytes": float(size)} for layers, size in now.kv_cache_groups
        ],
        "activations_peak": float(now.activations_peak),
        "activations_peak_op": now.peak_op,
        "total": total,
        "device": capacity,
        "fits": total <= capacity,
        "missing": max(total - capacity, 0.0),
        "largest_batch": largest_batch(program, capacity),
    }
