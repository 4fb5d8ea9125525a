"""Texts beside points, each where it covers no other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from costmodel.charts import Axis, LineChart
from costmodel.report.chart_place import Place

__all__ = ["place_labels"]

# Of a usual figure without its margins [pixels]; what matters is which places are near.
_WIDTH, _HEIGHT = 1060.0, 580.0
_LETTER, _LINE = 6.8, 15.0
_MARKER = 6.0
_FEW_POINTS = 20
_STEP = 5.0


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def covered(self, other: _Box) -> float:
        """Return the area common to both."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, axes: _Box) -> float:
        """Return about how much of it lies outside the axes."""
        wide = max(axes.left - self.left, 0.0) + max(self.right - axes.right, 0.0)
        high = max(axes.bottom - self.bottom, 0.0) + max(self.top - axes.top, 0.0)
        return _LINE * wide + 100.0 * high


def place_labels(place: Place, chart: LineChart) -> None:
    """Write the labels of all series of a chart beside their points.

    Each label takes the one of eight places around its point where it covers the least of
    the markers and of the labels written before it.
    """
    (left, right), (bottom, top) = place.domain()
    axes = _Box(0.0, 0.0, _WIDTH * (right - left), _HEIGHT * (top - bottom))
    every_y = [y for s in chart.series for column in (s.y, s.low, s.high) for y in column]
    x_of = _positions(chart.x, [x for series in chart.series for x in series.x], axes.right)
    y_of = _positions(chart.y, every_y, axes.top)
    points = [
        (x_of[x], y_of[y]) for series in chart.series
        for x, y in zip(series.x, series.y, strict=True)
        if x in x_of and y in y_of and "markers" in series.mode
    ]  # fmt: skip
    taken = [_Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    taken += [
        _Box(x_of[x] - 2, y_of[low], x_of[x] + 2, y_of[high])
        for series in chart.series if series.mode == "markers"
        for x, low, high in zip(series.x, series.low, series.high, strict=False)
        if x in x_of and low in y_of and high in y_of
    ]  # fmt: skip
    for series in chart.series:
        if "lines" in series.mode and len(series.x) <= _FEW_POINTS:
            taken += _along(
                [(x_of.get(x), y_of.get(y)) for x, y in zip(series.x, series.y, strict=True)]
            )
    for series in chart.series:
        colour = place.looks[series.name].colour if series.name in place.looks else "#666666"
        for x, y, text in zip(series.x, series.y, series.labels, strict=False):
            if not text or x not in x_of or y not in y_of:
                continue
            box, anchor = _best(x_of[x], y_of[y], text, taken, axes)
            taken.append(box)
            place.figure.add_annotation(
                x=math.log10(x) if chart.x.log else x, y=math.log10(y) if chart.y.log else y,
                text=text, showarrow=False, font={"size": 12, "color": colour},
                **anchor, **place.at,
            )  # fmt: skip


def _along(corners: list[tuple[float | None, float | None]]) -> list[_Box]:
    """Small boxes along a line."""
    boxes = []
    for (x1, y1), (x2, y2) in pairwise(corners):
        if x1 is not None and x2 is not None and y1 is not None and y2 is not None:
            steps = max(int(math.hypot(x2 - x1, y2 - y1) / _STEP), 1)
            for step in range(steps):
                x, y = (a + step / steps * (b - a) for a, b in ((x1, x2), (y1, y2)))
                boxes.append(_Box(x - 2, y - 2, x + 2, y + 2))
    return boxes


def _positions(axis: Axis, values: list[float], size: float) -> dict[float, float]:
    """Where on an axis of a size each value lies; values that cannot be shown are left out."""
    shown = {v for v in values if math.isfinite(v) and (v > 0 or not axis.log)}
    scaled = {v: math.log10(v) if axis.log else v for v in shown}
    low, high = min(scaled.values(), default=0.0), max(scaled.values(), default=1.0)
    if axis.limits:
        low, high = (math.log10(end) if axis.log else end for end in axis.limits)
    return {v: size * (position - low) / ((high - low) or 1.0) for v, position in scaled.items()}


def _best(
    x: float, y: float, text: str, taken: list[_Box], axes: _Box
) -> tuple[_Box, dict[str, object]]:
    width = _LETTER * len(text)
    gap = _MARKER + 3.0
    anchors = {"left": 1, "center": 0, "right": -1}
    choices = []
    for vertical, up in (("middle", 0), ("bottom", 1), ("top", -1)):
        for horizontal, side in anchors.items():
            if up == side == 0:
                continue
            left = x + side * gap if side > 0 else x + side * gap - width * (0.5 if not side else 1)
            bottom = y + up * gap - (_LINE / 2 if not up else _LINE if up < 0 else 0.0)
            box = _Box(left, bottom, left + width, bottom + _LINE)
            shift = {"xshift": side * gap, "yshift": up * gap}
            choices.append((box, {"xanchor": horizontal, "yanchor": vertical, **shift}))
    return min(choices, key=lambda c: sum(c[0].covered(box) for box in taken) + c[0].outside(axes))
