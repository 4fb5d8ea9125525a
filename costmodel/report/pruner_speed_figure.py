"""FLOPs ratio against the ratio of times to the first token, as a plotly figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from costmodel.studies.pruner_speed import SpeedRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["pruner_speed_figure"]

# Okabe and Ito's palette, which people with a colour vision deficiency can tell apart.
_CAUSES = {
    "vision tower": (("tower_s",), "#009E73", "square"),
    "weight-read floor": (("weight_floor_s",), "#0072B2", "circle"),
    "lost FlashAttention": (("lost_flash_s",), "#CC79A7", "triangle-up"),
    "own overhead": (("own_ops_s", "own_waits_s"), "#D55E00", "diamond"),
    "other host time": (("host_s",), "#E69F00", "x"),
}
_LINE = {"color": "#222222", "width": 1.5}
_MARGIN = 1.08


def pruner_speed_figure(rows: Sequence[SpeedRow]) -> Figure:
    """Return the plot of `costmodel.studies.pruner_speed.pruner_speed`.

    One panel for each GPU and runtime: FLOPs without over with compression against the same of
    the time to the first token, with the diagonal where both are equal and a dotted line where
    time stays.  Colour and symbol are the largest part of the gap.  Bars are the 90 % band of
    the compressed time for any lab and software, the other time being as predicted.

    Parameters
    ----------
    rows : sequence of SpeedRow
        At least one.

    Returns
    -------
    plotly.graph_objects.Figure

    Examples
    --------
    >>> from costmodel.studies.pruner_speed import pruner_speed
    >>> figure = pruner_speed_figure(pruner_speed(methods=["random"], budgets=[64]))
    >>> [title.text for title in figure.layout.annotations][0]
    'a100-80gb-sxm, eager'
    """
    from plotly.subplots import make_subplots

    gpus = list(dict.fromkeys(row.gpu for row in rows))
    runtimes = list(dict.fromkeys(row.runtime for row in rows))
    figure = make_subplots(
        rows=len(gpus), cols=len(runtimes), horizontal_spacing=0.08, vertical_spacing=0.13,
        subplot_titles=[f"{gpu}, {runtime}" for gpu in gpus for runtime in runtimes],
    )  # fmt: skip
    most = max(row.flops_ratio for row in rows) * _MARGIN
    least = min(row.flops_ratio for row in rows) / _MARGIN
    shown: set[str] = set()
    for i, gpu in enumerate(gpus, start=1):
        for j, runtime in enumerate(runtimes, start=1):
            place = {"row": i, "col": j}
            lines = {"mode": "lines", "hoverinfo": "skip", "x": [least, most], **place}
            first = i == j == 1
            figure.add_scatter(
                y=[least, most], line=_LINE, name="as the FLOPs", showlegend=first, **lines
            )
            figure.add_scatter(
                y=[1, 1], line={**_LINE, "dash": "dot"}, name="no faster", showlegend=first, **lines
            )
            for cause in _CAUSES:
                own = [
                    row for row in rows
                    if (row.gpu, row.runtime, _cause(row)) == (gpu, runtime, cause)
                ]  # fmt: skip
                if own:
                    _draw(figure, own, cause, place, showlegend=cause not in shown)
                    shown.add(cause)
            figure.update_xaxes(title="FLOPs ratio", range=[least, most], **place)
            figure.update_yaxes(title="TTFT ratio", range=[0, most], **place)
    figure.update_layout(
        template="plotly_white", width=1200, height=480 * len(gpus) + 80,
        title="FLOPs ratio against TTFT ratio; the largest part of what lies between",
        legend={"orientation": "h", "y": -0.08},
    )  # fmt: skip
    return figure


def _cause(row: SpeedRow) -> str:
    return max(_CAUSES, key=lambda cause: _cause_s(row, cause))


def _cause_s(row: SpeedRow, cause: str) -> float:
    return float(sum(getattr(row.gap, key) for key in _CAUSES[cause][0]))


def _draw(
    figure: Figure, own: Sequence[SpeedRow], cause: str, place: dict[str, int], *, showlegend: bool
) -> None:
    _, colour, symbol = _CAUSES[cause]
    figure.add_scatter(
        x=[row.flops_ratio for row in own],
        y=[row.ttft_ratio for row in own],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_y={
            "array": [row.baseline_ttft_s / row.band_s[0] - row.ttft_ratio for row in own],
            "arrayminus": [row.ttft_ratio - row.baseline_ttft_s / row.band_s[1] for row in own],
            "thickness": 0.6, "width": 0,
        },
        text=[_hover(row) for row in own],
        hovertemplate="%{text}<extra></extra>",
        name=cause, legendgroup=cause, showlegend=showlegend, **place,
    )  # fmt: skip


def _hover(row: SpeedRow) -> str:
    low, high = (1e3 * bound for bound in row.band_s)
    lines = [
        f"<b>{row.request}</b>",
        f"FLOPs {row.flops_ratio:.2f}, TTFT {row.ttft_ratio:.2f}",
        f"{1e3 * row.ttft_s:.1f} ms ({low:.1f} to {high:.1f}), ideal {1e3 * row.ideal_ttft_s:.1f}",
    ]
    lines += [f"{cause}: {1e3 * _cause_s(row, cause):.1f} ms" for cause in _CAUSES]
    return "<br>".join(lines)
