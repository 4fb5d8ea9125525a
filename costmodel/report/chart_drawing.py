"""Pictures described by `costmodel.charts`, as plotly figures in one style."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from costmodel.charts import BarChart, Chart, HeatMap, LineChart, Panels, Picture
from costmodel.errors import InputError
from costmodel.report.chart_bars import draw_bars
from costmodel.report.chart_heat import draw_heat_map
from costmodel.report.chart_lines import draw_lines
from costmodel.report.chart_place import Place
from costmodel.report.chart_style import base_layout, look, wrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["draw"]

_ROW_HEIGHT = 400
_FEW_BARS, _BAR_HEIGHT = 22, 25
_LONG_NAME = 26
_MOST_BESIDE = 30


def draw(picture: Picture) -> Figure:
    """Return a picture as a figure.

    The same name has the same colour, dash and symbol in all panels; references are grey and
    dashed.  Legends stand outside the axes: to the right of one chart, below several.

    Parameters
    ----------
    picture : Picture
        A chart or panels; at least one value to show.

    Returns
    -------
    plotly.graph_objects.Figure
        Sized for a page where it has several rows, else as large as the window;
        `costmodel.report.figures.write_figure` writes it.

    Raises
    ------
    InputError
        If there is nothing to draw.

    Examples
    --------
    >>> from costmodel.charts import Axis, LineChart, Series
    >>> line = Series("plain", (1.0, 2.0), (3.0, 4.0))
    >>> draw(LineChart("t", Axis("tokens"), Axis("time", "ms"), (line,))).layout.yaxis.title.text
    'time [ms]'
    """
    from plotly.subplots import make_subplots

    charts = picture.charts if isinstance(picture, Panels) else (picture,)
    if not any(_has_values(chart) for chart in charts):
        raise InputError("picture", picture.title, "at least one value to draw")
    columns = min(picture.columns, len(charts)) if isinstance(picture, Panels) else 1
    rows = math.ceil(len(charts) / columns)
    alone = not isinstance(picture, Panels)
    figure = make_subplots(
        rows=rows, cols=columns, **_spacing(charts, rows, columns),
        subplot_titles=None if alone else [wrapped(chart.title, 96 // columns) for chart in charts],
    )  # fmt: skip
    layout = base_layout(picture.title, picture.note)
    looks = {name: look(index) for index, name in enumerate(_names(charts))}
    shown: set[str] = set()
    for index, chart in enumerate(charts):
        place = Place(figure, index // columns + 1, index % columns + 1, looks, shown)
        if isinstance(chart, LineChart):
            draw_lines(place, chart)
        elif isinstance(chart, BarChart):
            draw_bars(place, chart)
        else:
            draw_heat_map(place, chart)
    if not alone:
        layout["margin"]["t"] += 24
    layout["legend"] = _legend(shown, beside=alone)
    if rows > 1:
        layout["height"] = rows * _ROW_HEIGHT + layout["margin"]["t"] + 60
    elif (bars := _horizontal_bars(charts)) > _FEW_BARS:
        layout["height"] = bars * _BAR_HEIGHT + layout["margin"]["t"] + 110
    layout["showlegend"] = len(shown) > 1 or (bool(shown) and not alone)
    figure.update_layout(**layout)
    return figure


def _has_values(chart: Chart) -> bool:
    if isinstance(chart, LineChart):
        return any(math.isfinite(y) for series in chart.series for y in series.y)
    if isinstance(chart, BarChart):
        return bool(chart.categories and chart.parts)
    return any(math.isfinite(value) for row in chart.values for value in row)


def _horizontal_bars(charts: tuple[Chart, ...]) -> int:
    return max(
        (len(c.categories) for c in charts if isinstance(c, BarChart) and c.horizontal), default=0
    )


def _names(charts: tuple[Chart, ...]) -> list[str]:
    """Names that take a colour, in the order in which they appear."""
    names: list[str] = []
    for chart in charts:
        if isinstance(chart, LineChart):
            names += [series.name for series in chart.series if not series.reference]
        elif isinstance(chart, BarChart):
            names += chart.parts
    return list(dict.fromkeys(names))


def _spacing(charts: tuple[Chart, ...], rows: int, columns: int) -> dict[str, float]:
    # Heat maps have their scale of colours beside them, and rows the title of an axis below.
    wide = any(isinstance(chart, HeatMap) for chart in charts)
    return {
        "horizontal_spacing": min((0.2 if wide else 0.1), 0.8 / max(columns - 1, 1)),
        "vertical_spacing": 0.26 / rows if rows > 1 else 0.1,
    }


def _legend(names: set[str], *, beside: bool) -> dict[str, Any]:
    common: dict[str, Any] = {"itemsizing": "trace", "font": {"size": 13}, "tracegroupgap": 2}
    longest = max(map(len, names), default=0)
    if beside and len(names) <= _MOST_BESIDE and longest <= 2 * _LONG_NAME:
        return {**common, "x": 1.02, "xanchor": "left", "y": 1.0, "yanchor": "top"}
    return {
        **common, "orientation": "h", "x": 0.5, "xanchor": "center",
        "y": 0.0, "yref": "container", "yanchor": "bottom",
    }  # fmt: skip
