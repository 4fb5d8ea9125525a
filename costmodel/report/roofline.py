"""The operators of an estimate under the roofline of their device, as a plotly figure."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.report.chart_style import look
from costmodel.report.text import quantity
from costmodel.results import STAGES, Estimate, OpRow
from costmodel.timing.device import Device, resolve_device

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["roofline_figure"]

# As the parts of bars have them: a stage has one colour in all figures.
_COLOURS = {stage: look(index).colour for index, stage in enumerate(STAGES)}
_SYMBOLS = {
    "gemm": "circle",
    "attention_prefill": "diamond",
    "attention_decode": "diamond",
    "attention_encoder": "square",
    "elementwise": "triangle-up",
    "collective": "x",
    "copy": "cross",
    "host": "star",
}
_KINDS = {
    "gemm": "matrix product",
    "attention_prefill": "causal attention",
    "attention_decode": "causal attention",
    "attention_encoder": "encoder attention",
}
_LARGEST, _SMALLEST = 46.0, 7.0


@dataclass(frozen=True)
class _Roof:
    label: str
    flops_per_s: float
    dash: str


def roofline_figure(case: Case, result: Estimate) -> Figure:
    """Return the roofline plot of an estimate.

    One marker per operator at its arithmetic intensity and its achieved rate
    (FLOPs over time, not clipped); its area is its share of the pass, its
    colour the stage, its symbol the kind.  Operators without arithmetic have
    no place on these axes; the subtitle says how much time they take.

    Parameters
    ----------
    case : Case
        The question; its device gives the roofs.
    result : Estimate
        Its estimate.

    Returns
    -------
    plotly.graph_objects.Figure
        Log-log; x in FLOP per byte, y in FLOP/s.
    """
    from plotly import graph_objects

    device = resolve_device(case.gpu, load_host(), case.deployment)
    passes = (("prefill", result.ops), ("one decode step", result.ops_decode))
    figure = graph_objects.Figure()
    points = [op for _, ops in passes for op in ops if _on_axes(op)]
    roofs = _roofs(device)
    _draw_roofs(figure, device, roofs, points)
    for phase, ops in passes:
        _draw_operators(figure, phase, ops)
    _draw_kinds(figure, points)
    figure.update_layout(**_layout(case, result, passes))
    return figure


def _on_axes(op: OpRow) -> bool:
    return op.flops > 0 and op.time_s > 0 and sum(op.bytes.values()) > 0


def _intensity(op: OpRow) -> float:
    return op.flops / sum(op.bytes.values())


def _roofs(device: Device) -> list[_Roof]:
    roofs = [_Roof(f"{device.linear_dtype} matrix peak", device.linear_flops_per_s, "solid")]
    if device.matmul_flops_per_s != device.linear_flops_per_s:
        label = f"{device.matmul_dtype} matrix peak"
        roofs.append(_Roof(label, device.matmul_flops_per_s, "dash"))
    if device.vector_flops_per_s not in (roof.flops_per_s for roof in roofs):
        roofs.append(_Roof("fp32 vector peak", device.vector_flops_per_s, "dot"))
    return roofs


def _draw_roofs(
    figure: Figure, device: Device, roofs: Sequence[_Roof], points: Sequence[OpRow]
) -> None:
    bandwidth = device.bandwidth_bytes_per_s
    knees = [roof.flops_per_s / bandwidth for roof in roofs]
    intensities = [_intensity(op) for op in points]
    rates = [op.flops / op.time_s for op in points]
    low, high = min([*intensities, *knees]) / 3, max([*intensities, *knees]) * 3
    highest = max(roof.flops_per_s for roof in roofs)
    bottom = min([low * bandwidth, *rates]) / 2
    line = {"color": "#444444", "width": 2}
    hidden = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(
        x=[low, max(knees)], y=[low * bandwidth, highest], line=line, **hidden
    )  # fmt: skip
    for roof, knee in zip(roofs, knees, strict=True):
        dashed = {**line, "dash": roof.dash}
        figure.add_scatter(x=[knee, high], y=[roof.flops_per_s] * 2, line=dashed, **hidden)
        # Left of its knee and above the slope no operator can be.
        _label(
            figure, knee, roof.flops_per_s, f"{roof.label} {quantity(roof.flops_per_s, 'FLOP/s')}, "
            f"knee at {knee:.3g} FLOP/B",
        )  # fmt: skip
    free = math.sqrt(2.5 * min(knees))
    _label(figure, free, free * bandwidth, f"memory {quantity(bandwidth, 'B/s')}")
    figure.update_xaxes(range=[math.log10(low), math.log10(high)], **_ticks(low, high))
    figure.update_yaxes(
        range=[math.log10(bottom), math.log10(2 * highest)], **_ticks(bottom, 2 * highest)
    )


def _label(figure: Figure, x: float, y: float, text: str) -> None:
    figure.add_annotation(
        x=math.log10(x), y=math.log10(y), xref="x", yref="y", text=text, showarrow=False,
        xanchor="right", yanchor="middle", xshift=-26,
    )  # fmt: skip


def _ticks(low: float, high: float) -> dict[str, Any]:
    values = [
        10.0**power for power in range(math.ceil(math.log10(low)), math.ceil(math.log10(high)))
    ]
    texts = [quantity(value) if value >= 1 else f"{value:g}" for value in values]
    return {"tickvals": values, "ticktext": [re.sub(r"\.0+", "", text) for text in texts]}


def _draw_operators(figure: Figure, phase: str, ops: Sequence[OpRow]) -> None:
    total_s = sum(op.time_s for op in ops)
    longest_s = max((op.time_s for op in ops if _on_axes(op)), default=0.0)
    for stage in STAGES:
        found = [op for op in ops if op.stage == stage and _on_axes(op)]
        # Large markers first, so that they do not cover small ones; the legend shows the first.
        found.sort(key=lambda op: (op.kind != "gemm", -op.time_s))
        if not found:
            continue
        suffix = "" if phase == "prefill" else "-open"
        figure.add_scatter(
            x=[_intensity(op) for op in found],
            y=[op.flops / op.time_s for op in found],
            mode="markers",
            name=stage.replace("_", " ").replace("llm prefill", "language model"),
            legendgroup=phase,
            legendgrouptitle={"text": phase},
            marker={
                "color": _COLOURS[stage],
                "symbol": [_SYMBOLS.get(op.kind, "circle") + suffix for op in found],
                "size": [_size(op.time_s / longest_s) for op in found],
                "opacity": 0.75 if not suffix else 1.0,
                "line": {"width": 1 if not suffix else 2, "color": _COLOURS[stage]},
            },
            hovertemplate="%{text}<extra></extra>",
            text=[_hover(op, phase, op.time_s / total_s) for op in found],
        )


def _size(share: float) -> float:
    return max(_LARGEST * math.sqrt(share), _SMALLEST)


def _draw_kinds(figure: Figure, points: Iterable[OpRow]) -> None:
    labels = {_KINDS.get(op.kind, op.kind): op.kind for op in points}
    for label, kind in labels.items():
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=label,
            legendgroup="kind", legendgrouptitle={"text": "symbol"},
            marker={"color": "#444444", "symbol": _SYMBOLS.get(kind, "circle"), "size": 9},
        )  # fmt: skip


def _hover(op: OpRow, phase: str, share: float) -> str:
    sizes = " ".join(f"{name}={size:.0f}" for name, size in op.shape.items())
    formulas = [
        "<br>  ".join(textwrap.wrap(f"{name} = {op.formula[key]}", 80))
        for name, key in (("FLOP", "flops"), ("bytes", "bytes"))
    ]
    lines = [
        f"<b>{op.name}</b> ({phase}, {op.kind.replace('_', ' ')}, x {op.repeat:.0f})",
        sizes,
        f"{quantity(op.flops, 'FLOP')}, {quantity(sum(op.bytes.values()), 'B')}, "
        f"{_intensity(op):.3g} FLOP/B",
        f"{quantity(op.time_s, 's')} ({share:.1%} of the pass), "
        f"{quantity(op.flops / op.time_s, 'FLOP/s')}, bound by {op.bound_by}",
        *formulas,
    ]
    return "<br>".join(lines)


def _layout(
    case: Case, result: Estimate, passes: Iterable[tuple[str, Sequence[OpRow]]]
) -> dict[str, Any]:
    tokens = result.tokens
    label = f", {result.inputs['compress']}" if result.inputs["compress"] != "none" else ""
    hidden = []
    for phase, ops in passes:
        total_s = sum(op.time_s for op in ops)
        rest_s = sum(op.time_s for op in ops if not _on_axes(op))
        hidden.append(f"{rest_s / total_s:.1%} of {phase}" if total_s else phase)
    axis = {"type": "log", "gridcolor": "#e5e5e5"}
    return {
        "title": {
            "text": f"{case.model.name} on {case.gpu.name}{label}",
            "subtitle": {
                "text": f"{result.inputs['batch']:,} x ({tokens['visual_kept']:,.0f} visual + "
                f"{tokens['text']:,} text tokens), {result.inputs['dtype']}, "
                f"{result.inputs['runtime']}, {result.inputs['time_model']} times<br>marker area: "
                "share of the pass; operators without arithmetic, which are not shown, take "
                + " and ".join(hidden)
            },
            "x": 0.02,
        },
        "xaxis": {**axis, "title": {"text": "arithmetic intensity [FLOP/B]"}},
        "yaxis": {**axis, "title": {"text": "achieved rate [FLOP/s]"}},
        "template": "plotly_white",
        "legend": {"groupclick": "toggleitem", "itemsizing": "constant", "x": 1.01, "y": 1.0},
        "hoverlabel": {"align": "left", "font": {"family": "monospace", "size": 11}},
        "margin": {"t": 110, "l": 80, "r": 20, "b": 60},
    }
