"""The one style of all pictures: colours, dashes, symbols, axes and what the pointer shows.

Colours are Okabe and Ito's, which people with a colour vision deficiency can tell apart;
yellow is left out because it is too faint on white.  Dashes, symbols and hatches differ too, so
that series can be told apart in a grey print.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.charts import Axis
from costmodel.units import format_si

__all__ = [
    "CIVIDIS",
    "COLOURS",
    "GREY",
    "Look",
    "axis_layout",
    "base_layout",
    "faint",
    "log_ticks",
    "look",
    "wrapped",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
"""Okabe and Ito without yellow; black last, as lines of reference are grey."""

GREY = "#666666"
CIVIDIS = "Cividis"

# The counts have no common divisor with that of the colours, so that 42 series differ in print.
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")
_HATCHES = ("", "/", ".", "\\", "x", "-")
_FONT_SIZE = 14
_GRID = "#e5e5e5"
_FEW_TICKS = 12
_NOTE_WIDTH = 170
_LEAST_GAP = 0.045


@dataclass(frozen=True)
class Look:
    """How the series of one name is drawn, in all panels."""

    colour: str
    dash: str
    symbol: str
    hatch: str


def look(index: int) -> Look:
    """Return the look of the series of a number.

    Examples
    --------
    >>> look(0)
    Look(colour='#0072B2', dash='solid', symbol='circle', hatch='')
    >>> look(7).colour == look(0).colour, look(7).dash
    (True, 'dash')
    """
    return Look(
        COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)],
        _SYMBOLS[index % len(_SYMBOLS)], _HATCHES[index % len(_HATCHES)],
    )  # fmt: skip


def faint(colour: str, opacity: float = 0.16) -> str:
    """Return a colour for areas, which lines and other areas show through.

    Examples
    --------
    >>> faint("#0072B2")
    'rgba(0,114,178,0.16)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def wrapped(text: str, width: int = 80) -> str:
    """Return text with line breaks as plotly writes them.

    Examples
    --------
    >>> wrapped("a long name", 6)
    'a long<br>name'
    """
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, width) or [""]]
    return "<br>".join(lines)


def base_layout(title: str, note: str) -> dict[str, Any]:
    """Return title, fonts, margins and what the pointer shows, the same for all figures."""
    subtitle = wrapped(note, _NOTE_WIDTH)
    lines = subtitle.count("<br>") + 1 if note else 0
    return {
        "template": "plotly_white",
        "font": {"size": _FONT_SIZE, "color": "#222222"},
        "title": {
            "text": wrapped(title, 100),
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": "#444444"}},
            "x": 0.02,
            "xanchor": "left",
            "yref": "container",
            "y": 1.0,
            "yanchor": "top",
            "pad": {"t": 18},
            "font": {"size": 18},
        },
        "margin": {"t": 58 + 18 * lines, "l": 80, "r": 30, "b": 60},
        "hoverlabel": {"align": "left", "font": {"family": "monospace", "size": 11}},
    }


def axis_layout(axis: Axis, values: Iterable[float], *, from_zero: bool = False) -> dict[str, Any]:
    """Return the settings of an axis for the values on it.

    Parameters
    ----------
    axis : Axis
    values : iterable of float
        All values drawn on it.
    from_zero : bool
        Show the zero of a linear axis where values reach over a good part of it; a
        difference of a few per cent is shown by itself.

    Returns
    -------
    dict
        For ``update_xaxes`` or ``update_yaxes``.
    """
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
    layout: dict[str, Any] = {
        "title": {"text": axis.label, "standoff": 10, "font": {"size": 15}},
        "gridcolor": _GRID,
        "automargin": True,
        "ticks": "outside",
        "tickcolor": _GRID,
        "zerolinecolor": "#999999",
    }
    if axis.log:
        low, high = axis.limits or (min(finite, default=1.0), max(finite, default=10.0))
        layout |= {"type": "log", **log_ticks(low, high, sorted(set(finite)))}
        # A little more than the data, as plotly's own margin grows with the size of markers.
        reach = (high / low) ** 0.04 if high > low else 1.5
        ends = axis.limits or (low / reach, high * reach)
        layout["range"] = [math.log10(end) for end in ends]
        layout["minor"] = {"ticks": "", "showgrid": False}
        return layout
    if axis.limits:
        layout["range"] = list(axis.limits)
    elif from_zero and finite and 0 <= min(finite) <= 0.6 * max(finite):
        layout["rangemode"] = "tozero"
    if finite and max(map(abs, finite)) >= 1000:
        layout["tickformat"] = ",~r" if max(map(abs, finite)) < 1e6 else "~s"
    return layout


def log_ticks(low: float, high: float, values: Sequence[float] = ()) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis.

    Few values well apart are their own ticks (batches of 1, 2, 4, ...); otherwise 1, 2 and 5
    of each decade, or decades alone where there are many.

    Examples
    --------
    >>> log_ticks(3, 300)["ticktext"]
    ['5', '10', '20', '50', '100', '200']
    >>> log_ticks(1, 8, [1, 2, 4, 8])["ticktext"]
    ['1', '2', '4', '8']
    >>> log_ticks(1e-3, 1e6)["ticktext"][-1]
    '1 M'
    """
    decades = math.log10(high / low) if high > low else 0.0
    gaps = [math.log10(b / a) for a, b in itertools.pairwise(values)]
    if 1 < len(values) <= _FEW_TICKS and min(gaps) >= _LEAST_GAP * decades:
        found = [value for value in values if float(f"{value:.4g}") == value]
        if len(found) == len(values):
            return {"tickvals": list(values), "ticktext": [_tick(value) for value in values]}
    steps = (1, 2, 5) if decades < 4 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = [tick for tick in ticks if low / 1.001 <= tick <= high * 1.001]
    if len(ticks) < 2:
        return {"nticks": 8, "tickformat": "~r"}
    least_prefix = 1e6 if len(steps) > 1 else 1e4
    return {"tickvals": ticks, "ticktext": [_tick(tick, least_prefix) for tick in ticks]}


def _tick(value: float, least_prefix: float = 1e6) -> str:
    if value >= least_prefix:
        number, prefix = format_si(value, "").split()
        return f"{float(number):g} {prefix}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
