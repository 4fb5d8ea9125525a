"""Descriptions of pictures: what is on the axes and which series, without a plotting library.

Whoever computes describes; `costmodel.report.chart_drawing` draws, in one style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costmodel.errors import InputError, UnknownNameError

__all__ = [
    "Axis",
    "BarChart",
    "Chart",
    "HeatMap",
    "LineChart",
    "Panels",
    "Picture",
    "Series",
]

MODES = ("lines", "markers", "lines+markers")
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    title : str
        What it is, without the unit.
    unit : str
        Printed in brackets behind the title; empty for pure numbers.
    log : bool
        Logarithmic.
    limits : tuple of float, optional
        Ends; by default what the data need.

    Examples
    --------
    >>> Axis("time to first token", "ms").label
    'time to first token [ms]'
    """

    title: str
    unit: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title


@dataclass(frozen=True)
class Series:
    """Points of one name in a `LineChart`.

    Attributes
    ----------
    name : str
        Text of the legend; the same name has the same colour in all panels.
    x, y : tuple of float
        Coordinates in the units of the axes.
    low, high : tuple of float, optional
        Band around y: a ribbon along lines, bars at markers.
    mode : {"lines", "markers", "lines+markers"}
    hover : tuple of str
        What the pointer shows at each point: formula, source or setting.
    reference : bool
        A limit or an ideal rather than a result: drawn thin, grey and dashed.
    labels : tuple of str
        Printed beside the points; few of them, or they cover each other.

    Raises
    ------
    InputError
        If the columns differ in length.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    mode: str = "lines"
    hover: tuple[str, ...] = ()
    reference: bool = False
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        for name in ("y", "low", "high", "hover", "labels"):
            column = getattr(self, name)
            if len(column) != len(self.x) and (column or name == "y"):
                raise InputError(
                    f"{name} of series {self.name!r}", len(column), f"{len(self.x)} values, as of x"
                )
        if bool(self.low) != bool(self.high):
            raise InputError(f"band of series {self.name!r}", "one bound", "both low and high")

    @classmethod
    def of(
        cls,
        name: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        band: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        *,
        mode: str = "lines",
        hover: Sequence[str] = (),
        reference: bool = False,
        labels: Sequence[str] = (),
    ) -> Series:
        """Return a series of arrays.

        Examples
        --------
        >>> Series.of("plain", [1, 2], [3.0, 4.5]).y
        (3.0, 4.5)
        """
        low, high = band if band is not None else ((), ())
        return cls(
            name, _tuple(x), _tuple(y), _tuple(low), _tuple(high), mode, tuple(hover), reference,
            tuple(labels),
        )  # fmt: skip


@dataclass(frozen=True)
class LineChart:
    """Series over a common x axis: curves, clouds of points, fronts.

    Attributes
    ----------
    title : str
    x, y : Axis
    series : tuple of Series
    diagonal : bool
        Draw the line where y equals x.
    note : str
        Printed below the title: what is held fixed, what bands and labels mean.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    diagonal: bool = False
    note: str = ""


@dataclass(frozen=True)
class BarChart:
    """Bars of several parts, stacked or side by side.

    Attributes
    ----------
    title : str
    y : Axis
        Of the values.
    categories : tuple of str
        One bar, or one group of bars, each.
    parts : dict of str to tuple of float
        Values of every category, by name of the part.
    stacked : bool
    horizontal : bool
        Bars run to the right: for long names of categories.
    low, high : dict of str to tuple of float
        Bands by part; of stacked bars, those of the sum by the name of the last part.
    hover : dict of str to tuple of str
        What the pointer shows, by part.
    note : str
        Printed below the title.
    category : Axis, optional
        Title of the axis of the categories.
    levels : dict of str to float
        Limits drawn as grey dashed lines across all bars, by name.

    Raises
    ------
    InputError
        If a part has another number of values than there are categories.
    """

    title: str
    y: Axis
    categories: tuple[str, ...]
    parts: dict[str, Numbers]
    stacked: bool = True
    horizontal: bool = False
    low: dict[str, Numbers] | None = None
    high: dict[str, Numbers] | None = None
    hover: dict[str, tuple[str, ...]] | None = None
    note: str = ""
    category: Axis | None = None
    levels: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for name, values in self.parts.items():
            if len(values) != len(self.categories):
                raise InputError(
                    f"part {name!r} of chart {self.title!r}", len(values),
                    f"{len(self.categories)} values, as there are categories",
                )  # fmt: skip


@dataclass(frozen=True)
class HeatMap:
    """Values over two axes.

    Attributes
    ----------
    title : str
    x, y, z : Axis
    columns, rows : tuple of float or str
        Values of x and of y; texts are categories.
    values : tuple of tuple of float
        One tuple for every row; NaN where there is none.
    level : float, optional
        A line is drawn where z has this value, and colours diverge from it: break-even.
    lower_is_better : bool
        Values below the level are the good ones; they have the colour that those above have
        otherwise.
    hover : tuple of tuple of str
        What the pointer shows, shaped as the values.
    note : str
        Printed below the title.

    Raises
    ------
    InputError
        If the values are not rows times columns.
    """

    title: str
    x: Axis
    y: Axis
    z: Axis
    columns: tuple[float | str, ...]
    rows: tuple[float | str, ...]
    values: tuple[Numbers, ...]
    level: float | None = None
    lower_is_better: bool = False
    hover: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        if np.shape(self.values) != shape:
            raise InputError(
                f"values of heat map {self.title!r}", np.shape(self.values), f"the shape {shape}"
            )


Chart = LineChart | BarChart | HeatMap
"""One pair of axes."""


@dataclass(frozen=True)
class Panels:
    """Several charts in one figure; series of one name share their colour and legend.

    Attributes
    ----------
    title : str
    charts : tuple of Chart
        Row by row.
    columns : int
        Charts in a row.
    note : str
        Printed below the title; those of the charts are not printed.
    """

    title: str
    charts: tuple[Chart, ...]
    columns: int = 2
    note: str = ""


Picture = Chart | Panels
"""What one figure shows."""


def _tuple(values: npt.ArrayLike) -> Numbers:
    return tuple(np.asarray(values, dtype=np.float64).ravel().tolist())
