"""Drawn charts have what their description says, in a style that survives print."""

from __future__ import annotations

import math

import pytest

from costmodel.charts import Axis, BarChart, HeatMap, LineChart, Panels, Series
from costmodel.errors import InputError
from costmodel.report.chart_drawing import draw
from costmodel.report.chart_style import COLOURS, log_ticks, look

X, Y = Axis("tokens", "", log=True), Axis("time", "ms")


def _lines(*series: Series, x: Axis = X, y: Axis = Y, diagonal: bool = False) -> LineChart:
    return LineChart("t", x, y, series, diagonal)


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_are_visible_on_white() -> None:
    assert all(1.05 / (_luminance(colour) + 0.05) > 2 for colour in COLOURS)


def test_forty_series_differ_even_in_grey() -> None:
    pairs = {(look(i).colour, look(i).dash) for i in range(42)}
    assert len(pairs) == 42
    assert len({(look(i).dash, look(i).symbol) for i in range(24)}) == 24


def test_lines_have_units_and_values() -> None:
    figure = draw(_lines(Series("a", (1, 10), (3, 4)), Series("b", (1, 10), (5, 6))))
    assert figure.layout.yaxis.title.text == "time [ms]"
    assert figure.layout.xaxis.type == "log"
    assert [(t.name, list(t.y)) for t in figure.data] == [("a", [3, 4]), ("b", [5, 6])]
    assert figure.data[0].line.dash != figure.data[1].line.dash


def test_a_band_is_a_ribbon_along_lines_and_bars_at_markers() -> None:
    ribbon, line = draw(_lines(Series("a", (1, 2), (3, 4), (2, 3), (5, 6)))).data
    assert list(ribbon.y) == [5, 6, 3, 2]
    assert ribbon.showlegend is False
    assert line.name == "a"
    (points,) = draw(_lines(Series("a", (1, 2), (3, 4), (2, 3), (5, 6), "markers"))).data
    assert list(points.error_y.array) == [2, 2]
    assert list(points.error_y.arrayminus) == [1, 1]


def test_a_ribbon_has_a_gap_where_bounds_are_unknown() -> None:
    low = (1.0, 1.0, math.nan, 1.0, 1.0)
    figure = draw(_lines(Series("a", (1, 2, 3, 4, 5), (2,) * 5, low, (3,) * 5)))
    assert [len(trace.x) for trace in figure.data] == [4, 4, 5]


def test_references_are_grey_and_take_no_colour() -> None:
    figure = draw(_lines(Series("limit", (1, 2), (1, 1), reference=True), Series("a", (1,), (2,))))
    by_name = {trace.name: trace for trace in figure.data}
    assert by_name["limit"].line.dash == "dash"
    assert by_name["a"].line.color == COLOURS[0]


def test_one_name_has_one_colour_and_one_legend_entry_in_all_panels() -> None:
    left = _lines(Series("a", (1, 2), (1, 2)), Series("b", (1, 2), (1, 2)))
    right = _lines(Series("b", (1, 2), (3, 4)), Series("a", (1, 2), (3, 4)))
    figure = draw(Panels("both", (left, right)))
    colours = {name: {t.line.color for t in figure.data if t.name == name} for name in "ab"}
    assert all(len(found) == 1 for found in colours.values())
    assert colours["a"] != colours["b"]
    assert sum(trace.showlegend for trace in figure.data) == 2


def test_rows_of_panels_make_the_figure_higher() -> None:
    chart = _lines(Series("a", (1, 2), (1, 2)))
    two, four = (draw(Panels("p", (chart,) * n)).layout.height for n in (3, 5))
    assert four > two > 700


def test_what_a_logarithmic_axis_cannot_show_is_a_gap() -> None:
    (line,) = draw(_lines(Series("a", (1, 2, 3), (0.0, 1.0, 10.0)), y=Axis("t", log=True))).data
    assert list(line.y) == [None, 1.0, 10.0]


def test_labels_do_not_cover_each_other() -> None:
    points = Series(
        "a", (1.0, 1.0001, 1.0002), (1.0, 1.0, 1.0), mode="markers", labels=("one", "two", "three")
    )
    far = Series("b", (-99.0, 101.0), (-4.0, 6.0), mode="markers")
    notes = draw(_lines(points, far, x=Axis("x"))).layout.annotations
    places = {(note.xshift, note.yshift) for note in notes}
    assert len(notes) == len(places) == 3


def test_bars_stack_and_say_their_sum() -> None:
    chart = BarChart("b", Y, ("p", "q"), {"u": (1, 2), "v": (3, 4)}, levels={"limit": 5.0})
    figure = draw(chart)
    assert figure.layout.barmode == "relative"
    assert list(figure.layout.xaxis.ticktext) == ["p", "q"]
    assert [note.text for note in figure.layout.annotations] == ["4", "6"]
    assert [t.name for t in figure.data] == ["u", "v", "limit"]


def test_the_band_of_stacked_bars_is_that_of_the_sum() -> None:
    chart = BarChart(
        "b", Y, ("p",), {"u": (1,), "v": (3,)}, low={"v": (2,)}, high={"v": (7,)}, horizontal=True
    )
    last = draw(chart).data[1]
    assert (last.error_x.array[0], last.error_x.arrayminus[0]) == (3, 2)


def test_the_line_of_a_level_runs_between_the_cells() -> None:
    values = ((1.0, -1.0), (1.0, 1.0))
    chart = HeatMap("h", Axis("x"), Axis("y"), Y, (1.0, 2.0), (1.0, 2.0), values, level=0.0)
    heat, line = draw(chart).data
    assert (heat.zmin, heat.zmax) == (-1.0, 1.0)
    assert [tuple(line.x[i : i + 2]) for i in (0, 3)] == [(0.5, 0.5), (0.5, 1.5)]
    assert [tuple(line.y[i : i + 2]) for i in (0, 3)] == [(-0.5, 0.5), (0.5, 0.5)]


def test_colours_of_a_heat_map_turn_at_the_level() -> None:
    values = ((-1.0, 3.0),)
    chart = HeatMap("h", Axis("x"), Axis("y"), Y, ("p", "q"), (1.0,), values, level=0.0)
    scale = draw(chart).data[0].colorscale
    at_level = [colour for place, colour in scale if math.isclose(place, 0.25)]
    assert set(at_level) == {scale[len(scale) // 2][1], "#fbe3d3"} - {scale[-1][1]}


@pytest.mark.parametrize(
    "chart",
    [
        _lines(),
        _lines(Series("a", (1.0,), (math.nan,))),
        HeatMap("h", Axis("x"), Axis("y"), Y, (1.0,), (1.0,), ((math.nan,),)),
        BarChart("b", Y, (), {}),
    ],
)
def test_nothing_to_draw_is_an_error(chart: LineChart | HeatMap | BarChart) -> None:
    with pytest.raises(InputError, match="at least one value"):
        draw(chart)


def test_ticks_of_logarithmic_axes() -> None:
    assert log_ticks(10, 40, [10, 20, 40])["ticktext"] == ["10", "20", "40"]
    assert log_ticks(1e-2, 1e6)["ticktext"] == [
        "0.01", "0.1", "1", "10", "100", "1,000", "10 k", "100 k", "1 M",
    ]  # fmt: skip
