"""Estimates as JSON objects and as rows of a table, in SI units."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from costmodel.report.stages import stage_costs
from costmodel.results import Estimate, OpRow

__all__ = [
    "SCHEMA_VERSION",
    "estimate_record",
    "op_rows",
    "plain",
    "stage_rows",
    "to_csv",
    "to_json",
]

SCHEMA_VERSION = "1"
"""Version of the JSON objects; it changes when a key changes its meaning or goes."""

_SECTIONS = ("inputs", "tokens", "params", "flops", "bytes_moved", "memory_bytes")
_TIMES = ("time_s", "interval_s")


def plain(value: Any) -> Any:
    """Return `value` with whole floats as ints and tuples as lists, all the way down.

    Examples
    --------
    >>> plain({"flops": 8.0, "ratio": 1.5, "parts": (2.0,)})
    {'flops': 8, 'ratio': 1.5, 'parts': [2]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def estimate_record(result: Estimate, *, explain: bool = False) -> dict[str, Any]:
    """Return an estimate as the JSON object of ``costmodel estimate``.

    Parameters
    ----------
    result : Estimate
        The estimate.
    explain : bool
        Whether to add every operator of prefill (``ops``) and of decode (``ops_decode``).

    Returns
    -------
    dict
        Keys ``schema_version``, ``inputs``, ``tokens``, ``params``, ``flops``,
        ``bytes_moved``, ``memory_bytes``, ``time_s``, ``interval_s``, ``baseline``,
        ``savings``, ``savings_interval``, ``ops`` and ``ops_decode`` (`explain` only),
        ``convention`` (where one was asked for), ``provenance``, ``notes``.
    """
    record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **_sections(result)}
    record["baseline"] = _sections(result.baseline or result)
    record["savings"] = plain(result.savings)
    record["savings_interval"] = result.savings_interval
    if explain:
        record["ops"] = [_op_record(op) for op in result.ops]
        record["ops_decode"] = [_op_record(op) for op in result.ops_decode]
    if result.convention is not None:
        record["convention"] = plain(result.convention)
    record["provenance"] = plain(result.provenance)
    record["notes"] = list(result.notes)
    return record


def _sections(result: Estimate) -> dict[str, Any]:
    return {
        **{name: plain(getattr(result, name)) for name in _SECTIONS},
        # A time stays a number with a fraction: 0 s is a measurement that came out as nothing.
        **{name: getattr(result, name) for name in _TIMES},
    }


def _op_record(op: OpRow) -> dict[str, Any]:
    return {
        "name": op.name,
        "stage": op.stage,
        "kind": op.kind,
        "part": op.part,
        "counted": op.counted,
        "repeat": plain(op.repeat),
        "shape": plain(op.shape),
        "flops": plain(op.flops),
        "bytes": plain({**op.bytes, "total": sum(op.bytes.values())}),
        "time_s": op.time_s,
        "bound_by": op.bound_by,
        "provenance": op.provenance,
        "launches": plain(op.launches),
        "host_syncs": plain(op.host_syncs),
        "formula": dict(op.formula),
        "note": op.note,
    }


def _question(result: Estimate) -> dict[str, Any]:
    inputs, tokens = result.inputs, result.tokens
    names = ("model", "gpu", "compress", "time_model", "runtime", "dtype", "batch")
    return {
        **{name: inputs[name] for name in names},
        "visual_tokens": plain(tokens["visual_in"]),
        "visual_tokens_kept": plain(tokens["visual_kept"]),
        "text_tokens": tokens["text"],
    }


def stage_rows(result: Estimate) -> list[dict[str, Any]]:
    """Return one row per stage, with the same stage of the baseline beside it.

    Rows whose ``part_of`` is ``total`` sum to the row ``total``.
    """
    before = stage_costs(result.baseline or result)
    return [
        {
            **_question(result),
            "stage": row.stage,
            "part_of": row.part_of,
            "flops": plain(row.flops),
            "bytes_moved": plain(row.bytes_moved),
            "time_s": row.time_s,
            "share_of_ttft": row.share,
            "bound_by": row.bound_by,
            "baseline_flops": plain(old.flops),
            "baseline_bytes_moved": plain(old.bytes_moved),
            "baseline_time_s": old.time_s,
        }
        for row, old in zip(stage_costs(result), before, strict=True)
    ]


def op_rows(result: Estimate) -> list[dict[str, Any]]:
    """Return one row per operator of prefill and decode; totals over the repeats."""
    rows = []
    for phase, ops in (("prefill", result.ops), ("decode", result.ops_decode)):
        for op in ops:
            record = _op_record(op)
            sizes, traffic, formula = (record.pop(key) for key in ("shape", "bytes", "formula"))
            rows.append(
                {
                    **_question(result),
                    "phase": phase,
                    **record,
                    "shape": " ".join(f"{name}={size}" for name, size in sizes.items()),
                    **{f"bytes_{kind}": size for kind, size in traffic.items()},
                    "formula_flops": formula["flops"],
                    "formula_bytes": formula["bytes"],
                }
            )
    return rows


def to_json(value: Any) -> str:
    """Return JSON text; NaN and infinity are refused, as JSON has none."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return CSV text with a header; columns are the keys of the first row.

    Examples
    --------
    >>> to_csv([{"stage": "total", "time_s": 0.5}]).splitlines()
    ['stage,time_s', 'total,0.5']
    """
    found: Sequence[Mapping[str, Any]] = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()
