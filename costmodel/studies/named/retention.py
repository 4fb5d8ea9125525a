"""What is saved at each share of visual tokens kept, and what scores were published there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.conventions import load_convention, uniform
from costmodel.conventions.viewer import ViewerConvention
from costmodel.conventions.viewer_hardware import viewer_device_of
from costmodel.studies.prefill import Prefill, image_tokens, prefill, ttft_columns
from costmodel.studies.score_fronts import (
    disagreement,
    middle_pct,
    score_fronts,
    score_rows,
)
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, number, setting, span, times
from costmodel.training.overheads import energy_kwh

__all__ = ["STUDY"]

SHARES = (1.0, 0.5, 1 / 3, 0.3, 0.25, 0.2, 0.11, 0.1, 0.05)
TENTH, PAPER = 0.1, 0.11
FIGURE_TEXT = 40
"""Text tokens beside the image in LLM-Viewer's estimate; the paper states none."""
_J_PER_KWH = 3.6e6


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
) -> Finding:
    """Compute what each retention saves, LLM-Viewer's savings at a tenth, and a front."""
    given: dict[str, Any] = {"text_tokens": text_tokens, "runtime": runtime, "attention": "flash"}
    plain = [prepare(model, gpu, **given) for gpu in gpus]
    full = image_tokens(plain[0])
    kept = np.array([max(1, round(share * full)) for share in SHARES])
    found = {
        gpu: prefill(prepare(model, gpu, compress="spatial:k=1", **given), k=kept.astype(float))
        for gpu in gpus
    }
    rows = [row for case in plain for row in _rows(case, found[case.gpu.name], kept, full)]
    tenth = [row for case in plain for row in _tenth(case, model, full, runtime)]
    scored = score_rows(plain, model)
    pictures = [_curves(rows, gpus)]
    if scored:
        pictures.append(score_fronts(scored, gpus))
    return Finding(
        answer=_answer(rows, tenth, scored, gpus, full),
        uncertainty=_UNCERTAINTY + disagreement(scored) + evidence(plain),
        tables=(
            StudyTable.of("Retention, tokens taken by index", rows),
            StudyTable.of(
                f"Language model at {TENTH:.0%} retention, {FIGURE_TEXT} text tokens", tenth
            ),
            StudyTable.of("Published scores and predicted time", scored),
        ),
        pictures=tuple(pictures),
        settings=setting(model, gpus, runtime, text_tokens=text_tokens, visual_tokens=full),
    )


_UNCERTAINTY = (
    "Tokens are taken by index, so that a method's own cost comes on top (see clustering-overhead "
    "and same-budget comparisons). The energy is a proxy: time to the first token times a constant "
    "share of the card's design power and the computer centre's overhead, as LLaMA's report counts "
    "it; power in memory-bound phases was not measured, so its ratios are those of time. The "
    "settings of the paper's figure are not published, and its retention table of scores was not "
    "recovered, so that the front has other methods. "
)


def _rows(case: Case, found: Prefill, kept: Any, full: int) -> list[dict[str, Any]]:
    base = _point(case, prefill(case), ())
    rows = []
    for i, k in enumerate(kept):
        row = base if k == full else _point(case, found, (i,))
        rows.append(
            {
                "gpu": case.gpu.name,
                "retention_pct": 100 * float(k) / full,
                "kept_tokens": int(k),
                **row,
                **{
                    f"{name}_ratio": base[f"{name}_{unit}"] / row[f"{name}_{unit}"]
                    for name, unit in _QUANTITIES.items()
                },
            }
        )
    return rows


_QUANTITIES = {
    "flops": "tflop", "bytes_moved": "gb", "kv_cache": "mb", "ttft": "ms", "energy": "j",
}  # fmt: skip


def _point(case: Case, found: Prefill, index: tuple[int, ...]) -> dict[str, Any]:
    ttft = float(found.ttft_s[index])
    cache = np.broadcast_to(found.memory.kv_cache, found.evaluation.points)
    return {
        "flops_tflop": float(found.flops["total"][index]) / 1e12,
        "bytes_moved_gb": float(found.bytes_moved["total"][index]) / 1e9,
        "kv_cache_mb": float(cache[index]) / 1e6,
        **ttft_columns(found, index),
        "energy_j": energy_kwh(ttft / 3600, case.gpu.tdp.si) * _J_PER_KWH,
    }


def _tenth(case: Case, model: str, full: int, runtime: str) -> list[dict[str, Any]]:
    """LLM-Viewer's numbers of full and a tenth of the tokens, and ours of the same prompts."""
    text, gpu = case.model.text, case.gpu.name
    viewer = load_convention("llm-viewer")
    known = viewer_device_of(gpu)
    counts = (full, max(1, round(TENTH * full)))
    ours = prefill(
        prepare(model, gpu, text_tokens=FIGURE_TEXT, runtime=runtime, attention="flash"),
        visual_tokens=np.array(counts, dtype=float),
    )
    language = ours.flops["llm_prefill"] + ours.flops["lm_head"]
    moved = ours.bytes_moved["llm_prefill"] + ours.bytes_moved["lm_head"]
    low, high = ours.stage_band("llm_prefill")
    rows: list[dict[str, Any]] = []
    for i, visual in enumerate(counts):
        report = None
        if isinstance(viewer, ViewerConvention):
            report = viewer.report(
                text, uniform(text, visual + FIGURE_TEXT), device=known[1] if known else None
            )
        rows.append(
            {
                "gpu": gpu,
                "visual_tokens": visual,
                "viewer_tflop": report.flops / 1e12 if report else None,
                "viewer_moved_gb": report.bytes_moved / 1e9 if report else None,
                "viewer_ms": 1e3 * report.time_s if report and report.time_s else None,
                "ours_tflop": float(language[i]) / 1e12,
                "ours_moved_gb": float(moved[i]) / 1e9,
                "ours_ms": 1e3 * float(ours.language_s[i]),
                "ours_llm_low_ms": 1e3 * float(low[i]),
                "ours_llm_high_ms": 1e3 * float(high[i]),
                "ours_ttft_ms": 1e3 * float(ours.ttft_s[i]),
            }
        )
    return rows


def _answer(
    rows: list[dict[str, Any]],
    tenth: list[dict[str, Any]],
    scored: list[dict[str, Any]],
    gpus: Sequence[str],
    full: int,
) -> str:
    paper = [row for row in rows if row["kept_tokens"] == max(1, round(PAPER * full))]
    parts = [
        f"Keeping {PAPER:.0%} of the visual tokens divides FLOPs by "
        f"{number(paper[0]['flops_ratio'])} and the time to the first token by "
        f"{span(row['ttft_ratio'] for row in paper)}."
    ]
    for share in (0.3, 0.2, 0.11, 0.05):
        own = [row for row in rows if row["kept_tokens"] == max(1, round(share * full))]
        first = own[0]
        parts.append(
            f"At {share:.0%} ({first['kept_tokens']} of {full} tokens) FLOPs fall "
            f"{times(first['flops_ratio'])}, bytes moved {times(first['bytes_moved_ratio'])}, the "
            f"KV cache {times(first['kv_cache_ratio'])}, and the time to the first token "
            + listing(
                f"{times(row['ttft_ratio'])} on {row['gpu']}{_band(row, share)}" for row in own
            )
            + "."
        )
    for gpu in gpus:
        before, after = (row for row in tenth if row["gpu"] == gpu)
        theirs = (
            f"{times(before['viewer_tflop'] / after['viewer_tflop'])} fewer operations"
            + (f" and {times(before['viewer_ms'] / after['viewer_ms'])} less time"
               if before["viewer_ms"] else "")
        )  # fmt: skip
        parts.append(
            f"At {TENTH:.0%} LLM-Viewer's count gives the language model on {gpu} {theirs}; the "
            f"calibrated model {times(before['ours_ms'] / after['ours_ms'])} less, and the whole "
            f"time to the first token {times(before['ours_ttft_ms'] / after['ours_ttft_ms'])} less."
        )
    for gpu in gpus:
        front = sorted((r for r in scored if r["gpu"] == gpu and r["on_front"]),
                       key=lambda r: -r["ttft_ms"])  # fmt: skip
        if front:
            parts.append(
                f"No method with published scores is both faster and better on {gpu} than "
                + listing(
                    f"{r['method']} at {r['tokens']} ({r['ttft_ms']:.1f} ms, "
                    f"{number(middle_pct(r))} % of the score)" for r in front
                ) + "."
            )  # fmt: skip
    return " ".join(parts)


def _band(row: dict[str, Any], share: float) -> str:
    """Print the time and its bands once, at the paper's retention."""
    if share != PAPER:
        return ""
    return (
        f" ({row['ttft_ms']:.1f} ms, {row['ttft_any_low_ms']:.1f} to {row['ttft_any_high_ms']:.1f} "
        f"for any software, {row['ttft_same_low_ms']:.1f} to {row['ttft_same_high_ms']:.1f} for "
        "that of the calibration)"
    )


def _curves(rows: list[dict[str, Any]], gpus: Sequence[str]) -> Panels:
    names = {"flops": "FLOPs", "bytes_moved": "bytes moved", "kv_cache": "KV cache",
             "ttft": "time to the first token"}  # fmt: skip
    charts = []
    for gpu in gpus:
        own = sorted((row for row in rows if row["gpu"] == gpu), key=lambda r: r["kept_tokens"])
        x = [row["retention_pct"] for row in own]
        series = [
            Series.of(
                name, x, [100 / row[f"{key}_ratio"] for row in own], mode="lines+markers",
                hover=[f"{row['kept_tokens']} tokens" for row in own],
            )
            for key, name in names.items()
        ]  # fmt: skip
        series.append(Series.of("as the tokens", (0, 100), (0, 100), reference=True))
        charts.append(
            LineChart(gpu, Axis("visual tokens kept", "%", limits=(0, 100)),
                      Axis("left of the cost without compression", "%", limits=(0, 104)),
                      tuple(series))
        )  # fmt: skip
    return Panels("What is left at each retention", tuple(charts))


STUDY = Study(
    title="Retention: what each share of tokens saves",
    question=(
        "What does keeping 5 to 50 % of the visual tokens save in FLOPs, bytes, KV cache, time and "
        "energy?"
    ),
    method=(
        "Tokens are taken by index at every retention, and FLOPs, bytes moved, KV cache, time to "
        "the first token with its bands and an energy proxy stand beside those of all tokens. For "
        "a tenth of the tokens LLM-Viewer's own count and roofline time of the language model "
        "(what the first paper's Figure 2 was made with) stand beside the calibrated ones. "
        "Methods whose scores at 64, 128 and 192 tokens were published are placed by their "
        "predicted time, own overhead included, and by the score, to find the front."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2504.17892", "https://github.com/hahnyuan/LLM-Viewer"),
)
