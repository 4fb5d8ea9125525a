"""Memory against batch: weights, KV cache and activations under the card's capacity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from costmodel.case import Case
from costmodel.catalog.hardware import list_gpus, load_gpu, load_host
from costmodel.charts import Axis, BarChart, LineChart, Panels, Picture, Series
from costmodel.memory import largest_batch, memory
from costmodel.report.method_runs import setting
from costmodel.report.picture_kinds import Asked, Drawn, Kind
from costmodel.report.result_columns import axis_of, scaled
from costmodel.timing.device import resolve_device

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe"]

_MOST_BARS = 14
_MOST_LINES = 14


def _of_case(asked: Asked) -> Picture:
    case = asked.plain
    cases = [replace(case, request=None)]
    if case.request is not None and case.request.compresses:
        cases.append(case)
    capacity = resolve_device(case.gpu, load_host(), case.deployment).capacity_bytes
    charts = tuple(_bars(one, capacity) for one in cases)
    highest = max(
        sum(values) for chart in charts for values in zip(*chart.parts.values(), strict=True)
    )
    axis = Axis("memory", "GB", limits=(0.0, 1.06 * highest))
    charts = tuple(replace(chart, y=axis) for chart in charts)
    note = f"{setting(case, batch=False)}, {case.workload.output_tokens:,} output tokens"
    if len(charts) == 1:
        return replace(charts[0], title=f"Memory against batch: {charts[0].title}", note=note)
    return Panels("Memory against batch", charts, columns=2, note=note)


def _batches(largest: int) -> list[int]:
    """Powers of two up to the first that does not fit, and the largest that does."""
    most = max(largest, 1)
    powers = [2**i for i in range(most.bit_length() + 1)][-_MOST_BARS:]
    return sorted({most, *(power for power in powers if not 0.85 < power / most < 1.15)})


def _bars(case: Case, capacity: float) -> BarChart:
    program, _ = case.program()
    largest = largest_batch(program, capacity)
    batches = _batches(largest)
    found = memory(program, b=np.asarray(batches, dtype=float))
    parts = {
        "weights": found.weights,
        "KV cache": found.kv_cache,
        "peak activations": found.activations_peak,
    }
    label = case.request.label if case.request is not None else "no compression"
    return BarChart(
        title=f"{label}: largest batch {largest:,}",
        y=Axis("memory", "GB"),
        categories=tuple(f"{batch:,}" for batch in batches),
        parts={
            name: tuple((1e-9 * np.broadcast_to(value, len(batches))).tolist())
            for name, value in parts.items()
        },
        category=Axis("requests computed together"),
        levels={f"capacity of {case.gpu.name}": 1e-9 * capacity},
    )


def describe(frame: pd.DataFrame, note: str) -> Picture:
    """Return memory and KV cache against batch, method by method.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``gpu``, ``method``, ``visual_tokens_kept``, ``batch``, ``kv_cache_bytes`` and
        ``memory_total_bytes``.
    note : str
        What is held fixed.
    """
    several = frame.groupby("method")["visual_tokens_kept"].nunique().max() > 1
    groups = ["method", "visual_tokens_kept"] if several else ["method"]
    lines = [
        (f"{key[0]}, {key[1]:g} tokens" if several else str(key[0]), rows)
        for key, rows in frame.groupby(groups, sort=False)
    ]
    if len(lines) > _MOST_LINES:
        note += f"; the first {_MOST_LINES} of {len(lines)} settings"
    charts = []
    for column in ("memory_total_bytes", "kv_cache_bytes"):
        series = []
        for name, own in lines[:_MOST_LINES]:
            rows = own.drop_duplicates("batch").sort_values("batch")
            series.append(
                Series.of(name, rows["batch"], scaled(rows, column), mode="lines+markers")
            )
        gpu = str(frame["gpu"].iloc[0])
        if column == "memory_total_bytes" and gpu in list_gpus():
            ends = (float(frame["batch"].min()), float(frame["batch"].max()))
            capacity = 1e-9 * load_gpu(gpu).capacity_bytes
            series.append(Series(f"capacity of {gpu}", ends, (capacity, capacity), reference=True))
        axis = axis_of(column)
        charts.append(LineChart(axis.title, axis_of("batch", log=True), axis, tuple(series)))
    return Panels("Memory against batch", tuple(charts), columns=2, note=note)


KIND = Kind(
    summary="Weights, KV cache and activations against batch, with the card's capacity.",
    of_case=_of_case,
    of_results=Drawn(
        needs=("kv_cache_bytes", "memory_total_bytes"),
        shows=("method", "visual_tokens_kept", "batch"),
        describe=describe,
    ),
)
