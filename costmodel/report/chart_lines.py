"""Curves and clouds of points, with their bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from costmodel.charts import Axis, LineChart, Series
from costmodel.report.chart_place import Place
from costmodel.report.chart_style import GREY, Look, axis_layout, faint, wrapped
from costmodel.report.label_places import place_labels

__all__ = ["draw_lines"]

_MANY_POINTS = 3_000
_REFERENCE_DASHES = ("dash", "dot", "dashdot", "longdash")
_REFERENCE_LOOK = Look(GREY, "dash", "circle-open", "")


def draw_lines(place: Place, chart: LineChart) -> None:
    """Draw a chart of series at a place of a figure."""
    every_x = [x for series in chart.series for x in series.x]
    every_y = [y for s in chart.series for column in (s.y, s.low, s.high) for y in column]
    # Ribbons first, so that no ribbon lies over a line.
    for series in chart.series:
        if series.low and "lines" in series.mode:
            _draw_ribbon(place, chart, series)
    references = [series.name for series in chart.series if series.reference]
    for series in chart.series:
        dash = None
        if series.reference:
            dash = _REFERENCE_DASHES[references.index(series.name) % len(_REFERENCE_DASHES)]
        _draw_series(place, chart, series, dash)
    if chart.diagonal:
        every_x = every_y = [*every_x, *every_y]
        _draw_diagonal(place, every_x)
    place_labels(place, chart)
    place.x_axis(axis_layout(chart.x, every_x))
    place.y_axis(axis_layout(chart.y, every_y, from_zero=True))


def _look(place: Place, series: Series) -> Look:
    return _REFERENCE_LOOK if series.reference else place.looks[series.name]


def _draw_ribbon(place: Place, chart: LineChart, series: Series) -> None:
    colour = faint(_look(place, series).colour)
    for part in _whole_parts(series, chart.y):
        x = [series.x[i] for i in part]
        place.figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*(series.high[i] for i in part), *(series.low[i] for i in reversed(part))],
            fill="toself", fillcolor=colour, mode="lines", line={"width": 0}, hoverinfo="skip",
            legendgroup=series.name, showlegend=False, **place.at,
        )  # fmt: skip


def _whole_parts(series: Series, axis: Axis) -> list[list[int]]:
    """Runs of points that have a band, since a polygon cannot have gaps."""
    parts: list[list[int]] = [[]]
    for i, (low, high) in enumerate(zip(series.low, series.high, strict=True)):
        if math.isfinite(low) and math.isfinite(high) and (low > 0 or not axis.log):
            parts[-1].append(i)
        else:
            parts.append([])
    return [part for part in parts if part]


def _draw_series(place: Place, chart: LineChart, series: Series, dash: str | None) -> None:
    look = _look(place, series)
    many = len(series.x) > _MANY_POINTS and series.mode == "markers"
    style: dict[str, Any] = {"mode": series.mode}
    if "lines" in series.mode:
        style["line"] = {
            "color": look.colour, "dash": dash or look.dash, "width": 1.5 if dash else 2.5,
        }  # fmt: skip
    if "markers" in series.mode:
        style["marker"] = {
            "color": look.colour, "symbol": look.symbol, "size": 5 if many else 9,
            "opacity": 0.5 if many else 0.9, "line": {"width": 0 if many else 1, "color": "white"},
        }  # fmt: skip
    if series.low and series.mode == "markers":
        style["error_y"] = _bars(series) | {"color": look.colour}
    # Drawing many points one by one takes minutes; the graphics card does it at once.
    add = place.figure.add_scattergl if many else place.figure.add_scatter
    add(
        x=series.x, y=[_shown(y, chart.y) for y in series.y],
        text=[wrapped(text) for text in series.hover] or None,
        hovertemplate=_hover(chart, series), **place.legend(series.name), **style, **place.at,
    )  # fmt: skip


def _shown(value: float, axis: Axis) -> float | None:
    return value if math.isfinite(value) and (value > 0 or not axis.log) else None


def _bars(series: Series) -> dict[str, Any]:
    above = [max(h - y, 0.0) for h, y in zip(series.high, series.y, strict=True)]
    below = [max(y - low, 0.0) for low, y in zip(series.low, series.y, strict=True)]
    return {
        "array": above,
        "arrayminus": below,
        "thickness": 1.2 if len(series.x) < 20 else 0.7,
        "width": 3 if len(series.x) < 20 else 0,
    }


def _hover(chart: LineChart, series: Series) -> str:
    lines = [f"<b>{series.name}</b>"]
    for letter, axis in (("x", chart.x), ("y", chart.y)):
        lines.append(f"{axis.title}: %{{{letter}:,.4~g}} {axis.unit}".rstrip())
    lines += ["%{text}"] if series.hover else []
    return "<br>".join(lines) + "<extra></extra>"


def _draw_diagonal(place: Place, values: Sequence[float]) -> None:
    finite = [value for value in values if math.isfinite(value)]
    ends = [min(finite), max(finite)]
    place.figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash", "width": 1.5},
        hoverinfo="skip", **place.legend("both equal"), **place.at,
    )  # fmt: skip
