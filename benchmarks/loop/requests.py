"""Whole requests: measured once or twice, and predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.calibration.judging import own_devices, validate_timings
from costmodel.calibration.loading import load_timings
from costmodel.calibration.whole_models import groups_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ANY_STACK", "SAME_STACK", "again", "compared", "judged", "summary"]

SAME_STACK, ANY_STACK = ("low_s", "high_s"), ("any_low_s", "any_high_s")
"""Columns of the band of this device and software, and of any lab and software."""

_KEY = [
    "model", "config", "runtime", "stage", "attention", "compress", "batch", "visual_tokens",
    "text_tokens", "output_tokens",
]  # fmt: skip


def judged(path: Path, gpu: str | Path, calibration: str | Path | None) -> pd.DataFrame:
    """Return the requests of a file with runtime, stage and what is predicted of them [s]."""
    import pandas as pd

    groups = validate_timings([path], gpu=gpu, calibration=calibration).groups
    frames = []
    for group in groups:
        stage, _, runtime = group.stack.kind.rpartition(" ")
        frames.append(group.points.assign(stage=stage, runtime=runtime))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_KEY)


def again(table: pd.DataFrame, path: Path | None, gpu: str | Path) -> pd.DataFrame:
    """Return requests with the time that another run measured, ``again_s`` [s]."""
    import pandas as pd

    frames = []
    if path is not None:
        timings, _ = load_timings([path], gpu=gpu, profiles=own_devices(gpu))
        frames = [rows.assign(runtime=g[4], stage=g[5]) for g, rows in groups_of(timings)]
    if not frames:
        return table.assign(again_s=float("nan"))
    other = pd.concat(frames)[[*_KEY, "time_s"]].rename(columns={"time_s": "again_s"})
    return table.merge(other, on=_KEY, how="left")


def compared(table: pd.DataFrame, band: tuple[str, str] = SAME_STACK) -> pd.DataFrame:
    """Return requests with ``mean_s`` of both runs, and errors against it.

    Parameters
    ----------
    table : pandas.DataFrame
        From `again`.
    band : tuple of str
        Columns of the band.

    Returns
    -------
    pandas.DataFrame
        With ``mean_s`` [s], ``error_pct``, ``spread_pct`` (of the second run to the first)
        and ``inside``.
    """
    mean = table[["time_s", "again_s"]].mean(axis=1)
    return table.assign(
        mean_s=mean,
        error_pct=100 * (table["predicted_s"] / mean - 1),
        spread_pct=100 * (table["again_s"] / table["time_s"] - 1),
        inside=(mean >= table[band[0]]) & (mean <= table[band[1]]),
    )


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Return mean absolute error, bias, coverage and how far two runs are from each other [%]."""
    figures: dict[str, Any] = {
        "requests": len(table),
        "mape_pct": table["error_pct"].abs().mean(),
        "bias_pct": table["error_pct"].mean(),
        "in_band_pct": 100 * table["inside"].mean(),
        "run_to_run_pct": table["spread_pct"].abs().mean(),
    }
    return {name: float(value) for name, value in figures.items()}
