"""STF and MBTF on eight RTX A6000: time and memory over the batch, and what the modules cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.accounting import parameters
from costmodel.case import prepare
from costmodel.conventions import load_convention, uniform
from costmodel.points import evaluate_grid
from costmodel.studies.batch_runs import BatchRuns, batch_runs
from costmodel.studies.sharing import sharing
from costmodel.studies.stf_pictures import over_batches, stages, taps_and_windows
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, milliseconds, number, setting, span, times

__all__ = ["STUDY"]

VARIANTS = {
    "LLaVA-1.5 (576 tokens)": None,
    "AvgPool 2x2 (144)": "avgpool:window=2",
    "STF (144)": "stf:window=2",
    "MBTF (576)": "mbtf",
    "MBTF+STF (144)": "mbtf+stf",
}
"""What the paper compares, by the name in tables and pictures."""

_BASE, _POOL, _FULL = "LLaVA-1.5 (576 tokens)", "AvgPool 2x2 (144)", "MBTF+STF (144)"


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("rtx-a6000",),
    devices: int = 8,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    blocks: Sequence[int] = (1, 4, 8, 24),
    windows: Sequence[int] = (2, 3, 4),
    text_tokens: int = 64,
    output_tokens: int = 16,
    runtime: str = "eager",
) -> Finding:
    gpu = gpus[0]
    asked: dict[str, Any] = {
        "model": model, "gpu": gpu, "text_tokens": text_tokens, "runtime": runtime,
        "time_model": "calibrated",
    }  # fmt: skip
    runs = {
        name: batch_runs(prepare(compress=text, output_tokens=output_tokens, **asked), batches)
        for name, text in VARIANTS.items()
    }
    grid, grid_rows = _ablation(asked, runs[_BASE], blocks, windows, batches)
    shared = sharing(
        {name: VARIANTS[name] for name in (_BASE, _FULL)}, asked, devices, batches,
    )  # fmt: skip
    shown = {name: runs[name] for name in (_BASE, _POOL, _FULL)}
    cost = _cost(runs[_FULL], runs[_POOL], runs[_BASE])
    return Finding(
        answer=_answer(runs, cost, shared.gain, grid, devices, gpu),
        uncertainty=_uncertainty(runs, text_tokens),
        tables=(
            StudyTable.of(f"One {gpu}, {output_tokens} tokens of answer", _times(runs, devices)),
            StudyTable.of(f"Largest batch that fits on one {gpu}", _limits(runs)),
            StudyTable.of("What the fusion modules cost, against AvgPool 2x2", cost),
            StudyTable.of(f"Taps and windows on one {gpu}", grid_rows),
            shared.table,
        ),
        pictures=(
            over_batches(shown, _paper_ratio(shown[_BASE], shown[_FULL]), devices),
            stages(runs, batches), taps_and_windows(grid, batches[-1]), shared.picture,
        ),
        settings=setting(
            model, gpus[:1], runtime, number_of_GPUs=devices, text_tokens=text_tokens,
            output_tokens=output_tokens, attention="flash",
        ),
    )  # fmt: skip


def _times(runs: dict[str, BatchRuns], devices: int) -> list[dict[str, Any]]:
    base, rows = runs[_BASE], []
    for name, one in runs.items():
        answer = one.case.workload.output_tokens
        for i, batch in enumerate(one.batches):
            ttft, tpot = one.ttft_s[i], one.time_s["tpot"][i]
            rows.append({
                "variant": name,
                "batch_per_gpu": int(batch),
                "ttft_ms": 1e3 * ttft,
                "ttft_low_ms": 1e3 * one.band_s[0][i],
                "ttft_high_ms": 1e3 * one.band_s[1][i],
                "ttft_speedup": base.ttft_s[i] / ttft,
                "flops_ratio": base.flops["total"][i] / one.flops["total"][i],
                "with_answer_ms": 1e3 * (ttft + (answer - 1) * tpot),
                "first_tokens_per_s_all_gpus": devices * batch / ttft,
                "weights_gb": one.memory.weights[i] / 1e9,
                "kv_cache_gb": one.memory.kv_cache[i] / 1e9,
                "activations_gb": one.memory.activations_peak[i] / 1e9,
                "total_gb": one.memory.total[i] / 1e9,
                "fits": one.fits[i],
            })  # fmt: skip
    return rows


def _limits(runs: dict[str, BatchRuns]) -> list[dict[str, Any]]:
    rows = []
    for name, one in runs.items():
        at = batch_runs(one.case, [max(one.largest, 1)])
        rows.append({
            "variant": name,
            "largest_batch": one.largest,
            "ttft_ms": 1e3 * at.ttft_s[0],
            "first_tokens_per_s_per_gpu": at.requests_per_s[0],
            "total_gb": at.memory.total[0] / 1e9,
        })  # fmt: skip
    return rows


def _cost(full: BatchRuns, pool: BatchRuns, base: BatchRuns) -> list[dict[str, Any]]:
    """MBTF+STF against pooling to as many tokens, which keeps the projector."""
    counts = [parameters(one.case.program()[0])["total"] for one in (full, pool, base)]
    extra = counts[0] - counts[1]
    rows = []
    for i, batch in enumerate(full.batches):
        weights = full.memory.weights[i] - pool.memory.weights[i]
        saved = (base.memory.kv_cache[i] - full.memory.kv_cache[i]) / batch
        rows.append({
            "batch_per_gpu": int(batch),
            "extra_parameters_m": extra / 1e6,
            "extra_weights_mb": weights / 1e6,
            "fusion_gmac_per_image": full.flops["compression"][i] / 2e9 / batch,
            "extra_ttft_ms": 1e3 * (full.ttft_s[i] - pool.ttft_s[i]),
            "extra_ttft_pct": 100 * (full.ttft_s[i] / pool.ttft_s[i] - 1),
            "saved_ttft_ms": 1e3 * (base.ttft_s[i] - full.ttft_s[i]),
            "kv_saved_mb_per_request": saved / 1e6,
            "requests_that_pay_the_weights": int(np.ceil(weights / saved)),
        })  # fmt: skip
    return rows


def _ablation(
    asked: dict[str, Any],
    base: BatchRuns,
    blocks: Sequence[int],
    windows: Sequence[int],
    batches: Sequence[int],
) -> tuple[dict[tuple[int, int], dict[str, float]], list[dict[str, Any]]]:
    case = prepare(compress="mbtf+stf", **asked)
    some, many = 0, len(batches) - 1
    axes = {"B": np.array(blocks), "a": np.array(windows)[:, None]}
    batch = np.array([batches[some], batches[many]])[:, None, None]
    grid = evaluate_grid(case, batch=batch, **axes)
    plain = evaluate_grid(prepare(compress="stf", **asked), batch=batch[:, :, 0], a=windows)
    found: dict[tuple[int, int], dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    features = case.images[0].layout.features
    for w, window in enumerate(windows):
        for m, taps in enumerate(blocks):
            ttft = grid.time_s["ttft"][:, w, m]
            row = {
                "taps": taps,
                "window": window,
                "visual_tokens": features // window**2,
                "fusion_gmac_per_image": grid.flops["compression"][0, w, m] / 2e9 / batches[some],
                "weights_gb": grid.memory.weights[0, w, m] / 1e9,
                f"ttft_batch_{batches[some]}_ms": 1e3 * ttft[0],
                f"speedup_batch_{batches[some]}": base.ttft_s[some] / ttft[0],
                f"ttft_batch_{batches[many]}_ms": 1e3 * ttft[1],
                f"speedup_batch_{batches[many]}": base.ttft_s[many] / ttft[1],
                "taps_add_ms_per_image": 1e3
                * (ttft[1] - plain.time_s["ttft"][1, w])
                / batches[many],
            }
            found[taps, window] = row
            rows.append(row)
    return found, rows


def _paper_ratio(base: BatchRuns, full: BatchRuns) -> float:
    """FLOPs as the paper counts them: the language model, visual tokens alone."""
    text = base.case.model.text
    before, after = (
        load_convention("flop-3mlp").flops(text, uniform(text, round(one.visual_tokens)))
        for one in (base, full)
    )
    return before / after


def _answer(
    runs: dict[str, BatchRuns],
    cost: list[dict[str, Any]],
    gain: str,
    grid: dict[tuple[int, int], dict[str, float]],
    devices: int,
    gpu: str,
) -> str:
    base, full = runs[_BASE], runs[_FULL]
    speed = base.ttft_s / full.ttft_s
    alike = [base.band_s[side] / full.band_s[side] for side in (0, 1)]
    tower = full.time_s["vision_encoder"] / full.ttft_s
    most = max(grid.values(), key=lambda row: row["fusion_gmac_per_image"])
    paid = cost[-1]["requests_that_pay_the_weights"]
    return (
        f"On one {gpu} MBTF+STF brings the time to the first token from "
        f"{milliseconds(base.ttft_s[0])} to {milliseconds(full.ttft_s[0])} at batch "
        f"{base.batches[0]:.0f} ({times(speed[0])} faster) and from {base.ttft_s[-1]:.2f} to "
        f"{full.ttft_s[-1]:.2f} s at batch {base.batches[-1]:.0f} ({times(speed[-1])}; "
        f"{span(np.concatenate(alike))} over batches and over the ends of the bands), against "
        f"{_paper_ratio(base, full):.2f} times fewer FLOPs by the paper's count, without "
        "vision tower, fusion modules and text: the tower alone is "
        f"{span(100 * tower, '%')} of what remains. {devices} GPUs that each serve their own "
        f"requests give {number(devices * full.requests_per_s[-1])} instead of "
        f"{number(devices * base.requests_per_s[-1])} first tokens per second, and the largest "
        f"batch grows from {base.largest} to {full.largest} per GPU. The "
        f"{cost[0]['extra_parameters_m']:.1f} M further parameters take "
        f"{cost[0]['extra_weights_mb']:.0f} MB, which the KV cache of {paid} "
        f"request{'s' * (paid != 1)} pays back; beside pooling to as many tokens the modules cost "
        f"{span([row['extra_ttft_pct'] for row in cost], '%')} of the time to the first token. "
        f"{most['taps']:.0f} taps would add {number(most['taps_add_ms_per_image'])} ms to every "
        f"image. {gain}"
    )


def _uncertainty(runs: dict[str, BatchRuns], text_tokens: int) -> str:
    base = runs[_BASE]
    wide, near = (
        [100 * (side / base.ttft_s - 1) for side in band]
        for band in (base.band_s, base.same_stack_s)
    )
    return (
        "Predicted, not measured: no published time of this model on this GPU is known, and the "
        f"paper gives FLOPs alone. {evidence([base.case])} The 90 % band of the baseline is "
        f"{min(wide[0]):+.0f} to {max(wide[1]):+.0f} % for any lab and software, "
        f"{min(near[0]):+.0f} to {max(near[1]):+.0f} % for those of the calibration. An error that "
        "all kernels share cancels in a speed-up, and the range given for it assumes that. Fusion "
        "widths for windows other than 2 (16 times the tower's) and for other than 8 taps (4 "
        "times) are assumed; one tap means a fusion of one layer, not none. "
        f"{text_tokens} text tokens stand for a benchmark's question. Memory leaves out the CUDA "
        "context, the allocator's slack and the hidden states of all tower layers, which Hugging "
        "Face's tower returns for every variant. GPUs are taken to run alone, with independent "
        "requests and processors enough to feed them; collectives are at the datasheet's rate of "
        "the link, PCIe where more than two cards share a model, as a bridge joins two, and every "
        "card of a group is taken to encode all its images."
    )


STUDY = Study(
    title="STF and MBTF on RTX A6000: wall clock and memory over the batch",
    question=(
        "What do spatial and multi-block token fusion gain in wall-clock time and memory on eight "
        "RTX A6000, over the batch, and what do their 151 M parameters cost?"
    ),
    method=(
        "Prefill of LLaVA-1.5-7B without compression, with 2x2 average pooling, STF, MBTF and both "
        "by the calibrated time model, one GPU per request batch (data parallel) and the language "
        "model sharded over two or all GPUs (tensor parallel); memory from weights, KV cache and "
        "peak activations. Taps and windows are axes of the formulas of both modules. The eager "
        "runtime has the separate kernels of the public code, attention is flash."
    ),
    run=_run,
    sources=("https://arxiv.org/abs/2506.07138", "https://github.com/visresearch/LLaVA-STF"),
)
