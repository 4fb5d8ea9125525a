"""Any column of results against any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.charts import LineChart, Picture, Series
from costmodel.report.picture_kinds import Drawn, Kind
from costmodel.report.result_columns import axis_of, scaled
from costmodel.report.thinning import every_nth

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe_columns"]

_MOST_POINTS = 20_000
_MOST_SERIES = 14
_HOVERED = ("model", "gpu", "method", "batch", "text_tokens", "visual_tokens_kept")
_HOVERED_POINTS = 5_000


def describe_columns(
    frame: pd.DataFrame, note: str, x: str = "flops_total_flop", y: str = "ttft_s",
    colour: str = "method",
) -> Picture:  # fmt: skip
    """Return a cloud of points.

    Parameters
    ----------
    frame : pandas.DataFrame
        With these columns.
    note : str
        What is held fixed.
    x, y : str
        Columns of numbers.
    colour : str
        Column whose values are the series; a column of many values is grouped by the most
        frequent ones.
    """
    rows, note = every_nth(frame, _MOST_POINTS, note)
    values = rows[colour].astype(str)
    names = list(values.value_counts().index[:_MOST_SERIES])
    if (rest := values.nunique() - len(names)) > 0:
        values = values.where(values.isin(names), f"{rest} others")
    series = []
    for name, own in rows.groupby(values, sort=False):
        hover = _hover(own) if len(rows) <= _HOVERED_POINTS else []
        series.append(
            Series.of(str(name), scaled(own, x), scaled(own, y), mode="markers", hover=hover)
        )
    axes = [axis_of(column, log=_wide(rows, column)) for column in (x, y)]
    title = f"{axes[1].title} against {axes[0].title}"
    return LineChart(title[0].upper() + title[1:], axes[0], axes[1], tuple(series), note=note)


def _wide(frame: pd.DataFrame, column: str) -> bool:
    least, most = float(frame[column].min()), float(frame[column].max())
    return least > 0 and most > 50 * least


def _hover(frame: pd.DataFrame) -> list[str]:
    shown = [name for name in _HOVERED if name in frame]
    return [", ".join(f"{name} {row[name]}" for name in shown) for row in frame.to_dict("records")]


KIND = Kind(
    summary="Any column against any other (--x, --y, --colour); a point for each row.",
    of_results=Drawn(
        needs=("ttft_s", "flops_total_flop"), shows=("method",), describe=describe_columns
    ),
)
