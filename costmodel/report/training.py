"""The cost of training: the JSON object, rows and tables of ``train-cost``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.text import bullets, table
from costmodel.training import StageCost, TrainingCost

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["training_record", "training_rows", "training_tables"]

_J_PER_KWH = 3.6e6
_EXA = 1e18


def training_record(cost: TrainingCost) -> dict[str, Any]:
    """Return the cost of training as the JSON object of ``costmodel train-cost``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``inputs``, ``stages``, ``total`` and ``notes``.  Seconds and
        joules beside hours, GPU-hours and kWh; ``low`` and ``high`` are the 90 % band, null where
        the time model has none.
    """
    record: dict[str, Any] = plain({
        "schema_version": SCHEMA_VERSION,
        "inputs": _inputs(cost),
        "stages": [_stage(stage) for stage in cost.stages],
        "total": {"flops": cost.flops, **_times(cost)},
        "notes": list(cost.notes),
    })  # fmt: skip
    return record


def training_rows(cost: TrainingCost) -> list[dict[str, Any]]:
    """Return one row per stage, the total last."""
    shared = _inputs(cost)
    rows = []
    for stage in cost.stages:
        row = {**shared, **_stage(stage)}
        for name in ("passes", "flops_by_part", "trained"):
            del row[name]
        rows.append(plain(row))
    total = {"stage": "total", "flops": cost.flops, **_times(cost)}
    return [*rows, plain({key: {**shared, **total}.get(key) for key in rows[0]})]


def training_tables(cost: TrainingCost) -> list[RenderableType]:
    """Return the cost of training as a table for people, assumptions below."""
    from rich.text import Text

    columns = (
        "stage", "samples", "tokens\na sample", "EFLOP", "share\nof peak", "hours", "90 % band",
        "GPU-hours", "kWh",
    )  # fmt: skip
    rows = [
        (
            stage.name, f"{stage.samples:,}", f"{stage.tokens / stage.samples:,.0f}",
            f"{stage.flops / _EXA:.2f}", f"{stage.achieved_share:.2f}", *_cells(stage),
        )
        for stage in cost.stages
    ]  # fmt: skip
    total = ("total", "", "", f"{cost.flops / _EXA:.2f}", "", *_cells(cost))
    trained = (f"{stage.name}: {', '.join(stage.trained)}" for stage in cost.stages)
    compress = "no compression" if cost.compress == "none" else cost.compress
    title = f"{cost.model}, recipe {cost.recipe}, on {cost.gpus:,} x {cost.gpu}, {compress}"
    return [
        Text(title, style="bold"),
        "",
        table(columns, [*rows, ("---",), total]),
        *bullets("Notes", (f"trained: {'; '.join(trained)}", *cost.notes)),
    ]


def _inputs(cost: TrainingCost) -> dict[str, Any]:
    return {
        "model": cost.model,
        "gpu": cost.gpu,
        "recipe": cost.recipe,
        "gpus": cost.gpus,
        "compress": cost.compress,
    }


def _stage(stage: StageCost) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "trained": list(stage.trained),
        "passes": stage.passes,
        "samples": stage.samples,
        "steps": stage.steps,
        "micro_batch": stage.micro_batch,
        "accumulation": stage.accumulation,
        "tokens": stage.tokens,
        "padded_tokens": stage.padded_tokens,
        "trained_parameters": stage.trained_parameters,
        "flops": stage.flops,
        "flops_by_part": stage.flops_by_part,
        "achieved_share": stage.achieved_share,
        "compute_s": stage.compute_s,
        "optimizer_s": stage.optimizer_s,
        "communication_s": stage.communication_s,
        **_times(stage),
    }


def _times(cost: StageCost | TrainingCost) -> dict[str, Any]:
    low, high = cost.band_hours or (None, None)
    return {
        "time_s": 3600 * cost.hours,
        "hours": cost.hours,
        "low_hours": low,
        "high_hours": high,
        "gpu_hours": cost.gpu_hours,
        "energy_j": _J_PER_KWH * cost.energy_kwh,
        "energy_kwh": cost.energy_kwh,
    }


def _cells(cost: StageCost | TrainingCost) -> Sequence[str]:
    low, high = cost.band_hours or (None, None)
    band = "-" if low is None or high is None else f"{low:.3g} to {high:.3g}"
    return f"{cost.hours:.3g}", band, f"{cost.gpu_hours:,.3g}", f"{cost.energy_kwh:,.3g}"
