"""FLOPs ratio against the ratio of times to the first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from costmodel.charts import Axis, LineChart, Panels, Picture, Series
from costmodel.report.method_runs import setting
from costmodel.report.picture_kinds import Asked, Drawn, Kind
from costmodel.report.result_columns import baseline, family, short_name
from costmodel.report.thinning import every_nth
from costmodel.studies.pruner_speed import SpeedRow, speed_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe", "speed_picture"]

_CAUSES = {
    "vision tower": ("tower_s",),
    "weight-read floor": ("weight_floor_s",),
    "lost FlashAttention": ("lost_flash_s",),
    "own overhead": ("own_ops_s", "own_waits_s"),
    "other host time": ("host_s",),
}
_X, _Y = Axis("FLOPs without / with compression"), Axis("time to first token without / with")
_PLACE = ("gpu", "runtime")
_MARGIN = 1.08
_MOST_POINTS = 20_000
_BUDGETS = (192, 128, 64)


def _of_case(asked: Asked) -> Picture:
    case = asked.plain
    rows = speed_rows([case], _BUDGETS, [short_name(name) for name in asked.methods] or None)
    kept = ", ".join(map(str, _BUDGETS))
    note = f"{setting(case)}, every method at {kept} tokens"
    return speed_picture(rows, note)


def speed_picture(rows: Sequence[SpeedRow], note: str = "") -> Picture:
    """Return one panel for each GPU and runtime, coloured by the largest part of the gap.

    Parameters
    ----------
    rows : sequence of SpeedRow
        At least one.
    note : str
        What is held fixed.
    """
    gpus, runtimes = (list(dict.fromkeys(getattr(r, name) for r in rows)) for name in _PLACE)
    places = [(gpu, runtime) for gpu in gpus for runtime in runtimes]
    most = max(row.flops_ratio for row in rows) * _MARGIN
    charts = tuple(
        _panel(gpu, runtime, [r for r in rows if (r.gpu, r.runtime) == (gpu, runtime)], most)
        for gpu, runtime in places
    )
    title = "FLOPs ratio against TTFT ratio; the largest part of what lies between"
    note += "\n" * bool(note) + "bars: 90 % band of the compressed time for any lab and software"
    if len(charts) == 1:
        return LineChart(title, _X, _Y, charts[0].series, note=note)
    return Panels(title, charts, columns=len(runtimes), note=note)


def _panel(gpu: str, runtime: str, rows: Sequence[SpeedRow], most: float) -> LineChart:
    least = min(1.0, *(row.flops_ratio for row in rows)) / _MARGIN
    series = [
        Series("as the FLOPs", (least, most), (least, most), reference=True),
        Series("no faster", (least, most), (1.0, 1.0), reference=True),
    ]
    for cause in _CAUSES:
        own = [row for row in rows if _cause(row) == cause]
        if not own:
            continue
        band = (
            [row.baseline_ttft_s / row.band_s[1] for row in own],
            [row.baseline_ttft_s / row.band_s[0] for row in own],
        )
        series.append(
            Series.of(
                cause, [row.flops_ratio for row in own], [row.ttft_ratio for row in own], band,
                mode="markers", hover=[_hover(row) for row in own],
            )
        )  # fmt: skip
    x = Axis(_X.title, limits=(least, most))
    return LineChart(f"{gpu}, {runtime}", x, _Y, tuple(series))


def _cause(row: SpeedRow) -> str:
    return max(_CAUSES, key=lambda cause: _cause_s(row, cause))


def _cause_s(row: SpeedRow, cause: str) -> float:
    return float(sum(getattr(row.gap, key) for key in _CAUSES[cause]))


def _hover(row: SpeedRow) -> str:
    low, high = (1e3 * bound for bound in row.band_s)
    lines = [
        row.request,
        f"{1e3 * row.ttft_s:.1f} ms ({low:.1f} to {high:.1f}), ideal {1e3 * row.ideal_ttft_s:.1f}",
    ]
    lines += [f"{cause}: {1e3 * _cause_s(row, cause):.1f} ms" for cause in _CAUSES]
    return "\n".join(lines)


def describe(frame: pd.DataFrame, note: str) -> Picture:
    """Return ratios against the rows of the method ``none``, method by method.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``method``, ``visual_tokens_kept``, ``ttft_s`` and ``flops_total_flop``.
    note : str
        What is held fixed.

    Raises
    ------
    InputError
        If there is no row of the method ``none``.
    """
    methods = frame["method"].map(family)
    whole = baseline(frame)
    rows, note = every_nth(frame[methods != "none"], _MOST_POINTS, note)
    series = [
        Series.of(
            name,
            whole["flops_total_flop"] / own["flops_total_flop"], whole["ttft_s"] / own["ttft_s"],
            mode="markers",
            hover=[f"{label}, {kept:g} visual tokens" for label, kept in
                   zip(own["method"], own["visual_tokens_kept"], strict=True)],
        )
        for name, own in rows.groupby(rows["method"].map(family), sort=False)
    ]  # fmt: skip
    return LineChart(
        "Speed-up against FLOPs ratio", _X, _Y, tuple(series), diagonal=True, note=note
    )


KIND = Kind(
    summary="How much faster against how many fewer FLOPs, and what lies between.",
    of_case=_of_case,
    of_results=Drawn(
        needs=("ttft_s", "flops_total_flop"), shows=("method", "visual_tokens_kept"),
        describe=describe,
    ),
)  # fmt: skip
