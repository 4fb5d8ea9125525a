"""Measured against predicted times: the JSON object, rows and tables of ``validate``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from costmodel.calibration.error_figures import Errors
from costmodel.calibration.judging import Judged, Validation
from costmodel.calibration.report import Problem
from costmodel.report.records import SCHEMA_VERSION
from costmodel.report.text import bullets, table

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["problem_records", "validation_record", "validation_rows", "validation_tables"]


def validation_record(result: Validation) -> dict[str, Any]:
    """Return a validation as the JSON object of ``costmodel validate``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``groups``, ``overall``, ``overall_same_stack``,
        ``min_time_us`` and ``dropped``.  Numbers that nothing was judged for are null.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "groups": validation_rows(result),
        "overall": asdict(result.overall),
        "overall_same_stack": asdict(result.same_stack),
        "min_time_us": result.min_time_us,
        "dropped": problem_records(result.problems),
    }


def validation_rows(result: Validation) -> list[dict[str, Any]]:
    """Return one row per group."""
    return [
        {
            "gpu": group.stack.gpu,
            "kind": group.stack.kind,
            "source": group.stack.source,
            "software": group.stack.software,
            "dtype": group.stack.dtype,
            "calibration": group.calibration,
            "same_stack": group.same_stack,
            "in_sample": group.in_sample,
            **asdict(group.errors),
            "cv_mape_pct": group.cv_mape_pct,
        }
        for group in result.groups
    ]


def problem_records(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return what was wrong with rows of timing files."""
    return [
        {
            "file": str(problem.path),
            "reason": problem.reason,
            "rows": list(problem.rows),
            "count": problem.count,
            "dropped": problem.dropped,
        }
        for problem in problems
    ]


_COLUMNS = (
    "kind", "measured by", "predicted by", "shapes", "MAPE\n%", "p90\n%", "bias\n%",
    "in band\n%", "roofline\nMAPE %",
)  # fmt: skip


def validation_tables(result: Validation) -> list[RenderableType]:
    """Return a table for each device, the overall figures and what they rest on."""
    from rich.text import Text

    parts: list[RenderableType] = []
    for gpu in dict.fromkeys(group.stack.gpu for group in result.groups):
        groups = [group for group in result.groups if group.stack.gpu == gpu]
        parts += [Text(gpu, style="bold"), table(_COLUMNS, map(_row, groups), left=3, gap=1), ""]
    summary = [
        ("all", result.overall),
        ("own stack", result.same_stack),
    ]
    parts.append(
        table(
            ("overall", *_COLUMNS[3:]),
            [(name, *_numbers(errors)) for name, errors in summary],
        )
    )
    return [
        *parts,
        *bullets("Notes", _notes(result)),
        *bullets("Rows left out or worth a look", map(str, result.problems)),
    ]


def _row(group: Judged) -> tuple[str, ...]:
    stack = group.stack
    measured = ", ".join(filter(None, (*map(_short, (stack.source, stack.software)), stack.dtype)))
    mark = "" if group.same_stack or group.calibration is None else " *"
    name = (group.calibration or "-").removeprefix(f"{stack.gpu}.")
    return (stack.kind, measured or "-", name + mark, *_numbers(group.errors))


def _short(name: str) -> str:
    """Leave out a commit and a remark in brackets, which JSON and CSV have."""
    return re.sub(r"@\w+|\s*\(.*\)", "", name)


def _numbers(errors: Errors) -> tuple[str, ...]:
    def shown(value: float | None, form: str = ".1f") -> str:
        return "-" if value is None else f"{value:{form}}"

    return (
        f"{errors.n:,}",
        shown(errors.mape_pct),
        shown(errors.p90_ape_pct),
        shown(errors.bias_pct, "+.1f"),
        shown(errors.coverage90_pct, ".0f"),
        shown(errors.roofline_mape_pct, ".0f"),
    )


def _notes(result: Validation) -> list[str]:
    notes = [
        f"Each shape counts once, by the median of its measurements; shapes under "
        f"{result.min_time_us:g} us are not judged."
    ]
    if any(group.calibration and not group.same_stack for group in result.groups):
        notes.append("* fitted on another laboratory, framework or device")
    if any(group.calibration is None for group in result.groups):
        notes.append("no calibration has the kinds without a name: estimates use the datasheet")
    notes += [note for group in result.groups if (note := _memory_note(group))]
    seen = [group for group in result.groups if group.in_sample and group.cv_mape_pct is not None]
    if seen:
        stated = [group.cv_mape_pct for group in seen if group.cv_mape_pct is not None]
        notes.append(
            f"{len(seen)} groups are of the files that were fitted; on shapes left out of the "
            f"fit their mean errors are {min(stated):.1f} to {max(stated):.1f} %"
        )
    return notes


def _memory_note(group: Judged) -> str:
    """How far predicted peak memory is from measured, of whole models that say."""
    if "memory_bytes" not in group.points:
        return ""
    known = group.points[group.points["memory_bytes"].notna()]
    if known.empty:
        return ""
    error = known["predicted_memory_bytes"] / known["memory_bytes"] - 1.0
    return (
        f"peak memory of {group.stack.kind}: mean absolute error {100 * error.abs().mean():.1f} %, "
        f"bias {100 * error.mean():+.1f} %"
    )
