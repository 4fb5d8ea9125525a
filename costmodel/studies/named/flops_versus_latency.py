"""Why latency falls less than FLOPs, and from where on it does not fall at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.catalog.hardware import load_host
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.specs.workload import DTYPE_BYTES
from costmodel.studies.prefill import Prefill, image_tokens, prefill
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, percent, setting, times
from costmodel.timing.device import resolve_device

__all__ = ["STUDY"]

PROMPTS = np.unique(np.geomspace(1, 2048, 160).round())
BATCHES = (1, 4, 16)
WORTH = 0.1
"""Share of the time to the first token that halving the visual tokens must save."""
SHARES = (1.0, 0.5, 1 / 3, 2 / 9, 1 / 9, 1 / 18)
TYPICAL = 1 / 9


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "a100-40gb-sxm", "rtx-a6000", "v100-sxm"),
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
) -> Finding:
    """Find knee, floor and the tokens below which compression stops paying."""
    given: dict[str, Any] = {"runtime": runtime, "attention": "flash"}
    knees: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    times_charts, ratio_charts, cases = [], [], []
    for gpu in gpus:
        case = prepare(model, gpu, text_tokens=text_tokens, **given)
        full = image_tokens(case)
        cases.append(case)
        alone = prefill(
            prepare(model, gpu, text_tokens=1, visual_tokens=0, **given), text_tokens=PROMPTS
        )
        knees.append(_knee(case, alone))
        ends += [_stops(case, full, batch) for batch in BATCHES]
        ratios += [row for batch in BATCHES for row in _ratios(case, full, batch)]
        ideal = prefill(
            prepare(model, gpu, text_tokens=1, visual_tokens=0, time_model="ideal", **given),
            text_tokens=PROMPTS,
        )
        times_charts.append(_times(case, alone, ideal, knees[-1]))
        ratio_charts.append(_speed_ups(gpu, [row for row in ratios if row["gpu"] == gpu]))
    return Finding(
        answer=_answer(knees, ends, ratios, full),
        uncertainty=_UNCERTAINTY + evidence(cases),
        tables=(
            StudyTable.of("Knee and floor of the language model", knees),
            StudyTable.of(
                "Visual tokens from which halving them saves at least 10 % of TTFT", ends
            ),
            StudyTable.of("FLOPs against time", ratios),
        ),
        pictures=(
            Panels("Language model and head: prefill of one request", tuple(times_charts)),
            Panels("Speed-up against the ratio of FLOPs", tuple(ratio_charts)),
        ),
        settings=setting(model, gpus, runtime, text_tokens=text_tokens, visual_tokens=full),
    )


_UNCERTAINTY = (
    "The knee is that of the datasheet, for linear layers alone and without the bytes of "
    "activations; kernels reach neither roof, and the tokens at which the calibrated time leaves "
    "its floor stand beside it. Times between powers of two tokens step with waves of tiles, so "
    "that a threshold may move by some dozens of tokens. "
)  # fmt: skip


def _knee(case: Case, alone: Prefill) -> dict[str, Any]:
    device = resolve_device(case.gpu, load_host(), case.deployment)
    weights = alone.evaluation.traffic["weights"] * alone.evaluation.repeat
    read = float(weights.sum(axis=0)[0])
    bandwidth, peak = device.bandwidth_bytes_per_s, device.linear_flops_per_s
    per_weight = DTYPE_BYTES[case.deployment.weights_dtype]
    least = float(alone.language_s[PROMPTS <= 16].min())
    return {
        "gpu": case.gpu.name,
        "time_model": case.time_model,
        "peak_tflop_per_s": peak / 1e12,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "knee_tokens": peak * per_weight / (2 * bandwidth),
        "weights_read_gb": read / 1e9,
        "weight_read_floor_ms": 1e3 * read / bandwidth,
        "least_language_ms": 1e3 * least,
        "prompt_10_pct_above_least_tokens": _first(PROMPTS, alone.language_s >= 1.1 * least),
        "prompt_twice_the_least_tokens": _first(PROMPTS, alone.language_s >= 2 * least),
    }


def _stops(case: Case, full: int, batch: int) -> dict[str, Any]:
    visual = np.arange(0, full + 1)
    found = prefill(case, visual_tokens=visual.astype(float), batch=float(batch))
    even = visual[2::2]
    gain = 1 - found.ttft_s[even // 2] / found.ttft_s[even]
    return {
        "gpu": case.gpu.name,
        "batch": batch,
        "text_tokens": case.workload.text_tokens,
        "halving_pays_from_visual_tokens": _first(even, gain >= WORTH),
        "halving_surely_pays_from_visual_tokens": _after_last(even, gain < WORTH),
        "halving_all_saves_pct": 100 * float(gain[-1]),
        "dropping_all_saves_pct": 100 * float(1 - found.ttft_s[0] / found.ttft_s[-1]),
        "ttft_ms": 1e3 * float(found.ttft_s[-1]),
    }


def _after_last(values: Any, holds: Any) -> int | None:
    """Return the value after the last one at which a condition holds; None if that is the end."""
    where = np.flatnonzero(holds)
    index = int(where[-1]) + 1 if len(where) else 0
    return int(values[index]) if index < len(values) else None


def _first(values: Any, holds: Any) -> int | None:
    """Return the first value at which a condition holds; None if at none."""
    where = np.flatnonzero(holds)
    return int(values[where[0]]) if len(where) else None


def _ratios(case: Case, full: int, batch: int) -> list[dict[str, Any]]:
    kept = np.unique([max(1, round(share * full)) for share in SHARES])[::-1]
    found = prefill(case, visual_tokens=kept.astype(float), batch=float(batch))
    language = found.flops["llm_prefill"] + found.flops["lm_head"]
    return [
        {
            "gpu": case.gpu.name,
            "batch": batch,
            "kept_tokens": int(k),
            "language_flops_ratio": float(language[0] / language[i]),
            "language_ms": 1e3 * float(found.language_s[i]),
            "language_ratio": float(found.language_s[0] / found.language_s[i]),
            "flops_ratio": float(found.flops["total"][0] / found.flops["total"][i]),
            "ttft_ms": 1e3 * float(found.ttft_s[i]),
            "ttft_ratio": float(found.ttft_s[0] / found.ttft_s[i]),
        }
        for i, k in enumerate(kept)
    ]


def _answer(
    knees: list[dict[str, Any]],
    ends: list[dict[str, Any]],
    ratios: list[dict[str, Any]],
    full: int,
) -> str:
    typical = max(1, round(TYPICAL * full))
    knee = listing(f"{row['knee_tokens']:.0f} on {row['gpu']}" for row in knees)
    floor = listing(f"{row['weight_read_floor_ms']:.1f} ms on {row['gpu']}" for row in knees)
    parts = [
        "Below the knee of the roofline a linear layer takes the time to read its weights however "
        f"few tokens there are. The knee, in tokens of all requests together, is {knee}; the floor "
        f"is {floor}."
    ]
    chosen = [row for row in ratios if row["kept_tokens"] == typical]
    for batch in (BATCHES[0], BATCHES[-1]):
        own = [row for row in chosen if row["batch"] == batch]
        gained = [row["language_ratio"] / row["language_flops_ratio"] for row in own]
        parts.append(
            f"At batch {batch}, {typical} of {full} visual tokens leave the language model "
            f"{times(own[0]['language_flops_ratio'])} fewer FLOPs and make it "
            + listing(f"{times(row['language_ratio'])} as fast on {row['gpu']}" for row in own)
            + f" ({percent(min(gained))} to {percent(max(gained))} of what FLOPs promise)."
        )
    for batch in (BATCHES[0], BATCHES[-1]):
        own = [row for row in ends if row["batch"] == batch]
        parts.append(
            f"At batch {batch}, halving the visual tokens saves at least {percent(WORTH)} of the "
            "time to the first token from "
            + listing(f"{_halving(row)} on {row['gpu']}" for row in own)
            + f" tokens on; below that a prompt with {own[0]['text_tokens']} text tokens gains "
            "less, whatever its FLOPs."
        )
    return " ".join(parts)


def _halving(row: dict[str, Any]) -> str:
    first = row["halving_pays_from_visual_tokens"]
    sure = row["halving_surely_pays_from_visual_tokens"]
    if first is None or sure is None:
        return "no number tried" if first is None else f"{first} or more"
    return f"{first}" if first == sure else f"{first} to {sure}"


def _times(case: Case, alone: Prefill, ideal: Prefill, knee: dict[str, Any]) -> LineChart:
    low, high = alone.stage_band("llm_prefill")
    head = alone.gpu_s["lm_head"]
    ends = (float(PROMPTS[0]), float(PROMPTS[-1]))
    floor = knee["weight_read_floor_ms"]
    series = [
        Series.of(
            f"{case.time_model} model" if case.time_model == "calibrated" else "datasheet roofline",
            PROMPTS, 1e3 * alone.language_s,
            (1e3 * (low + head), 1e3 * (high + head)) if case.time_model == "calibrated" else None,
            hover=[f"{n:.0f} prompt tokens" for n in PROMPTS],
        )
    ]  # fmt: skip
    if case.time_model == "calibrated":
        series.append(Series.of("datasheet roofline", PROMPTS, 1e3 * ideal.language_s))
    series.append(Series.of("weights read once", ends, (floor, floor), reference=True))
    at = float(knee["knee_tokens"])
    series.append(Series.of("knee", (at, at), (floor / 2, 40 * floor), reference=True))
    return LineChart(
        case.gpu.name, Axis("prompt tokens", log=True), Axis("time", "ms", log=True), tuple(series)
    )


def _speed_ups(gpu: str, rows: list[dict[str, Any]]) -> LineChart:
    series = []
    for batch in BATCHES:
        own = [row for row in rows if row["batch"] == batch]
        series.append(
            Series.of(
                f"language model, batch {batch}",
                [row["language_flops_ratio"] for row in own],
                [row["language_ratio"] for row in own],
                mode="lines+markers",
                hover=[f"{row['kept_tokens']} tokens, {row['language_ms']:.1f} ms" for row in own],
            )
        )
    return LineChart(
        gpu, Axis("FLOPs without over with compression"), Axis("time without over with"),
        tuple(series), diagonal=True,
    )  # fmt: skip


STUDY = Study(
    title="FLOPs against latency: the weight-read floor",
    question=(
        "Why does prefill get less faster than its FLOPs fall, and below how many tokens does "
        "compression stop paying?"
    ),
    method=(
        "A linear layer of n tokens does 2n FLOP for every weight it reads, so that it is bound by "
        "reading weights below n = peak x bytes per weight / (2 x bandwidth): the knee of the "
        "roofline. Beside it stand the calibrated time of language model and head over the prompt "
        "length, the speed-up against the ratio of FLOPs at several batches, and the visual tokens "
        "below which halving them would save less than a tenth of the time to the first token (a "
        "range where waves of tiles make it cross that more than once)."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2504.17892", "https://doi.org/10.1145/1498765.1498785"),
)
