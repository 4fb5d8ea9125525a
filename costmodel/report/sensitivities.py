"""Sensitivities: the JSON objects, rows and tables of ``sensitivity``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from costmodel.case import Case
from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.text import bullets, quantity, table
from costmodel.search.one_at_a_time import Change, Sensitivity
from costmodel.search.scaled_device import QUANTITIES
from costmodel.search.variance import OUTPUTS, Indices, Span

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "indices_record",
    "indices_rows",
    "indices_tables",
    "sensitivity_record",
    "sensitivity_rows",
    "sensitivity_tables",
]

_KEPT = (
    "kernels reach the same share of a scaled datasheet rate; their fixed costs and the bandwidth "
    "of the second-level cache stay as they were fitted"
)


def sensitivity_record(found: Sensitivity) -> dict[str, Any]:
    """Return one-at-a-time changes as a JSON object of ``costmodel sensitivity``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``inputs``, ``method``, ``base``, ``changes`` and
        ``elasticities`` (percent per percent).
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": _inputs(found.case),
        "method": "oat",
        "base": _change(found.base),
        "changes": [_change(one) for one in found.changes],
        "elasticities": [asdict(one) for one in found.elasticities],
    }


def sensitivity_rows(found: Sensitivity) -> list[dict[str, Any]]:
    """Return one row per change, the case as it is first, with the elasticities beside it."""
    slopes = {one.quantity: one for one in found.elasticities}
    rows = []
    for one in (found.base, *found.changes):
        slope = slopes.get(one.quantity)
        record = _change(one)
        stages = record.pop("stages_s")
        rows.append({
            **_inputs(found.case), **record,
            **{f"{stage}_s": value for stage, value in stages.items()},
            "elasticity_ttft": slope.ttft if slope else None,
            "elasticity_tpot": slope.tpot if slope else None,
            "elasticity_speedup": slope.speedup if slope else None,
        })  # fmt: skip
    return rows


def sensitivity_tables(found: Sensitivity) -> list[RenderableType]:
    """Return one-at-a-time changes as tables for people."""
    from rich.text import Text

    compressed = _compresses(found.case)
    columns = ["change", "TTFT", "TTFT\nchange", "vision", "LLM", "host", "TPOT", "TPOT\nchange"]
    rows = [tuple(_cells(one, found.base, compressed)) for one in (found.base, *found.changes)]
    slopes = [
        [one.quantity, f"{one.ttft:+.2f}", f"{one.tpot:+.2f}"]
        + ([f"{one.speedup:+.2f}"] if compressed else [])
        for one in found.elasticities
    ]
    names = ["percent for 1 % more", "TTFT", "TPOT", *(["times\nfaster"] if compressed else [])]
    meanings = [f"{one.quantity}: {QUANTITIES[one.quantity]}" for one in found.elasticities]
    return [
        Text(_title(found.case), style="bold"), "",
        table([*columns, *(["times\nfaster"] if compressed else [])], rows), "",
        table(names, slopes),
        *bullets("Notes", [*meanings, _KEPT]),
    ]  # fmt: skip


def indices_record(found: Indices) -> dict[str, Any]:
    """Return Sobol indices as a JSON object of ``costmodel sensitivity``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``inputs``, ``method``, ``samples``, ``evaluations``, ``spans``
        and ``outputs``: by output mean, deviation and the indices of every span.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": _inputs(found.case),
        "method": "sobol",
        "samples": found.samples,
        "evaluations": found.evaluations,
        "spans": [asdict(span) for span in found.spans],
        "outputs": {
            output: {
                "mean": found.mean[output],
                "deviation": found.deviation[output],
                "indices": [_index(found, output, at) for at in range(len(found.spans))],
            }
            for output in OUTPUTS
        },
    }


def indices_rows(found: Indices) -> list[dict[str, Any]]:
    """Return one row per output and span."""
    return [
        {
            **_inputs(found.case), "output": output, "mean": found.mean[output],
            "deviation": found.deviation[output], **_index(found, output, at),
            "range": _span(found.spans[at]),
        }
        for output in OUTPUTS for at in range(len(found.spans))
    ]  # fmt: skip


def indices_tables(found: Indices) -> list[RenderableType]:
    """Return Sobol indices as a table for people."""
    from rich.text import Text

    outputs = OUTPUTS if _compresses(found.case) else OUTPUTS[:2]
    labels = {"ttft": "TTFT", "tpot": "TPOT", "speedup": "faster"}
    columns = ["varies", "over"]
    columns += [f"{labels[name]}\n{kind}" for name in outputs for kind in ("alone", "in all")]
    rows = [
        [span.name, _span(span)]
        + [
            f"{values[name][at]:.2f}"
            for name in outputs for values in (found.first, found.total)
        ]
        for at, span in enumerate(found.spans)
    ]  # fmt: skip
    spread = [
        f"{labels[name]}: mean {_amount(name, found.mean[name])}, standard deviation "
        f"{_amount(name, found.deviation[name])}" for name in outputs
    ]  # fmt: skip
    return [
        Text(_title(found.case), style="bold"), "", table(columns, rows, left=2),
        *bullets("Notes", [
            "share of the variance that a quantity explains alone (first order), and in all that "
            f"it takes part in (total); standard errors over scrambled Sobol sequences up to "
            f"{_worst(found):.2f}; {found.evaluations:,} evaluations",
            "factors are uniform in their logarithm, formats equally likely", *spread, _KEPT,
        ]),
    ]  # fmt: skip


def _compresses(case: Case) -> bool:
    return case.request is not None and case.request.compresses


def _inputs(case: Case) -> dict[str, Any]:
    deployment = case.deployment
    return {
        "model": case.model.name,
        "gpu": case.gpu.name,
        "compress": case.request.label if case.request is not None else "none",
        "time_model": case.time_model,
        "runtime": deployment.runtime,
        "dtype": deployment.dtype,
        "weights_dtype": deployment.weights_dtype,
        "tp": deployment.tp,
        "batch": case.workload.batch,
        "text_tokens": case.workload.text_tokens,
        "visual_tokens": plain(float(case.layout.tokens)) if case.layout is not None else 0,
    }


def _title(case: Case) -> str:
    inputs = _inputs(case)
    return (
        f"{inputs['model']} on {inputs['gpu']}: {inputs['batch']:,} x ({inputs['visual_tokens']:,} "
        f"visual + {inputs['text_tokens']:,} text tokens), {inputs['compress']}, "
        f"{inputs['dtype']}, {inputs['runtime']}, {inputs['time_model']} times"
    )


def _change(one: Change) -> dict[str, Any]:
    return asdict(one) | {"speedup": one.speedup}


def _cells(one: Change, base: Change, compressed: bool) -> Iterator[str]:
    stages = one.stages_s
    yield f"{one.quantity} x {one.factor:g}" if one.quantity else "as it is"
    yield quantity(one.ttft_s, "s")
    yield _relative(one.ttft_s, base.ttft_s)
    yield quantity(stages["vision_encoder"], "s")
    yield quantity(stages["llm_prefill"], "s")
    yield quantity(stages["host_overhead"], "s")
    yield quantity(one.tpot_s, "s")
    yield _relative(one.tpot_s, base.tpot_s)
    if compressed:
        yield f"{one.speedup:.2f}"


def _relative(now: float, before: float) -> str:
    return f"{100 * (now / before - 1):+.1f} %"


def _index(found: Indices, output: str, at: int) -> dict[str, Any]:
    return {
        "quantity": found.spans[at].name,
        "first_order": float(found.first[output][at]),
        "first_order_error": float(found.first_error[output][at]),
        "total": float(found.total[output][at]),
        "total_error": float(found.total_error[output][at]),
    }


def _span(span: Span) -> str:
    return "/".join(span.choices) if span.choices else f"x {span.low:g} to {span.high:g}"


def _worst(found: Indices) -> float:
    """The largest standard error of an index."""
    errors = (found.first_error, found.total_error)
    return float(max(column.max() for one in errors for column in one.values()))


def _amount(output: str, value: float) -> str:
    return f"{value:.2f}" if output == "speedup" else quantity(value, "s")
