"""All that tables know of a point under one name each: times, bands, FLOPs and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from costmodel.evaluation import FloatArray
from costmodel.memory import memory
from costmodel.results import STAGES, stage_of
from costmodel.tables.band_table import BandTable
from costmodel.tables.count_table import COUNTS, CountTable
from costmodel.tables.domain import Domain
from costmodel.tables.lookup import Array, Chunk
from costmodel.tables.pass_table import PassTable

__all__ = ["BANDS", "NAMES", "TIMES", "direct_values", "fill"]

TIMES = (*STAGES, "host_overhead", "ttft")
"""Stages of the prefill, the exposed host time and their sum [s]."""

BANDS = ("ttft_low", "ttft_high")
"""Bounds of the TTFT, of any lab and software [s]."""

NAMES = (*TIMES, *BANDS, "tpot", *COUNTS)
"""Names of all quantities."""


def fill(
    chunk: Chunk,
    outs: Mapping[str, Array],
    prefill: PassTable,
    decode: PassTable | None,
    bands: BandTable | None,
    counts: CountTable | None,
) -> None:
    """Write the quantities that `outs` names at all points of a chunk."""
    if any(name in outs for name in TIMES):
        rows = {name: outs[name] if name in outs else chunk.buffer(name) for name in TIMES}
        prefill.stages_s(chunk, rows)
        prefill.sum_s(chunk, rows, rows["ttft"])
    if BANDS[0] in outs and bands is not None:
        bands.bounds_s(chunk, "any_stack", outs[BANDS[0]], outs[BANDS[1]])
    if "tpot" in outs and decode is not None:
        decode.total_s(chunk, outs["tpot"])
    if counts is not None:
        counts.fill(chunk, outs)


def direct_values(domain: Domain, at: Mapping[str, FloatArray], outs: Mapping[str, Array]) -> None:
    """Write the same without tables, for some thousand points at once."""
    evaluation, times = domain.times("prefill", at)
    stage_s = {
        stage: evaluation.total(times.op_s, [stage_of(op) == stage for op in evaluation.ops])
        for stage in STAGES
    }
    stage_s["host_overhead"] = np.asarray(times.host_overhead_s)
    flops = {
        f"flops_{stage}": evaluation.total(
            evaluation.flops, [stage_of(op) == stage and op.matmul for op in evaluation.ops]
        )
        for stage in STAGES
    }
    values: dict[str, Any] = stage_s | flops
    values["ttft"] = np.sum(list(stage_s.values()), axis=0)
    values["flops_total"] = np.sum(list(flops.values()), axis=0)
    if BANDS[0] in outs:
        values["ttft_low"], values["ttft_high"] = (
            times.low_s["any_stack"],
            times.high_s["any_stack"],
        )
    if "tpot" in outs:
        decode, decode_times = domain.times("decode", at)
        values["tpot"] = decode.total(decode_times.op_s) + decode_times.host_overhead_s
    if any(name in outs for name in COUNTS):
        found = memory(domain.program, **at)
        values |= {
            "weights": found.weights, "kv_cache": found.kv_cache,
            "activations_peak": found.activations_peak, "memory_total": found.total,
        }  # fmt: skip
    for name, out in outs.items():
        out[...] = values[name]
