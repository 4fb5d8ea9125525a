"""A sweep as text and plain data: what it would compute, and what it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from costmodel.report.text import facts, quantity, table
from costmodel.sweep.blocks import LeftOut
from costmodel.sweep.running import Prepared, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["plan_record", "plan_tables", "summary_tables"]


def plan_record(prepared: Prepared) -> dict[str, Any]:
    """Return what a sweep would compute as plain data."""
    plan = prepared.plan
    return {
        "points": plan.points,
        "blocks": len(plan.blocks),
        "columns": list(prepared.columns),
        "estimated_bytes": prepared.estimated_bytes,
        "left_out": [asdict(item) for item in plan.left_out],
        "spec": plan.spec.resolved,
    }


def plan_tables(prepared: Prepared) -> list[RenderableType]:
    """Return what a sweep would compute."""
    plan = prepared.plan
    shown = facts(
        [
            ("points", f"{plan.points:,}"),
            ("blocks", f"{len(plan.blocks):,}"),
            ("columns", ", ".join(prepared.columns)),
            ("size", f"about {quantity(prepared.estimated_bytes, 'B')} before compression"),
        ]
    )
    return [shown, *_left_out(plan.left_out)]


def summary_tables(summary: Summary) -> list[RenderableType]:
    """Return what a sweep has computed."""
    rows = [
        ("output", summary.output),
        ("points", f"{summary.points:,}"),
        ("size", quantity(summary.bytes, "B")),
        ("time", quantity(summary.seconds, "s")),
        ("speed", f"{quantity(summary.points_per_second)} points/s"),
    ]
    if summary.resumed:
        rows.insert(2, ("from before", f"{summary.resumed:,} points"))
    return [facts(rows), *_left_out(summary.left_out)]


def _left_out(items: Sequence[LeftOut]) -> list[RenderableType]:
    if not items:
        return []
    rows = [(item.what, item.reason, f"{item.points:,}") for item in items]
    return ["", table(["left out", "what would do", "points"], rows, left=2)]
