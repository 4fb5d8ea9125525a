"""Compression methods side by side at the same budget, as records and a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.compression.budgets import method_names
from costmodel.compression.method import load_method
from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.scoring import method_scores, score_columns, score_lines, score_records
from costmodel.report.text import bullets, quantity, table
from costmodel.results import Estimate, Failure
from costmodel.scores import Score, ScoreRange

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["comparison_record", "comparison_rows", "comparison_tables"]

Outcome = tuple[str, Estimate | Failure]


def comparison_rows(
    outcomes: Sequence[Outcome], visual_tokens_kept: int | None = None
) -> list[dict[str, Any]]:
    """Return one row per method, the baseline first.

    Parameters
    ----------
    outcomes : sequence of (str, Estimate or Failure)
        What `costmodel.compare` returns.
    visual_tokens_kept : int, optional
        The number that was asked for; published scores are those at this number.

    Returns
    -------
    list of dict
        The same keys in every row; values are None and ``reason`` is set where a
        method cannot keep that many tokens.
    """
    rows = []
    done = [result for _, result in outcomes if isinstance(result, Estimate)]
    if done and not any(label == "none" for label, _ in outcomes):
        rows.append(_row("none", done[0].baseline or done[0], visual_tokens_kept))
    for label, outcome in outcomes:
        if isinstance(outcome, Estimate):
            rows.append(_row(label, outcome, visual_tokens_kept))
        else:
            asked = {name: done[0].inputs[name] for name in ("model", "gpu")} if done else {}
            rows.append({**asked, "method": label, "reason": outcome.reason})
    # A complete row first, so that the columns do not depend on which method fails.
    keys = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def _scores(label: str, result: Estimate, visual_tokens_kept: int | None) -> list[Score]:
    """Published scores of a row; the baseline keeps all its tokens, several methods have none."""
    name, *others = method_names(label)
    if others:
        return []
    kept = int(result.tokens["visual_in"]) if name == "none" else visual_tokens_kept
    return method_scores(name, result.inputs, kept)


def _row(label: str, result: Estimate, visual_tokens_kept: int | None) -> dict[str, Any]:
    own = [op for op in result.ops if op.stage == "compression"]
    memory = result.memory_bytes
    baseline = result.baseline or result
    row: dict[str, Any] = plain({
        "model": result.inputs["model"],
        "gpu": result.inputs["gpu"],
        "method": label,
        "visual_tokens": result.tokens["visual_in"],
        "visual_tokens_kept": result.tokens["visual_kept"],
        "visual_tokens_equivalent": result.tokens["visual_equivalent"],
        "flops": result.flops["total"],
        "compression_flops": result.flops["compression"],
        "compression_launches": sum(op.launches for op in own),
        "compression_host_syncs": sum(op.host_syncs for op in own),
        "compression_time_s": result.time_s["compression"],
        "ttft_s": result.time_s["ttft"],
        "tpot_s": result.time_s["tpot"],
        "speedup_ttft": baseline.time_s["ttft"] / result.time_s["ttft"],
        **_speedup_band(result),
        "fewer_flops": baseline.flops["total"] / result.flops["total"],
        "kv_cache_bytes": memory["kv_cache"],
        "memory_bytes": memory["total"],
        "fits": memory["fits"],
        "training": _training(label),
        "visual_tokens_asked": visual_tokens_kept,
        **score_columns(_scores(label, result, visual_tokens_kept)),
        "reason": None,
    })  # fmt: skip
    return row


def _speedup_band(result: Estimate) -> dict[str, float | None]:
    """The band for any lab and software; none for the baseline or without bands."""
    bands = result.savings_interval.get("ttft_s_ratio", {}).get("any_stack", (None, None))
    return dict(zip(("speedup_ttft_low", "speedup_ttft_high"), bands, strict=True))


def _band_text(row: dict[str, Any]) -> str:
    low, high = row["speedup_ttft_low"], row["speedup_ttft_high"]
    if low is None:
        return ""
    return f" ({low:.2f}-{high:.2f})" if high is not None else f" ({low:.2f}-)"


def _training(label: str) -> str:
    trained = dict.fromkeys(load_method(name).training for name in method_names(label))
    return "; ".join(text for text in trained if text != "none") or "none"


def comparison_record(outcomes: Sequence[Outcome], visual_tokens_kept: int) -> dict[str, Any]:
    """Return a comparison as a JSON object; each method with all its published scores."""
    inputs = next((result.inputs for _, result in outcomes if isinstance(result, Estimate)), {})
    hidden = ("compress", "compress_params")
    scores = dict(_all_scores(outcomes, visual_tokens_kept))
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": plain({key: value for key, value in inputs.items() if key not in hidden}),
        "visual_tokens_kept": visual_tokens_kept,
        "methods": [
            row | plain(score_records(scores.get(row["method"], [])))
            for row in comparison_rows(outcomes, visual_tokens_kept)
        ],
    }


def _all_scores(
    outcomes: Sequence[Outcome], visual_tokens_kept: int
) -> list[tuple[str, list[Score]]]:
    """Published scores by label, the baseline first."""
    done = [(label, result) for label, result in outcomes if isinstance(result, Estimate)]
    if done and not any(label == "none" for label, _ in done):
        done.insert(0, ("none", done[0][1].baseline or done[0][1]))
    return [(label, _scores(label, result, visual_tokens_kept)) for label, result in done]


def comparison_tables(outcomes: Sequence[Outcome], visual_tokens_kept: int) -> list[RenderableType]:
    """Return a comparison as a table for people; failures, training and sources below."""
    from rich.text import Text

    rows = comparison_rows(outcomes, visual_tokens_kept)
    done = [row for row in rows if row["reason"] is None]
    question = next(result for _, result in outcomes if isinstance(result, Estimate))
    level = question.interval_s["level"]
    faster = f"times faster\n({level:.0%} band)" if level else "times\nfaster"
    columns = (
        "method", "score\n%", "kept", "mean\nkept", "FLOP", "own\nFLOP", "kernels\nstarted",
        "host\nwaits", "TTFT", faster, "KV\ncache", "peak\nmemory",
    )  # fmt: skip
    cells = (
        (
            row["method"].replace(":", ": ").replace(",", ", "),
            _span(row),
            f"{row['visual_tokens_kept']:,}",
            f"{row['visual_tokens_equivalent']:,.0f}",
            quantity(row["flops"]),
            quantity(row["compression_flops"]),
            f"{row['compression_launches']:,.0f}" if row["compression_launches"] else "-",
            f"{row['compression_host_syncs']:,.0f}" if row["compression_host_syncs"] else "-",
            quantity(row["ttft_s"], "s"),
            f"{row['speedup_ttft']:.2f}" + _band_text(row),
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
    published = [
        line
        for label, scores in _all_scores(outcomes, visual_tokens_kept)
        if label != "none"
        for line in score_lines(method_names(label)[0], scores)
    ]
    shared = dict.fromkeys(
        note for _, result in outcomes if isinstance(result, Estimate) for note in result.notes
    )
    return [
        Text(title, style="bold"), "", table(columns, cells, gap=1),
        *bullets("Do not fit", [row["method"] for row in done if not row["fits"]]),
        *bullets("Not possible", failed),
        *bullets("Need training (the others need none)", trained),
        *bullets("Published scores, percent of the vanilla score of the same source", published),
        *bullets("Notes", shared),
    ]  # fmt: skip


def _span(row: dict[str, Any]) -> str:
    if not row["score_sources"]:
        return "-"
    return ScoreRange(row["score_low_pct"], row["score_high_pct"], row["score_sources"]).span
