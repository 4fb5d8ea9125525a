"""Kernels: how well they are predicted, and how well they repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.loop.runs import REQUESTS, Run
from costmodel.calibration.judging import Judged, validate_timings
from costmodel.calibration.user import OwnCalibration
from costmodel.errors import CostModelError

__all__ = ["kernel_rows", "repeat_rows"]


def kernel_rows(
    result: OwnCalibration,
    first: Sequence[Path],
    second: Sequence[Path],
    gpu: str | Path,
    own: Path,
    shipped: str | None,
) -> list[dict[str, Any]]:
    """Return the errors of each kind.

    Parameters
    ----------
    result : OwnCalibration
        Fitted to the first run.
    first, second : sequence of Path
        Files of the kernels of both runs; the second may be empty.
    gpu : str or Path
        The device.
    own : Path
        File of the calibration.
    shipped : str, optional
        The calibration that comes with the device.

    Returns
    -------
    list of dict
        ``kind``, ``kernel``, ``rows``; ``cv_...`` on shapes left out of the fit; ``again_...``
        of the same calibration on the second run; ``shipped_...`` of the other on the first.
    """
    repeated = _errors(second, gpu, own)
    others = _errors(first, gpu, shipped) if shipped is not None else {}
    rows = []
    for one in result.fitted:
        kind, error = one.fit.kind, one.fit.error
        row: dict[str, Any] = {"kind": kind, "kernel": one.stack.kernel, "rows": one.fit.rows}
        if error is not None:
            row |= {f"cv_{name}": value for name, value in error.model_dump().items()}
        for prefix, judged in (("again", repeated), ("shipped", others)):
            if kind in judged and judged[kind].calibration is not None:
                row |= {f"{prefix}_{n}": v for n, v in asdict(judged[kind].errors).items()}
        rows.append(row)
    return rows


def _errors(
    paths: Sequence[Path], gpu: str | Path, calibration: str | Path | None
) -> dict[str, Judged]:
    """Return what is judged of each kind: of several number formats that with most rows."""
    if not paths:
        return {}
    try:
        groups = validate_timings(paths, gpu=gpu, calibration=calibration).groups
    except CostModelError as error:
        print(f"kernels were not judged: {error}")
        return {}
    return {one.stack.kind: one for one in sorted(groups, key=lambda group: group.errors.n)}


def repeat_rows(first: Run, second: Run) -> list[dict[str, Any]]:
    """Return how far the medians of two runs are apart, and the samples within a run.

    Returns
    -------
    list of dict
        ``kind``, ``cases``, ``median_pct``, ``p90_pct`` of the absolute difference to the
        first run, and ``within_pct``, the median of standard deviation over mean.
    """
    rows = []
    for kind in first.files:
        one, other = first.frame(kind), second.frame(kind)
        if other.empty:
            continue
        both = one.merge(other[["case", "time_us"]], on="case", suffixes=("", "_again"))
        both = both.assign(
            apart=100 * (both["time_us_again"] / both["time_us"] - 1).abs(),
            within=100 * both["time_us_std"] / both["time_us_mean"],
            name=both["stage"] + " " + both["runtime"] if kind == REQUESTS else kind,
        )
        for name, some in both.groupby("name"):
            rows.append(
                {
                    "kind": str(name),
                    "cases": len(some),
                    "median_pct": float(some["apart"].median()),
                    "p90_pct": float(some["apart"].quantile(0.9)),
                    "within_pct": float(some["within"].median()),
                }
            )
    return rows
