"""Time to the first token against tokens, from a table of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.charts import LineChart, Picture, Series
from costmodel.report.picture_kinds import Drawn, Kind
from costmodel.report.result_columns import axis_of, family, scaled
from costmodel.report.thinning import evenly

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe"]

_MOST_POINTS = 200
_MOST_SERIES = 14
_X = ("visual_tokens_kept", "text_tokens")


def describe(frame: pd.DataFrame, note: str) -> Picture:
    """Return one line for each method.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``method``, ``visual_tokens_kept``, ``text_tokens`` and ``ttft_s``; bounds where known.
    note : str
        What is held fixed.
    """
    frame = frame.assign(method=frame["method"].map(family))
    methods = list(dict.fromkeys(frame["method"]))
    if len(methods) > _MOST_SERIES:
        note += f"; the first {_MOST_SERIES} of {len(methods)} methods"
        methods = methods[:_MOST_SERIES]
    # Of the two token counts the one with more values is drawn; the other is held.
    x, other = sorted(_X, key=lambda name: -frame.groupby("method")[name].nunique().max())
    bands = {"ttft_low_s", "ttft_high_s"} <= set(frame) and len(methods) <= 4
    series, thinned, banded = [], False, False
    for method in methods:
        rows = frame[frame["method"] == method]
        rows = rows[rows[other] == rows[other].iloc[0]].drop_duplicates(x).sort_values(x)
        thinned = thinned or len(rows) > _MOST_POINTS
        rows = evenly(rows, _MOST_POINTS)
        known = bands and rows["ttft_low_s"].notna().all()
        banded = banded or bool(known)
        band = (scaled(rows, "ttft_low_s"), scaled(rows, "ttft_high_s")) if known else None
        few = len(rows) <= 20
        series.append(
            Series.of(
                method, rows[x], scaled(rows, "ttft_s"), band,
                mode="lines+markers" if few else "lines",
                hover=[f"{axis_of(other).title}: {value:g}" for value in rows[other]],
            )
        )  # fmt: skip
    held = frame[other].iloc[0]
    note += f"; {other} = {held:g}" if frame[other].nunique() == 1 else f"; first {other} of each"
    if banded:
        note += "\nribbons: 90 % bands for any lab and software"
    if thinned:
        note += f"; {_MOST_POINTS} points of each line, evenly"
    wide = frame[x].max() > 20 * max(frame[x].min(), 1)
    return LineChart(
        "Time to the first token against tokens", axis_of(x, log=bool(wide)), axis_of("ttft_s"),
        tuple(series), note=note,
    )  # fmt: skip


KIND = Kind(
    summary="Time to the first token against token counts, a line for each method.",
    of_results=Drawn(
        needs=("ttft_s",), shows=("method", "visual_tokens_kept", "text_tokens"), describe=describe
    ),
)
