"""Break-evens: the JSON object, rows and tables of ``breakeven``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.text import bullets, table
from costmodel.search.breakeven import BreakEven
from costmodel.search.closed_form import ClosedForm

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["break_even_csv", "break_even_record", "break_even_tables"]

_UNITS = {"ttft": "s", "flops": "FLOP", "bytes": "B"}
_NAMES = {"ttft": "TTFT", "flops": "FLOPs of the prefill", "bytes": "bytes moved in the prefill"}
_RULE = (
    "surely and may: at the worse and the better end of the 90 % band of the difference, any lab "
    "and software. Errors common to a kind of kernels act on both sides alike, those of a shape "
    "that both sides run cancel, and a launch costs the same on both"
)


def break_even_record(found: BreakEven) -> dict[str, Any]:
    """Return a break-even as the JSON object of ``costmodel breakeven``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``inputs``, ``range`` (searched, and values not possible),
        ``unit``, ``pays``, ``surely_pays`` and ``may_pay`` (lists of [first, last], by band),
        ``crossings``, ``formula`` (of counts, where there is one), ``weight_floor``, ``verdict``.
    """
    bands = tuple(found.low)
    record: dict[str, Any] = plain({
        "schema_version": SCHEMA_VERSION,
        "inputs": _inputs(found),
        "range": {
            "low": found.parameter.low, "high": found.parameter.high,
            "evaluated": len(found.values), "not_possible": found.refused, "reason": found.reason,
        },
        "unit": _UNITS[found.metric],
        "pays": found.pays,
        "surely_pays": {band: found.surely_pays(band) for band in bands},
        "may_pay": {band: found.may_pay(band) for band in bands},
        "crossings": [asdict(crossing) for crossing in found.crossings],
        "formula": _formula(found.formula),
        "weight_floor": {
            name: None if value is None or value == math.inf else value
            for name, value in asdict(found.floor).items()
        },
        "verdict": found.verdict,
    })  # fmt: skip
    return record


def break_even_csv(several: Sequence[BreakEven]) -> list[dict[str, Any]]:
    """Return one row per value of the parameter, GPU and runtime.

    All rows have the same columns; bounds are empty where a time model has no bands.
    """
    rows = [row for found in several for row in _rows(found)]
    keys = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def _rows(found: BreakEven) -> list[dict[str, Any]]:
    inputs, unit = _inputs(found), _UNITS[found.metric]
    rows = []
    for index, value in enumerate(found.values.tolist()):
        row = {
            **inputs,
            "value": value,
            f"compressed_{unit}": float(found.compressed[index]),
            f"baseline_{unit}": float(found.baseline[index]),
            f"difference_{unit}": float(found.difference[index]),
            "pays": bool(found.difference[index] < 0),
            **{
                f"{end}_{band}_{unit}": float(bounds[band][index])
                for band in found.low
                for end, bounds in (("low", found.low), ("high", found.high))
            },
        }
        rows.append(row)
    return rows


def break_even_tables(several: Sequence[BreakEven]) -> list[RenderableType]:
    """Return break-evens of one question as a table for people, one row per GPU and runtime."""
    from rich.text import Text

    first = several[0]
    name = first.parameter.name
    inputs = _inputs(first)
    title = (
        f"{inputs['model']}, {_label(first)}: for which {name} is {_NAMES[first.metric]} less "
        "than without compression"
    )
    setting = ", ".join(
        f"{what} {value}" for what, value in (
            ("batch", inputs["batch"]), ("text tokens", inputs["text_tokens"]),
            ("dtype", inputs["dtype"]), ("attention", inputs["attention"]),
        ) if what.replace(" ", "_") != name
    )  # fmt: skip
    low, high = first.parameter.low, first.parameter.high
    columns = ("GPU", "runtime", "times", "pays for", "surely", "may", "floor\ntokens")
    rows = [
        (
            one.case.gpu.name, one.case.deployment.runtime, one.case.time_model,
            _runs(one.pays), _runs(one.surely_pays()), _runs(one.may_pay()),
            f"{one.floor.weights_only_tokens:,.0f}",
        )
        for one in several
    ]  # fmt: skip
    return [
        Text(title, style="bold"),
        Text(f"{setting}; every value of {name} from {low:,} to {high:,}"),
        "",
        table(columns, rows, left=3),
        *bullets("Answer", (f"{one.case.gpu.name}, {one.case.deployment.runtime}: {one.verdict}"
                            for one in several)),
        *bullets("Formula", _formula_lines(first)),
        *bullets("Notes", _notes(several)),
    ]  # fmt: skip


def _inputs(found: BreakEven) -> dict[str, Any]:
    case, deployment = found.case, found.case.deployment
    return {
        "model": case.model.name,
        "gpu": case.gpu.name,
        "compress": _label(found),
        "solve": found.parameter.name,
        "metric": found.metric,
        "time_model": case.time_model,
        "runtime": deployment.runtime,
        "attention": deployment.attention,
        "dtype": deployment.dtype,
        "weights_dtype": deployment.weights_dtype,
        "tp": deployment.tp,
        "batch": case.workload.batch,
        "text_tokens": case.workload.text_tokens,
        "visual_tokens": case.layout.tokens if case.layout is not None else 0,
    }


def _label(found: BreakEven) -> str:
    label = found.case.request.label if found.case.request is not None else "none"
    if found.parameter.position is None:
        return label
    return re.sub(rf"\b{found.parameter.name}=\d+", f"{found.parameter.name}=?", label)


def _runs(found: Sequence[tuple[int, int]] | None) -> str:
    if found is None:
        return "-"
    most = 4
    text = [f"{low:,}" if low == high else f"{low:,}-{high:,}" for low, high in found[:most]]
    more = [f"{len(found) - most} more"] if len(found) > most else []
    return ", ".join([*text, *more]) or "none"


def _formula(formula: ClosedForm | None) -> dict[str, Any] | None:
    if formula is None:
        return None
    return {
        "symbol": formula.symbol,
        "difference": str(formula.difference),
        "coefficients": [str(coefficient) for coefficient in formula.coefficients],
        "solutions": [str(solution) for solution in formula.solutions],
        "roots": list(formula.roots),
        "values": formula.values,
    }


def _formula_lines(found: BreakEven) -> list[str]:
    formula = found.formula
    if found.metric == "ttft":
        return []
    if formula is None:
        return ["none over the whole range: the formulas differ between its parts"]
    roots = ", ".join(f"{root:,.2f}" for root in formula.roots) or "no positive value"
    powers = [f"c{power} = {coefficient}" for power, coefficient in enumerate(formula.coefficients)]
    symbol = formula.symbol
    shapes = {2: f"{symbol} = -c0/c1", 3: f"{symbol} = (-c1 +- sqrt(c1**2 - 4*c2*c0))/(2*c2)"}
    shape = shapes.get(len(powers))
    lines = [f"{shape}, that is {roots}"] if shape else [f"zero at {symbol}: {roots}"]
    return lines + (powers if shape else [])


def _notes(several: Sequence[BreakEven]) -> list[str]:
    first = several[0]
    notes = []
    if any(one.low for one in several):
        notes.append(_RULE)
    for one in several:
        floor = one.floor
        text = f"{one.case.gpu.name}: linear layers read weights longer than they compute below "
        text += f"{floor.weights_only_tokens:,.0f} rows (batch times tokens, P*bw/(2*B))"
        text += f", {floor.with_activations_tokens:,.0f} with activations"
        if floor.calibrated_tokens is not None:
            text += f", {floor.calibrated_tokens:,.0f} by calibrated times"
        notes.append(text)
    if first.refused:
        notes.append(f"{first.refused:,} values are not possible: {first.reason}")
    return list(dict.fromkeys(notes))
