"""A calibration of one's own: the JSON object and tables of ``calibrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.calibration.own_fits import OwnFit
from costmodel.calibration.user import OwnCalibration
from costmodel.report.records import SCHEMA_VERSION
from costmodel.report.text import bullets, facts, table
from costmodel.report.validation import problem_records

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["own_calibration_record", "own_calibration_tables"]


def own_calibration_record(result: OwnCalibration, path: str) -> dict[str, Any]:
    """Return a new calibration as the JSON object of ``costmodel calibrate``.

    Parameters
    ----------
    result : OwnCalibration
        What was fitted.
    path : str
        File it was written to.

    Returns
    -------
    dict
        Keys ``schema_version``, ``name``, ``device``, ``file``, ``kinds``, ``taken``,
        ``stood_in``, ``host``, ``datasheet``, ``left_out``, ``notes`` and ``dropped``.
    """
    calibration = result.calibration
    return {
        "schema_version": SCHEMA_VERSION,
        "name": calibration.name,
        "device": calibration.device,
        "file": path,
        "kinds": [_kind_record(one) for one in result.fitted],
        "taken": list(result.taken),
        "stood_in": list(result.stood_in),
        "host": [fit.model_dump(mode="json") for fit in calibration.host],
        "datasheet": list(result.datasheet),
        "left_out": [
            {
                "kind": one.stack.kind,
                "source": one.stack.source,
                "software": one.stack.software,
                "dtype": one.stack.dtype,
                "kernel": one.stack.kernel,
                "rows": len(one.stack),
                "reason": one.reason,
            }
            for one in result.left_out
        ],
        "notes": list(calibration.notes),
        "dropped": problem_records(result.problems),
    }


def _kind_record(one: OwnFit) -> dict[str, Any]:
    fit, error = one.fit, one.fit.error
    return {
        "kind": fit.kind,
        "source": fit.source,
        "software": fit.software,
        "dtype": fit.dtype,
        "kernel": one.stack.kernel,
        "rows": fit.rows,
        "too_short": one.too_short,
        "judged": error.rows if error else 0,
        "cv_mape_pct": error.mape_pct if error else None,
        "cv_p90_ape_pct": error.p90_pct if error else None,
        "cv_bias_pct": error.bias_pct if error else None,
        "roofline_mape_pct": error.roofline_mape_pct if error else None,
        "at_bound": list(one.at_bound),
        "parameters": dict(fit.values),
    }


def own_calibration_tables(result: OwnCalibration, path: str) -> list[RenderableType]:
    """Return what was fitted, what was left out and what estimates do without."""
    from rich.text import Text

    calibration = result.calibration
    columns = (
        "kind", "stack", "at a bound", "rows", "MAPE\n%", "p90\n%", "bias\n%", "roofline\nMAPE %",
    )  # fmt: skip
    about = [
        ("from the base", ", ".join(result.taken)),
        ("like another", ", ".join(result.stood_in)),
        ("host costs", ", ".join(fit.runtime for fit in calibration.host)),
        ("datasheet only", ", ".join(result.datasheet)),
    ]
    shown = [(what, kinds) for what, kinds in about if kinds]
    left_out = [
        f"{one.stack.kind}, {one.stack.label} ({len(one.stack):,} rows): {one.reason}"
        for one in result.left_out
    ]
    notes = ["Errors are of shapes whose group was left out of the fit (4 folds)."]
    notes += calibration.notes
    if any(one.at_bound for one in result.fitted):
        notes.append(
            "The rows do not identify a parameter that ended at a bound; times within the "
            "measured range do not suffer."
        )
    parts: list[RenderableType] = [
        Text(f"{calibration.name}: {calibration.title}", style="bold"),
        table(columns, map(_row, result.fitted), left=3, gap=1),
    ]
    if shown:
        parts += ["", facts(shown)]
    return [
        *parts,
        *bullets("Notes", notes),
        *bullets("Not fitted", left_out),
        *bullets("Rows left out or worth a look", map(str, result.problems)),
        "",
        Text(f"wrote {path}"),
    ]


def _row(one: OwnFit) -> tuple[str, ...]:
    fit, error = one.fit, one.fit.error
    numbers = (
        (f"{error.mape_pct:.1f}", f"{error.p90_pct:.1f}", f"{error.bias_pct:+.1f}",
         f"{error.roofline_mape_pct:.0f}")
        if error else ("-",) * 4
    )  # fmt: skip
    return (fit.kind, one.stack.label, ", ".join(one.at_bound) or "-", f"{fit.rows:,}", *numbers)
