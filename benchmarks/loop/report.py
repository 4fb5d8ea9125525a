"""From the archives of one or two runs to a calibration, kept timings, tables and figures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.loop.clustering import Savings, clusterings, in_requests, method_errors, methods
from benchmarks.loop.kernels import kernel_rows, repeat_rows
from benchmarks.loop.page import section
from benchmarks.loop.request_tables import memory_rows, prefill_rows, request_table, stage_rows
from benchmarks.loop.runs import METHODS, REQUESTS, Run, keep, open_run
from costmodel.calibration.user import OwnCalibration, calibrate
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.calibrations import default_calibration
from costmodel.catalog.families import read_config
from costmodel.catalog.hardware import load_gpu

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_report"]


def write_report(
    archives: Sequence[Path], gpu: str | None, output: Path, measurements: Path | None = None
) -> list[str]:
    """Fit, judge and write.

    Parameters
    ----------
    archives : sequence of Path
        Of one run, or of two independent ones; folders of sessions will do.
    gpu : str, optional
        Name or file of the profile; that of the first run on a CPU without.
    output : Path
        Folder of the results: ``calibration.yaml``, ``report.md`` and ``report.json``.
    measurements : Path, optional
        Parent of the folder with small copies of the timings; `output` without.

    Returns
    -------
    list of str
        What was written, and how large it is.

    Raises
    ------
    ValueError
        If the device has no profile.
    CostModelError
        If nothing can be fitted.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        runs = [open_run(path, Path(temporary) / str(i)) for i, path in enumerate(archives[:2])]
        profile = gpu or runs[0].profile
        if profile is None:
            raise ValueError(f"gpu: needed, the runs are of {runs[0].machine['gpu']!r}")
        device = load_gpu(profile)
        folder = (measurements or output / "measurements") / device.name
        kept = [
            keep(run, folder, ending) for run, ending in zip(runs, ("", "_again"), strict=False)
        ]
        written = sorted(path for files in kept for path in files.values())
        kernels = [path for kind, path in kept[0].items() if kind not in (REQUESTS, METHODS)]
        result = calibrate(kernels, profile, name=f"{device.name}.costmodel-measure")
        own = output / "calibration.yaml"
        write_calibration(result.calibration, own)
        figures = figures_of(runs, kept, result, profile, own)
        text = section(f"Measured by this project: {device.title}", _facts(runs, result), figures)
    (output / "report.json").write_text(json.dumps(figures, indent=1, default=str) + "\n")
    (output / "report.md").write_text(text, encoding="utf-8")
    written += [own, output / "report.json", output / "report.md"]
    return [f"wrote {path}, {path.stat().st_size / 1e3:.0f} kB" for path in written]


def figures_of(
    runs: Sequence[Run],
    kept: Sequence[dict[str, Path]],
    result: OwnCalibration,
    gpu: str | Path,
    own: Path,
) -> dict[str, Any]:
    """Return the rows of all tables, and what lies behind them."""
    standard = default_calibration(load_gpu(gpu))
    shipped = standard.name if standard is not None else None
    later = kept[1] if len(kept) > 1 else {}
    kernels = [
        [path for kind, path in files.items() if kind not in (REQUESTS, METHODS, "launch")]
        for files in (kept[0], later)
    ]
    requests = request_table(runs[0], kept[0], later, gpu, own, shipped)
    figures: dict[str, Any] = {
        "machine": runs[0].machine,
        "options": [run.options for run in runs],
        "failures": [list(run.failures) for run in runs],
        "calibration": {
            "fitted": [one.fit.kind for one in result.fitted],
            "stood_in": result.stood_in,
            "datasheet": result.datasheet,
            "left_out": [f"{one.stack.kind} {one.stack.label}: {one.reason}"
                         for one in result.left_out],
            "dropped": {problem.reason: problem.count for problem in result.problems},
            "host": [fit.model_dump(mode="json") for fit in result.calibration.host],
            "shipped": shipped,
        },
        "kernels": kernel_rows(result, kernels[0], kernels[1], gpu, own, shipped),
        "requests": requests.drop(columns="config", errors="ignore").to_dict("records"),
        "prefill": prefill_rows(requests),
        "stages": stage_rows(requests),
        "memory": memory_rows(requests),
        "methods": [], "clusterings": [], "in_requests": [],
        "repeatability": repeat_rows(runs[0], runs[1]) if len(runs) > 1 else [],
    }  # fmt: skip
    if METHODS in kept[0]:
        table = methods(kept[0][METHODS], later.get(METHODS), gpu, own, shipped)
        figures["methods"] = method_errors(table)
        if (savings := _savings(runs[0], requests, gpu, own)) is not None:
            visual = int(requests.loc[requests["model"] == savings.name, "visual_tokens"].max())
            figures["clusterings"] = clusterings(table, savings, visual)
            figures["in_requests"] = in_requests(savings)
    return figures


def _savings(run: Run, requests: pd.DataFrame, gpu: str | Path, own: Path) -> Savings | None:
    """Return what is saved of the model whose methods were timed; None if it has no requests."""
    raw = run.frame(METHODS)
    named = raw["model"].iloc[0]
    rows = requests[requests["model"] == named] if len(requests) else requests
    if rows.empty:
        return None
    spec = read_config(json.loads(rows["config"].iloc[0]), None, str(named))
    return Savings(spec, str(named), gpu, own, str(raw["dtype"].iloc[0]), requests)


def _facts(runs: Sequence[Run], result: OwnCalibration) -> list[str]:
    machine, options = runs[0].machine, runs[0].options
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    commit = machine.get("git_commit") or options.get("commit") or "not known"
    facts = [
        f"{machine['device'].get('name') or machine['gpu']}, driver "
        f"{machine['device'].get('driver') or '-'}; host {machine['host']['cpu']}; {versions}.",
        f"Harness of commit {commit}; "
        + "; ".join(
            f"run {i}: {sum(len(run.frame(kind)) for kind in run.files):,} timings, "
            f"{len(run.failures)} failures" for i, run in enumerate(runs, 1)
        ) + ".",
        "Fitted: " + ", ".join(one.fit.kind for one in result.fitted) + ".",
    ]  # fmt: skip
    if result.datasheet:
        facts.append("Not fitted, from the datasheet: " + ", ".join(result.datasheet) + ".")
    if result.problems:
        reasons = "; ".join(f"{one.reason} ({one.count})" for one in result.problems)
        facts.append(f"Rows that were dropped or need notice: {reasons}.")
    for fit in result.calibration.host:
        facts.append(
            f"Host, {fit.runtime}: {1e6 * fit.launch_s:.1f} us for a launch "
            f"({1e6 * fit.launch_low_s:.1f} to {1e6 * fit.launch_high_s:.1f}), start "
            f"{1e6 * fit.start_s:.1f} us, synchronisation {1e6 * fit.sync_s:.1f} us."
        )
    return facts
