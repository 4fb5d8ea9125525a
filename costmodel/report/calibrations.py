"""What the calibrations of a device rest on, as records and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.catalog.calibrations import list_calibrations, load_calibration
from costmodel.report.text import facts, table
from costmodel.specs.calibration import Calibration, KindFit
from costmodel.specs.hardware import HardwareProfile

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["calibration_records", "calibration_tables"]


def calibration_records(profile: HardwareProfile) -> list[dict[str, Any]]:
    """Return the calibrations of a device, its default first.

    Parameters
    ----------
    profile : HardwareProfile
        The device.

    Returns
    -------
    list of dict
        Name, title, date, whether it is the default, the spread between laboratories, and
        for each kind the data and the error it rests on.
    """
    return [
        {
            "name": calibration.name,
            "title": calibration.title,
            "date": calibration.date.isoformat(),
            "default": calibration.name == profile.default_calibration,
            "lab_spread": dict(calibration.lab_spread),
            "notes": list(calibration.notes),
            "kinds": [_kind_record(fit) for fit in calibration.kinds],
        }
        for calibration in _calibrations(profile)
    ]


def _calibrations(profile: HardwareProfile) -> list[Calibration]:
    own = [name for name in list_calibrations() if name.startswith(f"{profile.name}.")]
    default = profile.default_calibration
    names = dict.fromkeys([*([default] if default else []), *own])
    return [load_calibration(name, profile) for name in names]


def _kind_record(fit: KindFit) -> dict[str, Any]:
    error = fit.error
    return {
        "kind": fit.kind,
        "origin": fit.origin,
        "device": fit.device,
        "rule": fit.rule,
        "model": fit.model,
        "source": fit.source,
        "software": fit.software,
        "dtype": fit.dtype,
        "rows": fit.rows,
        "fitted": fit.fitted.isoformat(),
        "cv_mape_pct": error.mape_pct if error else None,
        "cv_p90_ape_pct": error.p90_pct if error else None,
        "cv_bias_pct": error.bias_pct if error else None,
        "roofline_mape_pct": error.roofline_mape_pct if error else None,
    }


def calibration_tables(profile: HardwareProfile) -> list[RenderableType]:
    """Return a table for each calibration of a device, or a line that says there is none."""
    from rich.text import Text

    records = calibration_records(profile)
    if not records:
        return ["", facts([("calibrations", "none: times are those of the datasheet")])]
    parts: list[RenderableType] = []
    for record in records:
        mark = " (default)" if record["default"] else ""
        parts += [
            "",
            Text(f"Calibration {record['name']}{mark}", style="bold"),
            Text(f"{record['title']}; {record['date']}"),
            table(
                ("kind", "measured by", "how", "rows", "MAPE\n%", "p90\n%", "roofline\nMAPE %"),
                map(_row, record["kinds"]),
                left=3,
                gap=1,
            ),
            *(Text(f"- {note}") for note in record["notes"]),
        ]
    return [*parts, "", Text("MAPE and p90 are of shapes whose group was left out of the fit.")]


def _row(kind: dict[str, Any]) -> tuple[str, ...]:
    numbers = ("cv_mape_pct", "cv_p90_ape_pct", "roofline_mape_pct")
    measured = ", ".join(filter(None, (kind["source"], kind["software"], kind["dtype"])))
    how = kind["origin"] if not kind["rule"] else f"{kind['origin']}: {kind['rule']}"
    return (
        kind["kind"],
        measured or "-",
        how,
        f"{kind['rows']:,}",
        *("-" if kind[name] is None else f"{kind[name]:.1f}" for name in numbers),
    )
