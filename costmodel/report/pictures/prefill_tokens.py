"""Prefill time against the number of tokens: bands, measured points, and what bounds it below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.charts import Axis, LineChart, Picture, Series
from costmodel.estimation import estimate_case
from costmodel.report.measured_points import Point, file_points, published_points
from costmodel.report.method_runs import setting
from costmodel.report.picture_kinds import Asked, Kind
from costmodel.studies.prefill import Prefill, prefill
from costmodel.timing.device import resolve_device

__all__ = ["KIND", "token_counts"]

_LEAST, _MOST = 16, 8192
_POINTS = 90
_BANDS = {"any_stack": "any lab and software", "same_stack": "same stack"}


def _of_case(asked: Asked) -> Picture:
    case = replace(asked.plain, request=None)
    tokens = token_counts(case)
    visual = tokens - case.workload.text_tokens
    # With images the vision side stays as it is, and fewer visual tokens enter the model.
    axis = {"visual_tokens": visual} if case.images else {"text_tokens": tokens}
    found = prefill(case, **axis)
    series = _predicted(case, tokens, found)
    series += _bounds(case, tokens, axis)
    points = [*file_points(case, asked.measured), *published_points(case)]
    for name in dict.fromkeys(point.group for point in points):
        series.append(_points(name, [point for point in points if point.group == name]))
    note = setting(case, text=not case.images)
    if case.images:
        note += f"; {case.workload.text_tokens:,} text tokens, the others visual"
    note += (
        "\nribbons: 90 % bands, the narrow one for the calibration's software, the wide for any lab"
        if found.bands else "\nthese times have no bands"
    )  # fmt: skip
    return LineChart(
        title="Prefill time against tokens in the prompt",
        x=Axis("tokens in the prompt of a request", log=True),
        y=Axis("time", "ms", log=True),
        series=tuple(series),
        note=note,
    )


def token_counts(case: Case) -> npt.NDArray[np.float64]:
    """Return the token counts to draw, evenly on a logarithmic axis, whole numbers."""
    least = max(_LEAST, case.workload.text_tokens + 1 if case.images else 1)
    most = max(_MOST, 4 * least)
    return np.unique(np.geomspace(least, most, _POINTS).round())


def _predicted(case: Case, tokens: npt.NDArray[np.float64], found: Prefill) -> list[Series]:
    ttft = 1e3 * found.ttft_s
    language = 1e3 * (
        found.language_s + found.host_s["llm_prefill"] + found.host_s["lm_head"]
    )  # fmt: skip
    name = "time to first token"
    hover = [
        f"vision {1e3 * v:.3g} ms, language model {t:.3g} ms, {f / 1e12:.3g} TFLOP"
        for v, t, f in zip(
            np.broadcast_to(found.gpu_s["vision_encoder"] + found.gpu_s["projector"], tokens.shape),
            language, found.flops["total"], strict=True,
        )
    ]  # fmt: skip
    # The wide band first, so that the narrow one lies over it.
    series = [
        Series.of(
            name, tokens, ttft, tuple(1e3 * bound for bound in found.bands[kind]),  # type: ignore[arg-type]
            hover=hover,
        )
        for kind in _BANDS
        if kind in found.bands
    ] or [Series.of(name, tokens, ttft, hover=hover)]  # fmt: skip
    if case.images:
        series.append(Series.of("language model alone", tokens, language))
    return series


def _bounds(
    case: Case, tokens: npt.NDArray[np.float64], axis: dict[str, npt.NDArray[np.float64]]
) -> list[Series]:
    device = resolve_device(case.gpu, load_host(), case.deployment)
    result = estimate_case(case)
    read_s = sum(
        op.bytes["weights"] for op in result.ops if op.stage in ("llm_prefill", "lm_head")
    ) / device.bandwidth_bytes_per_s  # fmt: skip
    ideal = prefill(replace(case, time_model="ideal"), **axis)
    ends = (float(tokens[0]), float(tokens[-1]))
    return [
        Series("weights read once", ends, (1e3 * read_s,) * 2,
               reference=True),
        Series.of("datasheet roofline", tokens, 1e3 * ideal.ttft_s, reference=True),
    ]  # fmt: skip


def _points(name: str, points: Sequence[Point]) -> Series:
    return Series(
        name, tuple(point.tokens for point in points), tuple(point.time_ms for point in points),
        mode="markers", hover=tuple(point.source for point in points),
    )  # fmt: skip


KIND = Kind(
    summary="Prefill time against tokens: bands, measured points, roofline, weight-read floor.",
    of_case=_of_case,
)
