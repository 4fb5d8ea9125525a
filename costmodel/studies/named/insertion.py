"""Where tokens are dropped: in the tower, after it, before the language model, or in layer K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, BarChart, HeatMap, Panels
from costmodel.conventions import LayerRun, load_convention
from costmodel.errors import InputError, SpecError
from costmodel.studies.prefill import Prefill, image_tokens, prefill, ttft_columns
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, percent, setting

__all__ = ["STUDY"]

LAYERS = (0, 1, 2, 3, 5, 8, 12, 16, 24)
RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)
TYPICAL = 1 / 9
FASTV_OTHERS = 36
"""Tokens of the prompt that are not visual in FastV's own count of FLOPs."""
SHOWN = ((2, 0.5), (2, 0.9), (8, 0.5), (16, 0.5))


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
) -> Finding:
    """Compare positions at one budget, and map savings over layer and share dropped."""
    given: dict[str, Any] = {"text_tokens": text_tokens, "runtime": runtime, "attention": "flash"}
    cases = [prepare(model, gpu, **given) for gpu in gpus]
    full = image_tokens(cases[0])
    kept = max(1, round(TYPICAL * full))
    places: list[dict[str, Any]] = []
    layers = [layer for layer in LAYERS if layer < cases[0].model.text.layers]
    over: list[dict[str, Any]] = []
    for case in cases:
        gpu, plain = case.gpu.name, prefill(case)
        for label, compress in _places(kept).items():
            row = _place(label, compress, model, gpu, given, plain)
            if row is not None:
                places.append(row)
        over += [
            row for layer in layers for row in _layer(case, plain, layer, full, model, given)
        ]  # fmt: skip
    return Finding(
        answer=_answer(places, over, gpus, kept, full),
        uncertainty=_UNCERTAINTY + evidence(cases),
        tables=(
            StudyTable.of(f"Positions, {kept} of {full} tokens at the end", places),
            StudyTable.of("Dropping before layer K of the language model (FastV)", over),
        ),
        pictures=(_bars(places, gpus), _maps(over, gpus, layers)),
        settings=setting(model, gpus, runtime, text_tokens=text_tokens, visual_tokens=full),
    )


_UNCERTAINTY = (
    "FastV is priced with the least work its ranking needs (one row of attention weights) and as "
    "its public code does it (the ranking layer runs twice, once with its attention in memory); "
    "which of both its published times are of is not known. Scores are not compared: dropping "
    "later keeps more. ToMe's attention in the tower is eager, as released. "
)


def _places(kept: int) -> dict[str, str]:
    return {
        "in the tower (ToMe)": f"tome:kept={kept}",
        "after the tower, by its attention (VisionZip)": f"visionzip:k={kept}",
        "after the tower (index)": f"spatial:k={kept},position=before_projector",
        "after the projector (index)": f"spatial:k={kept}",
        "layer 2, least work (FastV)": f"fastv:layer=2,k={kept},variant=last-row",
        "layer 2, public code (FastV)": f"fastv:layer=2,k={kept},variant=released",
        "layer 8, least work (FastV)": f"fastv:layer=8,k={kept},variant=last-row",
        "layer 16, least work (FastV)": f"fastv:layer=16,k={kept},variant=last-row",
    }


def _place(
    label: str, compress: str, model: str, gpu: str, given: dict[str, Any], plain: Prefill
) -> dict[str, Any] | None:
    try:
        found = prefill(prepare(model, gpu, compress=compress, **given))
    except (InputError, SpecError):
        # A tower that merges no tokens, or a projector that joins neighbours: no such position.
        return None
    own = found.gpu_s["compression"] + found.host_s["compression"]
    return {
        "gpu": gpu,
        "position": label,
        "flops_saved_pct": _saved(plain.flops["total"], found.flops["total"]),
        "kv_cache_saved_pct": _saved(plain.memory.kv_cache, found.memory.kv_cache),
        "ttft_saved_pct": _saved(plain.ttft_s, found.ttft_s),
        "tower_and_projector_ms": 1e3
        * float(found.gpu_s["vision_encoder"] + found.gpu_s["projector"]),
        "own_ms": 1e3 * float(own),
        "language_ms": 1e3 * float(found.language_s),
        **ttft_columns(found),
        "peak_memory_change_mb": float(found.memory.total - plain.memory.total) / 1e6,
    }


def _saved(before: Any, after: Any) -> float:
    return 100 * float(1 - np.asarray(after) / np.asarray(before))


def _layer(
    case: Case, plain: Prefill, layer: int, full: int, model: str, given: dict[str, Any]
) -> list[dict[str, Any]]:
    left = np.array([max(1, round((1 - ratio) * full)) for ratio in RATIOS], dtype=float)
    runs = {
        variant: prefill(
            prepare(
                model, case.gpu.name, compress=f"fastv:layer={layer},k=1,variant={variant}", **given
            ),
            vl_1=left,
        )
        for variant in ("last-row", "released")
    }
    text, count = case.model.text, load_convention("mac-2mlp")
    whole = count.flops(text, [LayerRun(text.layers, full + FASTV_OTHERS)])
    rows = []
    for i, (ratio, visual) in enumerate(zip(RATIOS, left, strict=True)):
        dropped = [
            LayerRun(layer, full + FASTV_OTHERS),
            LayerRun(text.layers - layer, visual + FASTV_OTHERS),
        ]
        row: dict[str, Any] = {
            "gpu": case.gpu.name,
            "layer": layer,
            "dropped_pct": 100 * ratio,
            "fastv_count_saved_pct": _saved(whole, count.flops(text, dropped)),
            "language_flops_saved_pct": _saved(
                plain.flops["llm_prefill"], runs["last-row"].flops["llm_prefill"][i]
            ),
        }
        for variant, name in (("last-row", "least_work"), ("released", "public_code")):
            row[f"{name}_ttft_saved_pct"] = _saved(plain.ttft_s, runs[variant].ttft_s[i])
        rows.append(row)
    return rows


def _answer(
    places: list[dict[str, Any]],
    over: list[dict[str, Any]],
    gpus: Sequence[str],
    kept: int,
    full: int,
) -> str:
    parts = [f"With {kept} of {full} tokens at the end, the time to the first token:"]
    for gpu in gpus:
        own = sorted((row for row in places if row["gpu"] == gpu), key=lambda r: r["ttft_ms"])
        parts.append(
            f"on {gpu} it falls most "
            f"{own[0]['position']} ({_percents(own[0]['ttft_saved_pct'])}), least "
            f"{own[-1]['position']} ({_percents(own[-1]['ttft_saved_pct'])}); "
            + listing(f"{row['position']} {_percents(row['ttft_saved_pct'])}" for row in own[1:-1])
            + " lie between;"
        )
    parts[-1] = f"{parts[-1][:-1]}."
    for layer, ratio in SHOWN:
        found = [
            row for row in over if (row["layer"], row["dropped_pct"]) == (layer, 100 * ratio)
        ]  # fmt: skip
        if found:
            parts.append(
                f"Dropping {percent(ratio)} before layer {layer} saves "
                f"{_percents(found[0]['fastv_count_saved_pct'])} of the FLOPs by FastV's count and "
                + listing(
                    f"{_percents(row['least_work_ttft_saved_pct'])} of the time on {row['gpu']} "
                    f"({_percents(row['public_code_ttft_saved_pct'])} by the public code)"
                    for row in found
                )
                + "."
            )
    lost = [row for row in over if row["public_code_ttft_saved_pct"] < 0]
    if lost:
        most = max(row["dropped_pct"] for row in lost)
        parts.append(
            f"The public code is slower than no compression in {len(lost)} of {len(over)} settings "
            f"tried, where at most {_percents(most)} are dropped."
        )
    return " ".join(parts)


def _percents(value: float) -> str:
    return percent(value / 100)


def _bars(places: list[dict[str, Any]], gpus: Sequence[str]) -> BarChart:
    labels = list(dict.fromkeys(row["position"] for row in places))
    by_place = {(row["gpu"], row["position"]): row for row in places}
    return BarChart(
        "Time to the first token saved, by position", Axis("saved", "%"), tuple(labels),
        {
            gpu: tuple(by_place[gpu, label]["ttft_saved_pct"] for label in labels)
            for gpu in gpus
        },
        stacked=False, horizontal=True,
    )  # fmt: skip


def _maps(over: list[dict[str, Any]], gpus: Sequence[str], layers: Sequence[int]) -> Panels:
    def values(gpu: str, column: str) -> tuple[tuple[float, ...], ...]:
        found = {(r["layer"], r["dropped_pct"]): r[column] for r in over if r["gpu"] == gpu}
        return tuple(
            tuple(round(found[layer, 100 * ratio], 1) for layer in layers) for ratio in RATIOS
        )

    def chart(title: str, gpu: str, column: str, level: float | None) -> HeatMap:
        return HeatMap(
            title, Axis("first layer with fewer tokens"), Axis("visual tokens dropped", "%"),
            Axis("saved", "%"), tuple(map(str, layers)),
            tuple(f"{100 * ratio:.0f}" for ratio in RATIOS), values(gpu, column), level=level,
        )  # fmt: skip

    charts = [
        chart("FLOPs, as FastV counts them", gpus[0], "fastv_count_saved_pct", None),
        chart("FLOPs of the language model, ours", gpus[0], "language_flops_saved_pct", None),
    ]
    for gpu in gpus:
        for column, name in (("least_work", "least work"), ("public_code", "public code")):
            charts.append(chart(f"time, {gpu}, {name}", gpu, f"{column}_ttft_saved_pct", 0.0))
    return Panels("What dropping tokens before layer K saves", tuple(charts))


STUDY = Study(
    title="Position of the compression",
    question=(
        "What does dropping tokens in the vision tower, after it, after the projector or before "
        "layer K of the language model save?"
    ),
    method=(
        "At one budget methods of every position are compared: FLOPs, KV cache and the time to the "
        "first token, own work included. For the language model savings are mapped over the "
        "layer K before which tokens are dropped and the share dropped, as FastV's figure of FLOPs "
        "does by its own count, beside ours and the time, for the least work a ranking needs and "
        "for the public code."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2403.06764", "https://arxiv.org/abs/2504.17892"),
)
