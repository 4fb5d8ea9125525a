"""Heat maps: values over two axes as colours, with the line of one level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.charts import Axis, HeatMap
from costmodel.report.chart_place import Place
from costmodel.report.chart_style import CIVIDIS, log_ticks, wrapped

__all__ = ["draw_heat_map"]

# Orange on the worse side of the level and blue on the better one, which no colour vision
# deficiency confuses; orange grows darker than blue, so that a grey print tells them apart, too.
_MIDDLE = "#f7f7f7"
_WORSE = ("#fbe3d3", "#f0a875", "#D55E00", "#5c2200")
_BETTER = ("#d9edf8", "#56B4E9", "#2b93cd", "#0072B2")
_STEPS = tuple(step / 8 for step in range(9))
_PALE = 0.3
_MOST_CELLS = 180
_MOST_TICKS = 16


def draw_heat_map(place: Place, chart: HeatMap) -> None:
    """Draw a heat map at a place of a figure.

    Cells are of one size, in the order of columns and rows, whatever their values.
    """
    values = np.asarray(chart.values, dtype=np.float64)
    if chart.z.log:
        values = np.log10(np.where(values > 0, values, np.nan))
    x, y = np.arange(values.shape[1]), np.arange(values.shape[0])
    few = values.size <= _MOST_CELLS
    place.figure.add_heatmap(
        x=x, y=y, z=values, text=_cell_texts(chart) if few else None,
        texttemplate="%{text}" if few else None, textfont={"size": 12},
        customdata=_hovers(chart), hovertemplate="%{customdata}<extra></extra>",
        xgap=1 if few else 0, ygap=1 if few else 0, colorbar=_colour_bar(place, chart, values),
        **_colours(chart, values), **place.at,
    )  # fmt: skip
    if chart.level is not None and _crosses(values, _level(chart)):
        _draw_level(place, chart, values)
    place.x_axis(_ticks(chart.x, chart.columns))
    place.y_axis(_ticks(chart.y, chart.rows))


def _level(chart: HeatMap) -> float:
    level = chart.level or 0.0
    return math.log10(level) if chart.z.log else level


def _crosses(values: npt.NDArray[np.float64], level: float) -> bool:
    return bool(np.nanmin(values) < level < np.nanmax(values))


def _range(chart: HeatMap, values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if chart.z.limits:
        low, high = (math.log10(end) if chart.z.log else end for end in chart.z.limits)
    return low, high


def _colours(chart: HeatMap, values: npt.NDArray[np.float64]) -> dict[str, Any]:
    low, high = _range(chart, values)
    if chart.level is None or low == high:
        return {"colorscale": CIVIDIS, "zmin": low, "zmax": high}
    level = _level(chart)
    low, high = min(low, level), max(high, level)
    middle = (level - low) / (high - low)
    below, above = (_BETTER, _WORSE) if chart.lower_is_better else (_WORSE, _BETTER)
    scale: list[tuple[float, str]] = []
    strongest = max(level - low, high - level)
    if middle > 0:
        reach = _strength((level - low) / strongest)
        scale += [((1 - t) * middle, _shade(below, reach * t)) for t in _STEPS[::-1]]
    else:
        scale.append((0.0, _MIDDLE))
    if middle < 1:
        reach = _strength((high - level) / strongest)
        scale += [(middle + t * (1 - middle), _shade(above, reach * t)) for t in _STEPS]
    else:
        scale.append((1.0, _MIDDLE))
    return {"colorscale": scale, "zmin": low, "zmax": high}


def _strength(share: float) -> float:
    """How far the shades of a side go: a side of small values is pale, but not white."""
    return max(math.sqrt(share), _PALE)


def _shade(shades: Sequence[str], share: float) -> str:
    """Colour at a share of the way from the middle to the end of a side."""
    position = share * (len(shades) - 1)
    index = min(int(position), len(shades) - 2)
    part = position - index
    first, second = (
        [int(shade[i : i + 2], 16) for i in (1, 3, 5)] for shade in shades[index : index + 2]
    )
    mixed = (round(a + part * (b - a)) for a, b in zip(first, second, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _colour_bar(place: Place, chart: HeatMap, values: npt.NDArray[np.float64]) -> dict[str, Any]:
    (_, right), (bottom, top) = place.domain()
    bar: dict[str, Any] = {
        "title": {"text": wrapped(chart.z.label, 36), "side": "right"},
        "x": right + 0.01, "xanchor": "left", "y": (bottom + top) / 2, "yanchor": "middle",
        "len": top - bottom, "thickness": 16, "outlinewidth": 0,
    }  # fmt: skip
    if chart.z.log:
        low, high = _range(chart, values)
        ticks = log_ticks(10.0**low, 10.0**high)
        if "tickvals" in ticks:
            bar |= {**ticks, "tickvals": [math.log10(tick) for tick in ticks["tickvals"]]}
    return bar


def _draw_level(place: Place, chart: HeatMap, values: npt.NDArray[np.float64]) -> None:
    xs, ys = _border(values > _level(chart), np.isfinite(values))
    place.figure.add_scatter(
        x=xs, y=ys, mode="lines", line={"color": "black", "width": 3}, hoverinfo="skip",
        showlegend=False, **place.at,
    )  # fmt: skip


def _border(
    above: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]
) -> tuple[list[float | None], list[float | None]]:
    """Edges between cells above a level and cells not above it, as lines with gaps.

    Between cells and not through them: a smooth line would claim to know what lies between
    the points that were computed, and would cross the numbers in the cells.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    rows, columns = above.shape
    for i in range(rows):
        for j in range(columns):
            if j + 1 < columns and above[i, j] != above[i, j + 1] and known[i, j : j + 2].all():
                xs += [j + 0.5, j + 0.5, None]
                ys += [i - 0.5, i + 0.5, None]
            if i + 1 < rows and above[i, j] != above[i + 1, j] and known[i : i + 2, j].all():
                xs += [j - 0.5, j + 0.5, None]
                ys += [i + 0.5, i + 0.5, None]
    return xs, ys


def _cell_texts(chart: HeatMap) -> list[list[str]]:
    return [[_short(value) for value in row] for row in chart.values]


def _short(value: float) -> str:
    if not math.isfinite(value):
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2f}"


def _hovers(chart: HeatMap) -> list[list[str]]:
    hovers: list[list[str]] = []
    for i, (row, values) in enumerate(zip(chart.rows, chart.values, strict=True)):
        hovers.append([])
        for j, (column, value) in enumerate(zip(chart.columns, values, strict=True)):
            lines = [
                f"{chart.x.title}: {_name(column)} {chart.x.unit}".rstrip(),
                f"{chart.y.title}: {_name(row)} {chart.y.unit}".rstrip(),
                f"<b>{chart.z.title}: {_short(value) or 'none'} {chart.z.unit}</b>",
            ]
            if chart.hover:
                lines.append(wrapped(chart.hover[i][j]))
            hovers[-1].append("<br>".join(lines))
    return hovers


def _ticks(axis: Axis, values: Sequence[float | str]) -> dict[str, Any]:
    step = math.ceil(len(values) / _MOST_TICKS)
    chosen = range(0, len(values), step)
    return {
        "title": {"text": axis.label, "standoff": 10}, "automargin": True, "showgrid": False,
        "zeroline": False, "ticks": "outside", "tickcolor": "white", "tickvals": list(chosen),
        "ticktext": [wrapped(_name(values[i]), 24) for i in chosen],
        "range": [-0.5, len(values) - 0.5],
    }  # fmt: skip


def _name(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 and float(value).is_integer() else f"{value:.4g}"
