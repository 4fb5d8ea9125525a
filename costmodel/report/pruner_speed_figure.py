"""FLOPs ratio against the ratio of times to the first token, as a plotly figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from costmodel.report.chart_drawing import draw
from costmodel.report.pictures.speedup_flops import speed_picture
from costmodel.studies.pruner_speed import SpeedRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["pruner_speed_figure"]


def pruner_speed_figure(rows: Sequence[SpeedRow]) -> Figure:
    """Return the plot of `costmodel.studies.pruner_speed.pruner_speed`.

    One panel for each GPU and runtime: FLOPs without over with compression against the same of
    the time to the first token, with the lines where both are equal and where time stays.
    Colour and symbol are the largest part of the gap.  Bars are the 90 % band of the compressed
    time for any lab and software, the other time being as predicted.

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
    return draw(speed_picture(rows))
