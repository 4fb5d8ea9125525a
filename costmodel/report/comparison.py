"""Compression methods side by side at the same budget, as records and a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.compression.method import load_method
from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.text import bullets, quantity, table
from costmodel.results import Estimate, Failure

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["comparison_record", "comparison_rows", "comparison_tables"]

Outcome = tuple[str, Estimate | Failure]


def comparison_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one row per method, the baseline first.

    Parameters
    ----------
    outcomes : sequence of (str, Estimate or Failure)
        What `costmodel.compare` returns.

    Returns
    -------
    list of dict
        The same keys in every row; values are None and ``reason`` is set where a
        method cannot keep that many tokens.
    """
    rows = []
    done = [result for _, result in outcomes if isinstance(result, Estimate)]
    if done and not any(label == "none" for label, _ in outcomes):
        rows.append(_row("none", done[0].baseline or done[0]))
    for label, outcome in outcomes:
        if isinstance(outcome, Estimate):
            rows.append(_row(label, outcome))
        else:
            asked = {name: done[0].inputs[name] for name in ("model", "gpu")} if done else {}
            rows.append({**asked, "method": label, "reason": outcome.reason})
    # A complete row first, so that the columns do not depend on which method fails.
    keys = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def _row(label: str, result: Estimate) -> dict[str, Any]:
    own = [op for op in result.ops if op.stage == "compression"]
    memory = result.memory_bytes
    baseline = result.baseline or result
    row: dict[str, Any] = plain({
        "model": result.inputs["model"],
        "gpu": result.inputs["gpu"],
        "method": label,
        "visual_tokens": result.tokens["visual_in"],
        "visual_tokens_kept": result.tokens["visual_kept"],
        "flops": result.flops["total"],
        "compression_flops": result.flops["compression"],
        "compression_launches": sum(op.launches for op in own),
        "compression_host_syncs": sum(op.host_syncs for op in own),
        "compression_time_s": result.time_s["compression"],
        "ttft_s": result.time_s["ttft"],
        "tpot_s": result.time_s["tpot"],
        "speedup_ttft": baseline.time_s["ttft"] / result.time_s["ttft"],
        "fewer_flops": baseline.flops["total"] / result.flops["total"],
        "kv_cache_bytes": memory["kv_cache"],
        "memory_bytes": memory["total"],
        "fits": memory["fits"],
        "training": load_method(label.partition(":")[0]).training,
        "reason": None,
    })  # fmt: skip
    return row


def comparison_record(outcomes: Sequence[Outcome], visual_tokens_kept: int) -> dict[str, Any]:
    """Return a comparison as a JSON object."""
    inputs = next((result.inputs for _, result in outcomes if isinstance(result, Estimate)), {})
    hidden = ("compress", "compress_params")
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": plain({key: value for key, value in inputs.items() if key not in hidden}),
        "visual_tokens_kept": visual_tokens_kept,
        "methods": comparison_rows(outcomes),
    }


def comparison_tables(outcomes: Sequence[Outcome], visual_tokens_kept: int) -> list[RenderableType]:
    """Return a comparison as a table for people; reasons of failures and training below."""
    from rich.text import Text

    rows = comparison_rows(outcomes)
    done = [row for row in rows if row["reason"] is None]
    question = next(result for _, result in outcomes if isinstance(result, Estimate))
    columns = (
        "method", "kept", "FLOP", "own\nFLOP", "kernels\nstarted", "host\nwaits", "TTFT",
        "times\nfaster", "KV\ncache", "memory",
    )  # fmt: skip
    cells = (
        (
            row["method"].replace(":", ": ").replace(",", ", "),
            f"{row['visual_tokens_kept']:,}",
            quantity(row["flops"]),
            quantity(row["compression_flops"]),
            f"{row['compression_launches']:,.0f}" if row["compression_launches"] else "-",
            f"{row['compression_host_syncs']:,.0f}" if row["compression_host_syncs"] else "-",
            quantity(row["ttft_s"], "s"),
            f"{row['speedup_ttft']:.2f}",
            quantity(row["kv_cache_bytes"], "B"),
            quantity(row["memory_bytes"], "B"),
        )
        for row in done
    )
    tokens, inputs = question.tokens, question.inputs
    title = (
        f"{inputs['model']} on {inputs['gpu']}: {inputs['batch']:,} x "
        f"({tokens['visual_in']:,} visual + {tokens['text']:,} text tokens), "
        f"about {visual_tokens_kept:,} kept per image, "
        f"{inputs['dtype']}, {inputs['runtime']}, {inputs['time_model']} times"
    )
    failed = [f"{row['method']}: {row['reason']}" for row in rows if row["reason"]]
    trained = [
        f"{row['method']}: {row['training']}" for row in done if row["training"] != "none"
    ]  # fmt: skip
    shared = dict.fromkeys(
        note for _, result in outcomes if isinstance(result, Estimate) for note in result.notes
    )
    return [
        Text(title, style="bold"), "", table(columns, cells, gap=1),
        *bullets("Do not fit", [row["method"] for row in done if not row["fits"]]),
        *bullets("Not possible", failed),
        *bullets("Need training (the others need none)", trained),
        *bullets("Notes", shared),
    ]  # fmt: skip
