"""The section of a page: what was measured, and how far predictions are from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from costmodel.calibration.page_tables import table

__all__ = ["section"]

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]

_KERNELS = """### Kernels

Error on shapes left out of the fit (cross-validated), of the same calibration on a second run, and
of the calibration that comes with the device: mean absolute / 90th percentile, over kernels of at
least 10 us [%]. "Inside" is the share of the second run within the 90 % band.

"""
_PREFILL = """### Time to first token

Milliseconds, batch 1; prompts with less than all visual tokens keep a random choice of them.
Predicted with the calibration fitted to the first run's kernels and its 90 % band, and with the
calibration that comes with the device and its band for any lab and software. Errors are of the
mean of both runs.

"""
_STAGES = """### Requests by runtime and stage

All requests: other methods of compression and several images are in it.

"""
_MEMORY = """### Peak memory of a request

"""
_METHODS = """### Compression methods by themselves

From an idle device until it is done.

"""
_CLUSTERING = """### Clustering against what it saves

Milliseconds for the tokens of one image of the model. "Saved" is the time to first
token less that of as many tokens picked by index: predicted, and measured where those requests were
timed. The share is of the measured overhead in the measured saving, else in the predicted one;
above 100 % clustering does not pay.

"""
_BATCHES = """### Clustering against the batch

"""
_ADDED = """### Clustering inside requests

Time to first token beyond that of as many tokens picked by index.

"""
_REPEAT = """### Two runs

Absolute difference of the second run's median to the first's, and the spread of samples within a
run.

"""


def section(title: str, facts: Iterable[str], figures: Mapping[str, Any]) -> str:
    """Return the section as Markdown.

    Parameters
    ----------
    title : str
        Of the section.
    facts : iterable of str
        Sentences about device, software and files.
    figures : mapping
        Rows by the names that `benchmarks.loop.report.figures_of` gives.
    """
    text = f"## {title}\n\n" + "".join(f"- {fact}\n" for fact in facts) + "\n"
    parts = (
        (_KERNELS, figures["kernels"], _KERNEL_COLUMNS),
        (_PREFILL, figures["prefill"], _PREFILL_COLUMNS),
        (_STAGES, figures["stages"], _STAGE_COLUMNS),
        (_MEMORY, figures["memory"], _MEMORY_COLUMNS),
        (_METHODS, figures["methods"], _METHOD_COLUMNS),
        (_CLUSTERING, _alone(figures["clusterings"]), _CLUSTER_COLUMNS),
        (_BATCHES, _by_batch(figures["clusterings"]), _CLUSTER_COLUMNS),
        (_ADDED, figures["in_requests"], _ADDED_COLUMNS),
        (_REPEAT, figures["repeatability"], _REPEAT_COLUMNS),
    )
    for head, rows, columns in parts:
        text += head + (_table(rows, columns) if rows else "Not measured.\n") + "\n"
    return text.rstrip() + "\n"


def _alone(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["batch"] == 1]


def _by_batch(rows: Sequence[Row]) -> list[Row]:
    """Of several k and iterations the middle ones."""
    plain = [row for row in rows if not row["tested"]]
    if not plain:
        return []
    k, iterations = (_middle([row[name] for row in plain]) for name in ("k", "iterations"))
    chosen = [row for row in plain if (row["k"], row["iterations"]) == (k, iterations)]
    return sorted(chosen, key=lambda row: (row["impl"], row["runtime"], row["batch"]))


def _middle(values: Sequence[int]) -> int:
    known = sorted(set(values))
    return known[len(known) // 2]


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    shown = [[made(row) for _, made in columns] for row in rows]
    # A column of dashes, as that of a second run which was not made, says nothing.
    kept = [i for i, _ in enumerate(columns) if any(cells[i].strip(" -/%") for cells in shown)]
    return table([columns[i][0] for i in kept], [[cells[i] for i in kept] for cells in shown])


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(name, "")) or "-"


def _of(name: str, form: str = ".1f", scale: float = 1.0) -> Callable[[Row], str]:
    def shown(row: Row) -> str:
        value = row.get(name)
        return "-" if value is None or math.isnan(value) else f"{scale * value:{form}}"

    return shown


def _pair(one: str, other: str, form: str = ".1f") -> Callable[[Row], str]:
    return lambda row: f"{_of(one, form)(row)} / {_of(other, form)(row)}"


def _predicted(prefix: str, scale: float, form: str) -> Callable[[Row], str]:
    """Prediction, band and error."""

    def shown(row: Row) -> str:
        if row.get(f"{prefix}_s") is None or math.isnan(row[f"{prefix}_s"]):
            return "-"
        value, low, high = (
            _of(f"{prefix}_{end}", form, scale)(row) for end in ("s", "low_s", "high_s")
        )
        return f"{value} ({low} to {high}), {row[f'{prefix}_error_pct']:+.1f} %"

    return shown


def _setting(row: Row) -> str:
    return f"{row['iterations']}{', tested' if row['tested'] else ''}"


_MS = 1e3
_KERNEL_COLUMNS: Sequence[Column] = (
    ("Kind", _text("kind")),
    ("Kernel", _text("kernel")),
    ("Rows", _text("rows")),
    ("Judged", _text("cv_rows")),
    ("Left out", _pair("cv_mape_pct", "cv_p90_pct")),
    ("Bias", _of("cv_bias_pct", "+.1f")),
    ("Second run", _pair("again_mape_pct", "again_p90_ape_pct")),
    ("Inside", _of("again_coverage90_pct", ".0f")),
    ("Shipped", _pair("shipped_mape_pct", "shipped_p90_ape_pct")),
    ("Shipped bias", _of("shipped_bias_pct", "+.1f")),
    ("Roofline", _of("cv_roofline_mape_pct", ".0f")),
)
_PREFILL_COLUMNS: Sequence[Column] = (
    ("Model", _text("model")),
    ("Runtime", _text("runtime")),
    ("Tokens", _text("prompt")),
    ("Run 1", _of("time_s", ".2f", _MS)),
    ("Run 2", _of("again_s", ".2f", _MS)),
    ("Own calibration", _predicted("own", _MS, ".2f")),
    ("Inside", _text("own_inside")),
    ("Shipped calibration", _predicted("shipped", _MS, ".2f")),
    ("Inside any", _text("shipped_inside")),
)
_ERRORS: Sequence[Column] = (
    ("Own", _of("mape_pct")),
    ("Bias", _of("bias_pct", "+.1f")),
    ("Inside", _of("in_band_pct", ".0f")),
    ("Shipped", _of("shipped_mape_pct")),
    ("Shipped bias", _of("shipped_bias_pct", "+.1f")),
    ("Inside any", _of("shipped_in_band_pct", ".0f")),
    ("Run to run", _of("run_to_run_pct")),
)
_STAGE_COLUMNS: Sequence[Column] = (
    ("Model", _text("model")),
    ("Runtime", _text("runtime")),
    ("Stage", _text("stage")),
    ("Requests", _of("requests", ".0f")),
    *_ERRORS,
)
_MEMORY_COLUMNS: Sequence[Column] = (
    ("Model", _text("model")),
    ("Runtime", _text("runtime")),
    ("Batch", _text("batch")),
    ("Tokens", _text("prompt")),
    ("Measured GB", _of("memory_bytes", ".2f", 1e-9)),
    ("Predicted GB", _of("predicted_memory_bytes", ".2f", 1e-9)),
    ("Error %", _of("error_pct", "+.1f")),
)
_METHOD_COLUMNS: Sequence[Column] = (
    ("Method", _text("method")),
    ("Implementation", _text("variant")),
    ("Runtime", _text("runtime")),
    ("Runs", _text("runs")),
    ("Own", _of("mape_pct", ".0f")),
    ("Bias", _of("bias_pct", "+.0f")),
    ("Inside", _of("in_band_pct", ".0f")),
    ("Shipped", _of("shipped_mape_pct", ".0f")),
    ("Run to run", _of("run_to_run_pct")),
)
_CLUSTER_COLUMNS: Sequence[Column] = (
    ("Implementation", _text("impl")),
    ("Runtime", _text("runtime")),
    ("Batch", _text("batch")),
    ("k", _text("k")),
    ("Iterations", _setting),
    ("Run 1", _of("time_s", ".2f", _MS)),
    ("Run 2", _of("again_s", ".2f", _MS)),
    ("Own", _of("predicted_s", ".2f", _MS)),
    ("Shipped", _of("shipped_s", ".2f", _MS)),
    ("Saved, predicted", _of("saved_predicted_s", ".2f", _MS)),
    ("Saved, measured", _of("saved_measured_s", ".2f", _MS)),
    ("Share %", _of("share_measured_pct", ".0f")),
    ("Share predicted %", _of("share_predicted_pct", ".0f")),
)
_ADDED_COLUMNS: Sequence[Column] = (
    ("Method", _text("compress")),
    ("Runtime", _text("runtime")),
    ("Batch", _text("batch")),
    ("Measured ms", _of("measured_s", ".2f", _MS)),
    ("Predicted ms", _of("predicted_s", ".2f", _MS)),
    ("Saved by fewer tokens, measured ms", _of("saved_measured_s", ".2f", _MS)),
)
_REPEAT_COLUMNS: Sequence[Column] = (
    ("Kind", _text("kind")),
    ("Cases", _text("cases")),
    ("Median %", _of("median_pct")),
    ("90th percentile %", _of("p90_pct")),
    ("Within a run %", _of("within_pct")),
)
