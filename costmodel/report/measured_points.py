"""Measured prefill times of a case's model and GPU: from timing files, and published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.calibration.judging import own_devices
from costmodel.calibration.loading import load_timings
from costmodel.calibration.whole_models import WHOLE_MODEL
from costmodel.case import Case
from costmodel.errors import CostModelError, InputError
from costmodel.estimation import estimate
from costmodel.reproduction.latencies import Entry, entries, load

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Point", "file_points", "published_points"]

_WITH_VISION = ("ttft",)
_LANGUAGE = ("llm", "llm_prefill")


@dataclass(frozen=True)
class Point:
    """A measured prefill.

    Attributes
    ----------
    group : str
        Which series of a figure it belongs to.
    tokens : float
        Tokens of a request in the language model, as the mean over its layers.
    time_ms : float
        [ms].
    source : str
        Where it is from.
    """

    group: str
    tokens: float
    time_ms: float
    source: str


def file_points(case: Case, paths: Sequence[str]) -> list[Point]:
    """Return the measured requests of timing files that a case can be compared with.

    Those of its GPU, model, batch, format and runtime, without compression.

    Raises
    ------
    InputError
        If files were given and have no such rows.
    """
    found: list[Point] = []
    for path in paths:
        timings, _ = load_timings([path], profiles=own_devices(case.gpu.name))
        for item in timings:
            if item.kind == WHOLE_MODEL:
                found += _rows(case, item.frame)
    if paths and not found:
        raise InputError(
            "measured", ", ".join(paths),
            f"rows of whole models (stage ttft or llm) of {case.model.name} on {case.gpu.name} "
            f"with batch {case.workload.batch}, {case.deployment.dtype}, "
            f"{case.deployment.runtime}, uncompressed",
        )  # fmt: skip
    return found


def _rows(case: Case, frame: pd.DataFrame) -> list[Point]:
    points = []
    wanted = {
        "gpu": case.gpu.name,
        "model": case.model.name,
        "batch": case.workload.batch,
        "dtype": case.deployment.dtype,
        "runtime": case.deployment.runtime,
        "compress": "",
    }
    for row in frame.to_dict("records"):
        if any(row[name] != value for name, value in wanted.items()):
            continue
        if row["stage"] in (*_WITH_VISION, *_LANGUAGE):
            vision = row["stage"] in _WITH_VISION and row["visual_tokens"]
            group = "measured, with vision tower" if vision else "measured, language model"
            tokens = row["visual_tokens"] + row["text_tokens"]
            source = f"{row['source']}, {row['software']}"
            points.append(Point(group, float(tokens), 1e-3 * float(row["time_us"]), source))
    return points


def published_points(case: Case) -> list[Point]:
    """Return published latencies of a case's model and GPU, with and without compression."""
    if case.workload.batch != 1 or case.deployment.tp != 1:
        return []
    found = []
    for table in load()["tables"]:
        for entry in entries(table):
            if (entry.model, entry.gpu, entry.weights_dtype) == (
                case.model.name, case.gpu.name, case.deployment.weights_dtype,
            ):  # fmt: skip
                found += _published(entry, str(table["source"]))
    return found


def _published(entry: Entry, source: str) -> list[Point]:
    try:
        result = estimate(
            entry.model, entry.gpu, text_tokens=entry.text_tokens,
            visual_tokens=entry.visual_tokens, compress=entry.compress or None,
        )  # fmt: skip
    except CostModelError:
        # Published for a setting that the method's model refuses: there is no token count.
        return []
    tokens = float(result.tokens["visual_equivalent"]) + entry.text_tokens
    vision = "vision_encoder" not in entry.left_out
    group = f"published, {'with' if vision else 'no'} vision: {source.partition(' (')[0]}"
    text = f"{entry.label}: {entry.measured_ms:g} ms ({source}); {entry.timed}"
    return [Point(group, tokens, entry.measured_ms, text)]
