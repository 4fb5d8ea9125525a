"""Bars of parts, stacked or side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from costmodel.charts import Axis, BarChart
from costmodel.report.chart_place import Place
from costmodel.report.chart_style import GREY, axis_layout, wrapped

__all__ = ["draw_bars"]

_MOST_TOTALS = 45


def draw_bars(place: Place, chart: BarChart) -> None:
    """Draw a bar chart at a place of a figure."""
    place.figure.update_layout(
        barmode="relative" if chart.stacked else "group", bargap=0.25, bargroupgap=0.06
    )
    names = [wrapped(category, 40 if chart.horizontal else 18) for category in chart.categories]
    for part, values in chart.parts.items():
        _draw_part(place, chart, part, values)
    totals = _totals(chart)
    if chart.stacked and len(chart.parts) > 1 and len(names) <= _MOST_TOTALS:
        _write_totals(place, chart, totals)
    for name, level in (chart.levels or {}).items():
        _draw_level(place, chart, name, level)
    reach = totals if chart.stacked else [v for part in chart.parts.values() for v in part]
    bounds = [v for band in (chart.low, chart.high) for part in (band or {}).values() for v in part]
    values_axis = axis_layout(chart.y, [*reach, *bounds, *(chart.levels or {}).values()])
    # By number: names that look like numbers would become positions.
    ends = [-0.5, len(names) - 0.5]
    categories: dict[str, Any] = {
        "tickvals": list(range(len(names))), "ticktext": names, "automargin": True,
        "range": ends[::-1] if chart.horizontal else ends, "zeroline": False,
        "ticks": "outside", "tickcolor": "white", "showgrid": False,
    }  # fmt: skip
    if chart.category is not None:
        categories["title"] = {"text": chart.category.label, "standoff": 10, "font": {"size": 15}}
    if chart.horizontal:
        place.x_axis(values_axis)
        place.y_axis(categories)
    else:
        place.x_axis(categories)
        place.y_axis(values_axis)


def _draw_part(place: Place, chart: BarChart, part: str, values: Sequence[float]) -> None:
    look = place.looks[part]
    along, across = ("x", "y") if chart.horizontal else ("y", "x")
    style: dict[str, Any] = {
        along: values,
        across: list(range(len(values))),
        "customdata": chart.categories,
        "orientation": "h" if chart.horizontal else "v",
        "marker": {
            "color": look.colour,
            "line": {"color": "white", "width": 0.5},
            "pattern": {
                "shape": look.hatch, "fgcolor": "white", "fillmode": "overlay", "solidity": 0.25,
                "size": 7,
            },
        },
        "hovertemplate": _hover(chart, part, along),
    }  # fmt: skip
    if chart.hover and part in chart.hover:
        style["hovertext"] = [wrapped(text) for text in chart.hover[part]]
    if chart.low and chart.high and part in chart.low:
        middle = _totals(chart) if chart.stacked else values
        style[f"error_{along}"] = {
            "array": [max(h - m, 0.0) for h, m in zip(chart.high[part], middle, strict=True)],
            "arrayminus": [max(m - b, 0.0) for b, m in zip(chart.low[part], middle, strict=True)],
            "thickness": 1.5, "width": 4, "color": "#222222",
        }  # fmt: skip
    place.figure.add_bar(**style, **place.legend(part), **place.at)


def _draw_level(place: Place, chart: BarChart, name: str, level: float) -> None:
    along, across = ("x", "y") if chart.horizontal else ("y", "x")
    place.figure.add_scatter(
        **{along: [level] * 2, across: [-0.5, len(chart.categories) - 0.5]}, mode="lines",
        line={"color": GREY, "dash": "dash", "width": 2},
        hovertemplate=f"<b>{name}</b><br>{level:,.4g} {chart.y.unit}<extra></extra>",
        **place.legend(name), **place.at,
    )  # fmt: skip


def _totals(chart: BarChart) -> list[float]:
    return [math.fsum(values) for values in zip(*chart.parts.values(), strict=True)]


def _hover(chart: BarChart, part: str, along: str) -> str:
    value = f"{chart.y.title}: %{{{along}:,.4~g}} {chart.y.unit}".rstrip()
    text = "<br>%{hovertext}" if chart.hover and part in chart.hover else ""
    return f"<b>{part}</b><br>%{{customdata}}<br>{value}{text}<extra></extra>"


def _write_totals(place: Place, chart: BarChart, totals: Sequence[float]) -> None:
    highest = list(totals)
    for part in (chart.high or {}).values():
        highest = [max(a, b) for a, b in zip(highest, part, strict=True)]
    for index, (total, end) in enumerate(zip(totals, highest, strict=True)):
        x, y = (end, index) if chart.horizontal else (index, end)
        shift = (
            {"xanchor": "left", "xshift": 6} if chart.horizontal
            else {"yanchor": "bottom", "yshift": 3}
        )  # fmt: skip
        place.figure.add_annotation(
            x=x, y=y, text=_short(total, chart.y), showarrow=False, font={"size": 12}, **shift,
            **place.at,
        )  # fmt: skip


def _short(value: float, axis: Axis) -> str:
    if axis.log or not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
