"""Clustering: what it costs, measured and predicted, beside what fewer tokens save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.break_even import TEXT, free_choice
from costmodel.calibration.judging import Judged, own_devices, validate_timings
from costmodel.calibration.loading import load_timings
from costmodel.calibration.method_overheads import COMPRESSION, overhead_groups
from costmodel.calibration.method_requests import params_of
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError
from costmodel.specs.model import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Savings", "clusterings", "in_requests", "method_errors", "methods"]

_RUN = ["method", "variant", "runtime", "batch", "tokens", "kept", "width", "params"]


def methods(
    path: Path, other: Path | None, gpu: str | Path, own: Path, shipped: str | None
) -> pd.DataFrame:
    """Return measured runs of all methods with both calibrations' predictions [s].

    Parameters
    ----------
    path, other : Path
        Files of the suite ``compression`` of both runs.
    gpu : str or Path
        The device.
    own, shipped : Path, str
        Calibrations; the shipped one may be None.

    Returns
    -------
    pandas.DataFrame
        ``time_s``, ``again_s``, ``predicted_s``, ``low_s``, ``high_s``, ``shipped_s``.
    """
    import pandas as pd

    table = _points(validate_timings([path], gpu=gpu, calibration=own).groups)
    if shipped is not None:
        found = _points(validate_timings([path], gpu=gpu, calibration=shipped).groups)
        found = found.rename(columns={"predicted_s": "shipped_s"})
        table = table.merge(found[[*_RUN, "shipped_s"]], on=_RUN, how="left")
    if other is None:
        return table.assign(again_s=math.nan)
    timings, _ = load_timings([other], gpu=gpu, profiles=own_devices(gpu))
    groups, _ = overhead_groups(timings)
    again = pd.concat([rows.assign(method=group.method) for group, rows in groups])
    again = again.rename(columns={"time_s": "again_s"})
    return table.merge(again[[*_RUN, "again_s"]], on=_RUN, how="left")


def _points(groups: tuple[Judged, ...]) -> pd.DataFrame:
    import pandas as pd

    frames = [
        group.points.assign(method=group.stack.kind.removeprefix(f"{COMPRESSION} "))
        for group in groups
    ]
    return pd.concat(frames, ignore_index=True)


def method_errors(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return errors by method, implementation and runtime [%]."""
    rows = []
    for names, some in table.groupby(["method", "variant", "runtime"]):
        error = some["predicted_s"] / some["time_s"] - 1
        inside = (some["time_s"] >= some["low_s"]) & (some["time_s"] <= some["high_s"])
        row = dict(zip(("method", "variant", "runtime"), map(str, names), strict=True)) | {
            "runs": len(some),
            "mape_pct": float(100 * error.abs().mean()),
            "bias_pct": float(100 * error.mean()),
            "in_band_pct": float(100 * inside.mean()),
            "run_to_run_pct": float(100 * (some["again_s"] / some["time_s"] - 1).abs().median()),
        }
        if "shipped_s" in some:
            row["shipped_mape_pct"] = float(
                100 * (some["shipped_s"] / some["time_s"] - 1).abs().mean()
            )
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Savings:
    """What fewer tokens save, of the model whose methods were timed.

    Attributes
    ----------
    spec : ModelSpec
        The model.
    name : str
        As its requests are called.
    gpu, own, dtype : str or Path
        Device, calibration and number format.
    requests : pandas.DataFrame
        Measured requests.
    """

    spec: ModelSpec
    name: str
    gpu: str | Path
    own: Path
    dtype: str
    requests: pd.DataFrame

    def predicted_s(self, k: int, batch: int, runtime: str) -> float:
        """Return what keeping k tokens saves of the time to first token [s]."""
        profile = load_gpu(self.gpu)
        options = {"dtype": self.dtype, "runtime": runtime, "calibration": str(self.own)}
        try:
            return free_choice(self.spec, profile, k, batch, **options)[1]
        except CostModelError:
            # As a batch that does not fit into the device.
            return math.nan

    def measured_s(self, k: int, batch: int, runtime: str) -> float:
        """Return the same of measured requests; NaN where one of them was not."""
        whole, fewer = (self.ttft_s(c, batch, runtime) for c in ("", f"spatial:k={k}"))
        return whole - fewer

    def ttft_s(self, compress: str, batch: int, runtime: str, column: str = "time_s") -> float:
        """Return a measured or predicted time to first token [s]; NaN where there is none."""
        rows = self.requests
        if rows.empty:
            return math.nan
        found = rows[
            (rows["model"] == self.name) & (rows["stage"] == "ttft") & (rows["batch"] == batch)
            & (rows["runtime"] == runtime) & (rows["compress"] == compress)
            & (rows["text_tokens"] == TEXT)
        ]  # fmt: skip
        return float(found[column].iloc[0]) if len(found) else math.nan


def clusterings(table: pd.DataFrame, savings: Savings, tokens: int) -> list[dict[str, Any]]:
    """Return the clusterings of the model's own tokens beside what they save [s].

    Parameters
    ----------
    table : pandas.DataFrame
        From `methods`.
    savings : Savings
        Of the model.
    tokens : int
        Visual tokens of its images.
    """
    width = savings.spec.text.hidden_size
    own = table[
        (table["method"] == "cluster") & (table["tokens"] == tokens) & (table["width"] == width)
    ]
    places = own[["kept", "batch", "runtime"]].drop_duplicates().itertuples(index=False)
    predicted = {tuple(place): savings.predicted_s(*place) for place in places}
    rows = []
    for row in own.to_dict("records"):
        params = params_of(str(row["params"]))
        k, batch, runtime = int(row["kept"]), int(row["batch"]), str(row["runtime"])
        saved, seen = predicted[k, batch, runtime], savings.measured_s(k, batch, runtime)
        rows.append(
            {
                "impl": row["variant"], "runtime": runtime, "batch": batch, "k": k,
                "iterations": int(params.get("iterations", "0")),
                "tested": params.get("check") == "true",
                "time_s": row["time_s"], "again_s": row["again_s"],
                "predicted_s": row["predicted_s"], "low_s": row["low_s"], "high_s": row["high_s"],
                "shipped_s": row.get("shipped_s", math.nan),
                "saved_predicted_s": saved, "saved_measured_s": seen,
                "share_predicted_pct": 100 * row["predicted_s"] / saved,
                "share_measured_pct": 100 * row["time_s"] / (saved if math.isnan(seen) else seen),
            }
        )  # fmt: skip
    return sorted(rows, key=lambda r: (r["batch"], r["impl"], r["runtime"], r["k"],
                                       r["tested"], r["iterations"]))  # fmt: skip


def in_requests(savings: Savings) -> list[dict[str, Any]]:
    """Return what clusterings add to whole requests, beyond picking as many tokens by index."""
    rows = savings.requests
    if rows.empty:
        return []
    some = rows[(rows["model"] == savings.name) & rows["compress"].str.startswith("cluster")]
    found = [_added(savings, row) for row in some[some["stage"] == "ttft"].to_dict("records")]
    return [row for row in found if not math.isnan(row["measured_s"])]


def _added(savings: Savings, row: Mapping[Any, Any]) -> dict[str, Any]:
    options = params_of(str(row["compress"]).partition(":")[2])
    batch, runtime = int(row["batch"]), str(row["runtime"])
    free = f"spatial:k={options['k']}"
    return {
        "compress": row["compress"], "runtime": runtime, "batch": batch,
        "measured_s": row["time_s"] - savings.ttft_s(free, batch, runtime),
        "predicted_s": row["predicted_s"] - savings.ttft_s(free, batch, runtime, "predicted_s"),
        "saved_measured_s": savings.measured_s(int(options["k"]), batch, runtime),
    }  # fmt: skip
