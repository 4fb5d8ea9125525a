"""What it costs to ask attention which visual tokens matter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Any

import numpy as np

from costmodel.case import prepare
from costmodel.charts import Axis, BarChart, LineChart, Panels, Series
from costmodel.scores import Score, published_scores
from costmodel.studies.prefill import Prefill, image_tokens, prefill, ttft_columns
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, number, percent, setting

__all__ = ["STUDY"]

SHARES = (1 / 3, 2 / 9, 1 / 9)
TYPICAL = 1 / 9
LAYERS = (2, 8, 16)
_LEAST_BENCHMARKS = 5
_HIDDEN = "layer 8"
"""Not drawn as a line: it lies between the others."""


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
) -> Finding:
    """Price every form of saliency in time and in tokens that random sampling could keep."""
    given: dict[str, Any] = {"text_tokens": text_tokens, "runtime": runtime, "attention": "flash"}
    rows: list[dict[str, Any]] = []
    curves: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
    cases = [prepare(model, gpu, **given) for gpu in gpus]
    layers = [layer for layer in LAYERS if layer <= cases[0].model.text.layers - 2]
    forms = _forms(layers)
    full = image_tokens(cases[0])
    budgets = [max(1, round(share * full)) for share in SHARES]
    for case in cases:
        gpu = case.gpu.name
        grid = np.arange(1, full + 1)
        random = prefill(prepare(model, gpu, compress="random:k=1", **given), k=grid.astype(float))
        curves[gpu] = (grid, random.ttft_s)
        plain = prefill(case)
        rows += [_row(gpu, "random", k, random, (k - 1,), curves[gpu], plain) for k in budgets]
        for label, text in forms.items():
            found = prefill(
                prepare(model, gpu, compress=f"{text},k=1", **given),
                k=np.array(budgets, dtype=float),
            )
            rows += [
                _row(gpu, label, k, found, (i,), curves[gpu], plain) for i, k in enumerate(budgets)
            ]
    gains = _worth(model)
    rows = [{**row, **_must_win(row, gains)} for row in rows]
    typical = max(1, round(TYPICAL * full))
    return Finding(
        answer=_answer(rows, gpus, typical, full),
        uncertainty=_UNCERTAINTY + evidence(cases),
        tables=(
            StudyTable.of("Saliency against random sampling of as many tokens", rows),
            StudyTable.of("Published scores by tokens: what more tokens win", gains),
        ),
        pictures=(_bars(rows, gpus, typical), _equal_time(rows, gpus)),
        settings=setting(model, gpus, runtime, text_tokens=text_tokens, visual_tokens=full),
    )


_UNCERTAINTY = (
    "The paper's exact score is not public: three forms are priced. Kernels that rank and take "
    "tokens (top-k, softmax, sums) were measured on no GPU and stand in from others like them. "
    "Token counts of equal time use predicted times, which step with waves of tiles. Published "
    "scores by token count are those of trained or training-free methods, not of random sampling "
    "itself, and range widely between methods and papers (in brackets, least to most). "
)


def _forms(layers: Sequence[int]) -> dict[str, str]:
    found = {
        "embeddings, before the LLM": "saliency:variant=embedding",
        "queries and keys of a layer, before the LLM": "saliency:variant=projected",
    }
    for then in ("continue", "restart"):
        for layer in layers:
            label = f"attention of layer {layer}, {then}"
            found[label] = f"saliency:variant=layer,layer={layer},then={then}"
    return found


def _row(
    gpu: str,
    form: str,
    kept: int,
    found: Prefill,
    index: tuple[int, ...],
    random: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    plain: Prefill,
) -> dict[str, Any]:
    grid, random_s = random
    ttft = float(found.ttft_s[index])
    affordable = grid[random_s <= ttft * (1 + 1e-9)]
    return {
        "gpu": gpu,
        "saliency": form,
        "kept_tokens": kept,
        **ttft_columns(found, index),
        "more_than_random_ms": 1e3 * (ttft - float(random_s[kept - 1])),
        "more_than_random_pct": 100 * (ttft / float(random_s[kept - 1]) - 1),
        "random_tokens_in_that_time": int(affordable[-1]),
        "peak_memory_gb": float(np.broadcast_to(found.memory.total, found.ttft_s.shape)[index])
        / 1e9,
        "ttft_ratio": float(plain.ttft_s) / ttft,
    }


def _worth(model: str) -> list[dict[str, Any]]:
    """What more tokens win by published scores, for methods at several budgets of one source."""
    groups: dict[tuple[str, str], dict[int, list[Score]]] = {}
    for score in published_scores():
        if score.model == model and score.tokens and not score.variant and not score.is_average:
            key = (score.label, score.published_method)
            groups.setdefault(key, {}).setdefault(score.tokens, []).append(score)
    rows: list[dict[str, Any]] = []
    for (label, method), by_tokens in groups.items():
        for low, high in combinations(sorted(by_tokens), 2):
            few = {s.benchmark: s.relative_pct for s in by_tokens[low]}
            many = {s.benchmark: s.relative_pct for s in by_tokens[high]}
            both = [
                (x, y) for name in few.keys() & many.keys()
                if (x := few[name]) is not None and (y := many[name]) is not None
            ]  # fmt: skip
            if len(both) >= _LEAST_BENCHMARKS:
                rows.append(
                    {
                        "source": label,
                        "method": method,
                        "from_tokens": low,
                        "to_tokens": high,
                        "benchmarks": len(both),
                        "gain_points": fmean(y for _, y in both) - fmean(x for x, _ in both),
                    }
                )
    return rows


def _must_win(row: dict[str, Any], gains: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the tokens that random sampling could keep beyond are worth, where published."""
    usable = [
        gain for gain in gains
        if gain["from_tokens"] == row["kept_tokens"]
        and gain["to_tokens"] <= row["random_tokens_in_that_time"]
    ]  # fmt: skip
    most = max((gain["to_tokens"] for gain in usable), default=None)
    found = [gain["gain_points"] for gain in usable if gain["to_tokens"] == most]
    return {
        "published_up_to_tokens": most,
        "must_win_points": median(found) if found else None,
        "must_win_low_points": min(found, default=None),
        "must_win_high_points": max(found, default=None),
    }


def _answer(rows: list[dict[str, Any]], gpus: Sequence[str], typical: int, full: int) -> str:
    parts = [f"Keeping {typical} of {full} tokens, beyond what random sampling takes:"]
    for gpu in gpus:
        own = [row for row in rows if row["gpu"] == gpu and row["kept_tokens"] == typical]
        groups = [
            f"{text} {_cost([row for row in own if key in row['saliency']])}"
            for key, text in _GROUPS.items()
        ]
        parts.append(f"on {gpu} {listing(groups)};")
    parts[-1] = parts[-1][:-1] + "."
    chosen = [row for row in rows if row["kept_tokens"] == typical]
    for key, text in _GROUPS.items():
        own = [row for row in chosen if key in row["saliency"]]
        parts.append(
            f"In the time of {text} random sampling could keep {_tokens(own)} tokens{_wins(own)}"
        )
    return " ".join(parts)


_GROUPS = {
    "before": "a score before the language model",
    "continue": "the attention of a layer, going on after it,",
    "restart": "the attention of a layer, starting again,",
}


def _cost(rows: list[dict[str, Any]]) -> str:
    found = sorted(row["more_than_random_ms"] for row in rows)
    shares = sorted(row["more_than_random_pct"] / 100 for row in rows)
    return (
        f"{found[0]:.2f} to {found[-1]:.2f} ms ({percent(shares[0])} to {percent(shares[-1])} of "
        "the whole)"
    )


def _tokens(rows: list[dict[str, Any]]) -> str:
    found = sorted(row["random_tokens_in_that_time"] for row in rows)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _wins(rows: list[dict[str, Any]]) -> str:
    """Say what published scores hold against a form, where they reach."""
    told = [row for row in rows if row["must_win_points"] is not None]
    kept = rows[0]["kept_tokens"]
    if not told:
        return (
            f": it need only score more than random sampling at {kept} tokens, by less than any "
            "published step between budgets."
        )
    steps = sorted({row["published_up_to_tokens"]: row for row in told}.items())
    worth = listing(
        f"{number(row['must_win_points'])} points ({number(row['must_win_low_points'])} to "
        f"{number(row['must_win_high_points'])}) from {kept} to {most} tokens"
        for most, row in steps
    )
    beyond = any(row["random_tokens_in_that_time"] > row["published_up_to_tokens"] for row in told)
    least = "at least that much" if beyond else "that much"
    return (
        f": by published scores methods win {worth}, and {least} the saliency must score more than "
        "random sampling of as many tokens."
    )


def _bars(rows: list[dict[str, Any]], gpus: Sequence[str], typical: int) -> BarChart:
    forms = [form for form in dict.fromkeys(row["saliency"] for row in rows) if form != "random"]
    own = {
        (row["gpu"], row["saliency"]): row for row in rows if row["kept_tokens"] == typical
    }  # fmt: skip
    return BarChart(
        f"Time beyond random sampling, {typical} tokens kept",
        Axis("time beyond random sampling", "ms"), tuple(forms),
        {gpu: tuple(own[gpu, form]["more_than_random_ms"] for form in forms) for gpu in gpus},
        stacked=False, horizontal=True,
    )  # fmt: skip


def _equal_time(rows: list[dict[str, Any]], gpus: Sequence[str]) -> Panels:
    charts = []
    for gpu in gpus:
        own = [
            row for row in rows
            if row["gpu"] == gpu and row["saliency"] != "random" and _HIDDEN not in row["saliency"]
        ]  # fmt: skip
        ends = sorted({row["kept_tokens"] for row in own})
        series = [
            Series.of(
                form,
                [row["kept_tokens"] for row in own if row["saliency"] == form],
                [row["random_tokens_in_that_time"] for row in own if row["saliency"] == form],
                mode="lines+markers",
                hover=[f"{row['ttft_ms']:.1f} ms" for row in own if row["saliency"] == form],
            )
            for form in dict.fromkeys(row["saliency"] for row in own)
        ]
        series.append(
            Series.of("as many", (ends[0], ends[-1]), (ends[0], ends[-1]), reference=True)
        )
        charts.append(
            LineChart(gpu, Axis("tokens kept by saliency"),
                      Axis("tokens random sampling keeps in that time"), tuple(series))
        )  # fmt: skip
    return Panels("What random sampling could keep in the same time", tuple(charts))


STUDY = Study(
    title="The price of saliency",
    question=(
        "How much more than random sampling does a saliency cost, and what must it win back in "
        "score?"
    ),
    method=(
        "Cross-modal saliency is priced in three forms: text against visual embeddings before the "
        "language model, queries and keys of one layer computed for that alone, and the attention "
        "of a layer of the language model, which then goes on with fewer tokens or starts again. "
        "Random sampling of as many tokens is taken off; and the most tokens that random sampling "
        "could keep in the same time are looked up, which is what the saliency must beat. What so "
        "many tokens are worth is read off published scores of methods at several token counts."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2504.17892",),
)
