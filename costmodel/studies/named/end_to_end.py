"""What fewer tokens save once the vision side is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, BarChart, LineChart, Panels, Series
from costmodel.results import STAGES
from costmodel.studies.prefill import Prefill, image_tokens, prefill, ttft_columns
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, percent, setting, span, times

__all__ = ["STUDY"]

SHARES = (1.0, 0.5, 1 / 3, 2 / 9, 1 / 9, 1 / 18)
"""Of 576 tokens: 288, 192, 128, 64, 32."""
TYPICAL = 1 / 9
CLUSTERING = "cluster:k={k},impl=fused"
_NAMES = {
    "vision_encoder": "vision tower",
    "projector": "projector",
    "compression": "compression",
    "llm_prefill": "language model",
    "lm_head": "head",
}


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
) -> Finding:
    """Take the time to the first token apart at every number of tokens."""
    given: dict[str, Any] = {"text_tokens": text_tokens, "runtime": runtime, "attention": "flash"}
    cases = {gpu: prepare(model, gpu, compress="spatial:k=1", **given) for gpu in gpus}
    first = cases[gpus[0]]
    images = sum(group.units for group in first.images)
    full = image_tokens(first)
    kept = np.unique([max(1, round(share * full)) for share in SHARES])[::-1]
    typical = max(1, round(TYPICAL * full))
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[Series]] = {}
    for gpu, case in cases.items():
        plain = prefill(prepare(model, gpu, **given))
        index = prefill(case, k=kept.astype(float))
        clustered = prefill(
            prepare(model, gpu, compress=CLUSTERING.format(k=typical), **given), k=float(typical)
        )
        rows.append(_row(gpu, "none", full, plain, plain))
        rows += [
            _row(gpu, "spatial", int(k), index, plain, (i,)) for i, k in enumerate(kept) if k < full
        ]
        rows.append(_row(gpu, "cluster (fused)", typical, clustered, plain))
        curves[gpu] = _curves(case, plain, full)
    return Finding(
        answer=_answer(rows, gpus, typical, full),
        uncertainty=_UNCERTAINTY + evidence(cases.values()),
        tables=(StudyTable.of("Time to the first token by stage", rows),),
        pictures=(_bars(rows, gpus), _panels(curves)),
        settings=setting(
            model, gpus, runtime, text_tokens=text_tokens, images=images, visual_tokens=full
        ),
    )


_UNCERTAINTY = (
    "Image decoding and resizing, tokenising, queueing and sampling are outside: they would make "
    "the fixed share larger. Bands are of each time alone; no band of a ratio was fitted, but both "
    "times of a ratio rest on the same kernels, whose common errors cancel in part. "
)


def _row(
    gpu: str, method: str, kept: int, found: Prefill, plain: Prefill, index: tuple[int, ...] = ()
) -> dict[str, Any]:
    parts = {stage: float(found.gpu_s[stage][index]) for stage in STAGES}
    times_ms = ttft_columns(found, index)
    vision = parts["vision_encoder"] + parts["projector"]
    language = parts["llm_prefill"] + parts["lm_head"]
    return {
        "gpu": gpu,
        "method": method,
        "kept_tokens": kept,
        **{f"{stage}_ms": 1e3 * parts[stage] for stage in STAGES},
        "host_ms": 1e3 * float(sum(host[index] for host in found.host_s.values())),
        **times_ms,
        "vision_share_pct": 1e5 * vision / times_ms["ttft_ms"],
        "flops_ratio": float(plain.flops["total"] / found.flops["total"][index]),
        "language_ratio": float(plain.language_s) / language,
        "ttft_ratio": 1e3 * float(plain.ttft_s) / times_ms["ttft_ms"],
    }


def _answer(rows: list[dict[str, Any]], gpus: Sequence[str], typical: int, full: int) -> str:
    chosen = [r for r in rows if (r["method"], r["kept_tokens"]) == ("spatial", typical)]
    language, whole, flops = (
        [row[name] for row in chosen] for name in ("language_ratio", "ttft_ratio", "flops_ratio")
    )
    parts = [
        f"Keeping {typical} of {full} visual tokens divides FLOPs by {span(flops)}, the language "
        f"model's time by {span(language)} and the time to the first token by {span(whole)}."
    ]
    for gpu in gpus:
        own = {(row["method"], row["kept_tokens"]): row for row in rows if row["gpu"] == gpu}
        plain, free = own["none", full], own["spatial", typical]
        made = own["cluster (fused)", typical]
        parts.append(
            f"On {gpu}, {typical} of {full} tokens make the language model "
            f"{times(free['language_ratio'])} as fast; the time to the first token goes from "
            f"{plain['ttft_ms']:.1f} to {free['ttft_ms']:.1f} ms "
            f"({free['ttft_any_low_ms']:.1f} to {free['ttft_any_high_ms']:.1f} for any software, "
            f"{free['ttft_same_low_ms']:.1f} to {free['ttft_same_high_ms']:.1f} for that of the "
            f"calibration), {times(free['ttft_ratio'])}, where FLOPs promise "
            f"{times(free['flops_ratio'])}: tower and projector stay, and their share goes from "
            f"{percent(plain['vision_share_pct'] / 100)} to "
            f"{percent(free['vision_share_pct'] / 100)}. With clustering (fused) in place of "
            f"picking by index it is {times(made['ttft_ratio'])}."
        )
    least = [min((r for r in rows if r["gpu"] == gpu and r["method"] == "spatial"),
                 key=lambda r: r["kept_tokens"]) for gpu in gpus]  # fmt: skip
    parts.append(
        f"Down to {least[0]['kept_tokens']} tokens the gain is "
        f"{listing(times(row['ttft_ratio']) + ' on ' + row['gpu'] for row in least)}."
    )
    return " ".join(parts)


def _bars(rows: list[dict[str, Any]], gpus: Sequence[str]) -> Panels:
    charts = []
    for gpu in gpus:
        own = [row for row in rows if row["gpu"] == gpu]
        parts = {
            name: tuple(row[f"{stage}_ms"] for row in own) for stage, name in _NAMES.items()
        } | {"host, exposed": tuple(row["host_ms"] for row in own)}
        names = tuple(
            f"{row['kept_tokens']} (cluster)" if "cluster" in row["method"] else
            str(row["kept_tokens"]) for row in own
        )  # fmt: skip
        last = "host, exposed"
        ends = {
            end: {last: tuple(row[f"ttft_any_{end}_ms"] for row in own)} for end in ("low", "high")
        }
        charts.append(
            BarChart(gpu, Axis("time to the first token", "ms"), names, parts,
                     low=ends["low"], high=ends["high"])
        )  # fmt: skip
    return Panels("Where the time goes, by visual tokens kept", tuple(charts))


def _curves(case: Case, plain: Prefill, full: int) -> list[Series]:
    grid = np.unique(np.linspace(1, full, 96).round())
    found = prefill(case, k=grid)
    language = float(plain.language_s) / found.language_s
    whole = float(plain.ttft_s) / found.ttft_s
    flops = float(plain.flops["total"]) / found.flops["total"]
    fixed = float(plain.ttft_s - plain.language_s)
    hover = [f"{k:.0f} tokens kept" for k in grid]
    return [
        Series.of("language model and head", grid, language, hover=hover),
        Series.of("time to the first token", grid, whole, hover=hover),
        Series.of("FLOPs, all stages", grid, flops, hover=hover),
        Series.of(
            "limit if the language model took no time", grid,
            np.full(len(grid), float(plain.ttft_s) / fixed), reference=True,
        ),
    ]  # fmt: skip


def _panels(curves: dict[str, list[Series]]) -> Panels:
    charts = tuple(
        LineChart(gpu, Axis("visual tokens kept"), Axis("without over with compression", log=True),
                  tuple(series))
        for gpu, series in curves.items()
    )  # fmt: skip
    return Panels("Speed-up of the parts and of the whole", charts)


STUDY = Study(
    title="End to end: what the vision side leaves of the gain",
    question=(
        "How much of the language model's speed-up is left in the time to the first token, once "
        "vision tower, projector, compression and host are counted?"
    ),
    method=(
        "The time to the first token is predicted stage by stage with all visual tokens and with "
        "fewer, taken by index (no overhead of their own), and with k-means on all images at once "
        "(fused). Ratios of the language model alone and of the whole stand beside that of the "
        "FLOPs, and beside Amdahl's limit: a language model that takes no time."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2504.17892",),
)
