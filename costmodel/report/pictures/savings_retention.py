"""What compression saves against the share of visual tokens it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.charts import Axis, LineChart, Panels, Picture, Series
from costmodel.report.method_runs import image_features, method_runs, setting
from costmodel.report.picture_kinds import Asked, Drawn, Kind
from costmodel.report.result_columns import baseline, family, frame_of, short_name
from costmodel.report.thinning import evenly

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe"]

_METHODS = ("random", "cluster", "mbtf+stf", "visionzip", "fastv", "pyramiddrop")
_SHARES = (0.03, 0.05, 0.08, 0.11, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SAVED = {
    "flops_total_flop": "work (FLOPs)",
    "ttft_s": "time to first token",
    "kv_cache_bytes": "KV cache",
}
_MOST_POINTS = 60
_LOWEST_PCT = -60.0


def _of_case(asked: Asked) -> Picture:
    case = asked.plain
    whole = image_features(case)
    budgets = sorted({max(1, round(whole * share)) for share in _SHARES})
    runs, missing = method_runs(case, asked.methods or _METHODS, budgets)
    base = runs[0][2].baseline or runs[0][2]
    frame = frame_of([("none", base)] + [(short_name(label), result) for _, label, result in runs])
    note = setting(case)
    if missing:
        note += f"\nnot shown, as they keep other numbers: {', '.join(missing)}"
    return describe(frame, note)


def describe(frame: pd.DataFrame, note: str) -> Picture:
    """Return one panel for each quantity that is saved.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``method``, ``visual_tokens_kept``, ``ttft_s``, ``flops_total_flop`` and
        ``kv_cache_bytes``, with a row of the method ``none``.
    note : str
        What is held fixed.

    Raises
    ------
    InputError
        If there is no row of the method ``none``.
    """
    methods = frame["method"].map(family)
    whole = baseline(frame)
    frame = frame.assign(retention=100 * frame["visual_tokens_kept"] / whole["visual_tokens_kept"])
    least = {
        name: 100 * min((1 - rows[c] / whole[c]).min() for c in _SAVED)
        for name, rows in frame.groupby(methods, sort=False)
    }
    low = max(min(-2.0, *least.values()), _LOWEST_PCT)
    if below := [f"{name} to {value:.0f} %" for name, value in least.items() if value < low]:
        note += f"\nbelow the axes: {', '.join(below)}"
    charts = []
    for column, title in _SAVED.items():
        series = []
        for name in dict.fromkeys(methods[methods != "none"]):
            rows = frame[methods == name].sort_values("retention", kind="stable")
            rows = evenly(rows, _MOST_POINTS)
            saved = 100 * (1 - rows[column] / whole[column])
            hover = [
                f"{kept:.4g} visual tokens, {whole[column] / value:.2f}x less"
                for kept, value in zip(rows["visual_tokens_kept"], rows[column], strict=True)
            ]
            series.append(
                Series.of(name, rows["retention"], saved, mode="lines+markers", hover=hover)
            )
        series.append(Series("what the tokens save", (0, 100), (100, 0), reference=True))
        charts.append(
            LineChart(
                title, Axis("visual tokens kept", "%", limits=(0, 101)),
                Axis("saved", "%", limits=(low, 101)),
                tuple(series),
            )
        )  # fmt: skip
    return Panels("What is saved against what is kept", tuple(charts), columns=3, note=note)


KIND = Kind(
    summary="FLOPs, time and KV cache saved against the share of visual tokens kept.",
    of_case=_of_case,
    of_results=Drawn(
        needs=tuple(_SAVED), shows=("method", "visual_tokens_kept"), describe=describe
    ),
)
