"""Published scores of methods beside their predicted times, and which none beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from costmodel.case import Case
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.scores import by_source, score_range, scores_for
from costmodel.studies.plan_runs import requests_for, run_plan

__all__ = ["disagreement", "middle_pct", "score_fronts", "score_rows"]

BUDGETS = (192, 128, 64)
METHODS = (
    "tome", "prumerge", "visionzip", "divprune", "fastv", "pyramiddrop", "sparsevlm", "v2drop",
    "vscan",
)  # fmt: skip
"""Methods with published scores at these budgets."""


def score_rows(plain: Sequence[Case], model: str) -> list[dict[str, Any]]:
    """Return methods with published scores at budgets, and their predicted times.

    Parameters
    ----------
    plain : sequence of Case
        Without compression, one for each GPU.
    model : str
        Name of the model that was scored.

    Returns
    -------
    list of dict
        ``gpu``, ``method``, ``tokens``, time and band [ms], lowest and highest score over the
        sources in percent of the uncompressed model, ``sources``, and ``on_front``: no other
        row of the GPU is as fast and as good.
    """
    rows: list[dict[str, Any]] = []
    for budget, asked in requests_for(plain[0], BUDGETS, METHODS):
        name = asked.label.partition(":")[0]
        published = [row for row in scores_for(name, model, budget) if not row.variant]
        score = score_range(by_source(published))
        if budget is None or score is None:
            continue
        _, plan = replace(plain[0], request=asked).program()
        for case, done in zip(plain, run_plan(plain, plan), strict=True):
            rows.append(
                {
                    "gpu": case.gpu.name,
                    "method": name,
                    "tokens": budget,
                    "ttft_ms": 1e3 * done.ttft_s,
                    "ttft_any_low_ms": 1e3 * done.band_s[0],
                    "ttft_any_high_ms": 1e3 * done.band_s[1],
                    "score_low_pct": score.low_pct,
                    "score_high_pct": score.high_pct,
                    "sources": score.sources,
                }
            )
    for row in rows:
        row["on_front"] = not any(
            other["gpu"] == row["gpu"]
            and other["ttft_ms"] <= row["ttft_ms"]
            and middle_pct(other) >= middle_pct(row)
            and (other["ttft_ms"], -middle_pct(other)) != (row["ttft_ms"], -middle_pct(row))
            for other in rows
        )
    return rows


def middle_pct(row: dict[str, Any]) -> float:
    """Return the middle of the sources' scores of a row [%]."""
    return float(row["score_low_pct"] + row["score_high_pct"]) / 2


def disagreement(scored: list[dict[str, Any]]) -> str:
    """Return a sentence on how far sources differ; nothing where none can."""
    several = [row for row in scored if row["sources"] > 1]
    if not several:
        return ""
    worst = max(several, key=lambda row: row["score_high_pct"] - row["score_low_pct"])
    return (
        "Scores are other papers', in percent of the uncompressed model in the same source; where "
        f"several papers score the same setting, they differ by up to "
        f"{worst['score_high_pct'] - worst['score_low_pct']:.1f} points ({worst['method']} at "
        f"{worst['tokens']} tokens). "
    )


def score_fronts(scored: list[dict[str, Any]], gpus: Sequence[str]) -> Panels:
    """Return scores against times, a panel for each GPU, with the front as a line."""
    charts = []
    for gpu in gpus:
        own = [row for row in scored if row["gpu"] == gpu]
        front = sorted((row for row in own if row["on_front"]), key=lambda row: row["ttft_ms"])
        series = [
            Series.of(
                "front", [row["ttft_ms"] for row in front], [middle_pct(row) for row in front],
                reference=True,
            )
        ]  # fmt: skip
        for name in dict.fromkeys(row["method"] for row in own):
            mine = [row for row in own if row["method"] == name]
            series.append(
                Series.of(
                    name, [row["ttft_ms"] for row in mine], [middle_pct(row) for row in mine],
                    ([row["score_low_pct"] for row in mine],
                     [row["score_high_pct"] for row in mine]),
                    mode="markers",
                    hover=[f"{row['tokens']} tokens, {row['sources']} sources" for row in mine],
                )
            )  # fmt: skip
        charts.append(
            LineChart(gpu, Axis("time to the first token", "ms"),
                      Axis("published score, of the uncompressed", "%"), tuple(series))
        )  # fmt: skip
    return Panels("Published score against predicted time, 64 to 192 tokens", tuple(charts))
