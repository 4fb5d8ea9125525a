"""Where in a figure a chart is drawn, and with which looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.report.chart_style import Look

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """One pair of axes of a figure.

    Attributes
    ----------
    figure : plotly.graph_objects.Figure
    row, column : int
        From 1.
    looks : mapping of str to Look
        By name of the series.
    shown : set of str
        Names that the legend has already; drawing adds to it.
    """

    figure: Figure
    row: int
    column: int
    looks: Mapping[str, Look]
    shown: set[str]

    @property
    def at(self) -> dict[str, int]:
        """Row and column, as plotly takes them."""
        return {"row": self.row, "col": self.column}

    def legend(self, name: str) -> dict[str, Any]:
        """Return name and group of a series, which the legend shows once in all panels."""
        first = name not in self.shown
        self.shown.add(name)
        return {"name": name, "legendgroup": name, "showlegend": first}

    def x_axis(self, layout: Mapping[str, Any]) -> None:
        """Set the x axis."""
        self.figure.update_xaxes(**layout, **self.at)

    def y_axis(self, layout: Mapping[str, Any]) -> None:
        """Set the y axis."""
        self.figure.update_yaxes(**layout, **self.at)

    def domain(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return where the axes lie, as parts of the figure's width and height."""
        axes = self.figure.get_subplot(self.row, self.column)
        return tuple(axes.xaxis.domain or (0.0, 1.0)), tuple(axes.yaxis.domain or (0.0, 1.0))
