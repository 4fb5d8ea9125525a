"""Predicted against measured times, and errors against size, as a plotly figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.error_figures import Errors
from costmodel.calibration.judging import Judged, Validation
from costmodel.report.chart_style import COLOURS
from costmodel.report.text import quantity

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

__all__ = ["validation_figure"]

# Black, the last, is the diagonal's.
_COLOURS = COLOURS[:-1]
_SYMBOLS = ("circle", "diamond", "square", "triangle-up")
_MOST_POINTS = 20_000
_LEAST_POINTS = 40
_ERROR_RANGE = 150.0
_LINE = {"color": "#222222", "width": 1.5}


def validation_figure(result: Validation) -> Figure:
    """Return the plot of a validation.

    Left, predicted against measured time with the diagonal and, dotted, the middle of the
    90 % bands; right, the signed error against the datasheet's time as a measure of size
    that all kinds have.  One colour and symbol for each kind.

    Parameters
    ----------
    result : Validation
        With at least one predicted shape for anything to show.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.09,
        subplot_titles=("predicted against measured", "error against size"),
    )  # fmt: skip
    groups = [g for g in result.groups if g.calibration is not None and g.errors.n]
    total = sum(group.errors.n for group in groups)
    share = min(1.0, _MOST_POINTS / max(total, 1))
    if groups:
        _draw_lines(figure, groups)
    kinds = list(dict.fromkeys(group.stack.kind for group in groups))
    members = {kind: [g for g in groups if g.stack.kind == kind] for kind in kinds}
    # The kinds of many points first, so that they do not cover those of few.
    for kind in sorted(kinds, key=lambda name: -sum(g.errors.n for g in members[name])):
        _draw_kind(figure, kind, members[kind], kinds.index(kind), share)
    figure.update_layout(**_layout(result, groups, share))
    return figure


def _draw_lines(figure: Figure, groups: Sequence[Judged]) -> None:
    names = ("time_s", "predicted_s", "roofline_s", "low_s", "high_s")
    measured, predicted, roofline, lowest, highest = (
        np.concatenate([group.points[name].to_numpy() for group in groups]) for name in names
    )
    low_ratio = float(np.median(lowest / predicted))
    high_ratio = float(np.median(highest / predicted))
    low = float(min(measured.min(), predicted.min())) / 1.3
    high = float(max(measured.max(), predicted.max())) * 1.3
    ends = np.array([low, high])
    hidden = {"mode": "lines", "hoverinfo": "skip", "row": 1, "col": 1}
    figure.add_scatter(x=ends, y=ends, name="predicted = measured", line=_LINE, **hidden)
    dotted = {**_LINE, "dash": "dot"}
    figure.add_scatter(
        x=ends * low_ratio, y=ends, line=dotted, legendgroup="band",
        name=f"90 % band (median)<br>{low_ratio:.2f} to {high_ratio:.2f} x predicted", **hidden,
    )  # fmt: skip
    figure.add_scatter(
        x=ends * high_ratio, y=ends, line=dotted, legendgroup="band", showlegend=False, **hidden
    )
    axis = {**_decades(low, high), "type": "log", "range": [math.log10(low), math.log10(high)]}
    figure.update_xaxes(title="measured", row=1, col=1, **axis)
    figure.update_yaxes(title="predicted", row=1, col=1, **axis)
    least, most = float(roofline.min()) / 1.3, float(roofline.max()) * 1.3
    figure.update_xaxes(
        title="size: datasheet roofline time", type="log", row=1, col=2,
        range=[math.log10(least), math.log10(most)], **_decades(least, most),
    )  # fmt: skip
    error = 100.0 * (predicted / measured - 1.0)
    reach = float(np.clip(1.2 * np.quantile(np.abs(error), 0.99), 10.0, _ERROR_RANGE))
    figure.update_yaxes(
        title="predicted / measured - 1", ticksuffix=" %", row=1, col=2,
        range=[-min(reach, 100.0), reach],
    )  # fmt: skip
    figure.add_hline(y=0, line=_LINE, row=1, col=2, exclude_empty_subplots=False)


def _decades(low: float, high: float) -> dict[str, Any]:
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    values = [10.0**power for power in powers]
    texts = [quantity(value, "s").replace(".00", "").replace(".0", "") for value in values]
    return {"tickvals": values, "ticktext": texts}


def _draw_kind(
    figure: Figure, kind: str, groups: Sequence[Judged], index: int, share: float
) -> None:
    import pandas as pd

    shown = [(group, _thinned(group.points, share)) for group in groups]
    points = pd.concat([frame for _, frame in shown])
    error = 100.0 * (points["predicted_s"] / points["time_s"] - 1.0)
    text = [line for group, frame in shown for line in _hover(group, frame)]
    style: dict[str, Any] = {
        "mode": "markers",
        "legendgroup": kind,
        "legendrank": 1001 + index,
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": _COLOURS[index % len(_COLOURS)],
            "symbol": _SYMBOLS[index // len(_COLOURS) % len(_SYMBOLS)],
            "size": 6 if len(points) < 2000 else 4,
            "opacity": 0.7 if len(points) < 2000 else 0.4,
        },
        "row": 1,
    }
    name = f"{kind.replace('_', ' ')} ({sum(group.errors.n for group in groups):,})"
    figure.add_scattergl(x=points["time_s"], y=points["predicted_s"], name=name, col=1, **style)
    figure.add_scattergl(x=points["roofline_s"], y=error, showlegend=False, col=2, **style)


def _thinned(points: pd.DataFrame, share: float) -> pd.DataFrame:
    """Every few rows, evenly over time, so that a file of many rows still opens."""
    count = min(len(points), max(_LEAST_POINTS, round(share * len(points))))
    ordered = points.sort_values("time_s", kind="stable")
    return ordered.iloc[np.linspace(0, len(points) - 1, count).round().astype(int)]


def _hover(group: Judged, frame: pd.DataFrame) -> list[str]:
    stack, names = group.stack, group.sizes
    head = f"<b>{stack.kind.replace('_', ' ')}</b> {stack.gpu}<br>{stack.label}"
    lines = []
    for row in frame.to_dict("records"):
        sizes = " ".join(f"{name}={row[name]:.0f}" for name in names)
        error = row["predicted_s"] / row["time_s"] - 1.0
        lines.append(
            f"{head}<br>{sizes}<br>measured {quantity(row['time_s'], 's')}, predicted "
            f"{quantity(row['predicted_s'], 's')} ({error:+.1%})<br>by {group.calibration}"
        )
    return lines


def _layout(result: Validation, groups: Sequence[Judged], share: float) -> dict[str, Any]:
    gpus = ", ".join(dict.fromkeys(group.stack.gpu for group in groups)) or "nothing"
    return {
        "title": {
            "text": f"Kernel times of {gpus}",
            "subtitle": {"text": _subtitle(result.overall, result.min_time_us, share)},
            "x": 0.02,
        },
        "template": "plotly_white",
        "legend": {"itemsizing": "constant", "x": 1.01, "y": 1.0, "tracegroupgap": 4},
        "hoverlabel": {"align": "left", "font": {"family": "monospace", "size": 11}},
        "margin": {"t": 130, "l": 80, "r": 20, "b": 60},
    }


def _subtitle(errors: Errors, min_time_us: float, share: float) -> str:
    if errors.mape_pct is None or errors.bias_pct is None:
        return f"no shape of at least {min_time_us:g} us could be predicted"
    text = (
        f"{errors.n:,} shapes of at least {min_time_us:g} us: mean absolute error "
        f"{errors.mape_pct:.1f} %, bias {errors.bias_pct:+.1f} %, {errors.coverage90_pct:.0f} % "
        f"within the 90 % bands; the datasheet roofline is off by {errors.roofline_mape_pct:.0f} %"
    )
    return text if share == 1.0 else f"{text}<br>about {_MOST_POINTS:,} of them are drawn"
