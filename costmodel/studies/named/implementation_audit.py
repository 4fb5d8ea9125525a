"""Released code against the least it could do: what each artefact costs in time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, BarChart
from costmodel.evaluation import FloatArray
from costmodel.studies.prefill import Prefill, prefill
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, milliseconds, number, setting

__all__ = ["ARTEFACTS", "STUDY"]


@dataclass(frozen=True)
class Artefact:
    """One habit of released code.

    Attributes
    ----------
    name, what : str
        Method, and the habit in a few words.
    released, lean : str
        The method with it, and the same choice of tokens without it.
    """

    name: str
    what: str
    released: str
    lean: str


ARTEFACTS = (
    Artefact(
        "FastV", "layer K-1 runs twice, its map stays in memory",
        "fastv:layer=2,k={k}", "fastv:layer=2,k={k},variant=last-row",
    ),
    Artefact(
        "PyramidDrop", "queries, keys and values of all tokens again, a loop over requests",
        "pyramiddrop", "pyramiddrop:variant=lean",
    ),
    Artefact(
        "VisionZip", "attention maps of all vision layers kept",
        "visionzip:k={k}", "visionzip:k={k},maps=one,impl=fused",
    ),
    Artefact(
        "SparseVLM", "dropped tokens recycled through an N x N x C difference",
        "sparsevlm:tokens=300+200+110,weights=beside",
        "sparsevlm:tokens=300+200+110,weights=beside,variant=v2",
    ),
    Artefact(
        "SparseVLM maps", "eager attention in three layers",
        "sparsevlm:budget=192", "sparsevlm:budget=192,weights=beside",
    ),
    Artefact(
        "PruMerge", "a Python loop over tokens, quartiles on the host",
        "prumerge:kept={k}", "prumerge:kept={k},impl=fused",
    ),
    Artefact(
        "DivPrune", "rows of distances copied anew in every step",
        "divprune:k={k}", "divprune:k={k},impl=running",
    ),
    Artefact(
        "FasterVLM", "attention maps of all vision layers kept",
        "fastervlm:k={k}", "fastervlm:k={k},maps=one",
    ),
    Artefact(
        "k-means", "kernels of plain torch, image by image",
        "cluster:k={k}", "cluster:k={k},impl=compiled",
    ),
)  # fmt: skip
"""What was read in public code, and the alternative that the library models."""


@dataclass(frozen=True)
class Audited:
    """An artefact on one GPU, over batches."""

    artefact: Artefact
    gpu: str
    plain: Prefill
    released: Prefill
    lean: Prefill

    @property
    def extra_s(self) -> FloatArray:
        """Time to the first token that the artefact adds [s]."""
        more: FloatArray = self.released.ttft_s - self.lean.ttft_s
        return more

    @property
    def extra_bytes(self) -> FloatArray:
        """Memory that it adds at the peak [B]."""
        more: FloatArray = self.released.memory.total - self.lean.memory.total
        return more


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    batches: Sequence[int] = (1, 8),
    kept: int = 64,
    text_tokens: int = 64,
    runtime: str = "eager",
) -> Finding:
    found: list[Audited] = []
    cases: list[Case] = []
    batch = np.asarray(batches, dtype=np.float64)
    for gpu in gpus:
        asked: dict[str, Any] = {
            "gpu": gpu, "text_tokens": text_tokens, "runtime": runtime, "time_model": "calibrated",
        }  # fmt: skip
        cases.append(prepare(model, **asked))
        plain = prefill(cases[-1], batch=batch)
        for one in ARTEFACTS:
            released, lean = (
                prefill(prepare(model, compress=text.format(k=kept), **asked), batch=batch)
                for text in (one.released, one.lean)
            )
            found.append(Audited(one, gpu, plain, released, lean))
    return Finding(
        answer=_answer(found, batches, gpus[0]),
        uncertainty=_uncertainty(found, cases),
        tables=(
            StudyTable.of(
                "Released code against the least it could do",
                [_row(one, i, size) for one in found for i, size in enumerate(batches)],
            ),
            StudyTable.of(
                f"What the artefacts are, batch {batches[0]}",
                [row for one in found if one.gpu == gpus[0] for row in _sizes(one)],
            ),
        ),
        pictures=(_bars(found, batches), _memory(found, batches, gpus[0])),
        settings=setting(
            model, gpus, runtime, text_tokens=text_tokens, tokens_kept=kept, attention="flash",
        ),
    )  # fmt: skip


def _row(one: Audited, i: int, batch: int) -> dict[str, Any]:
    own = "compression"
    released, lean = one.released, one.lean
    return {
        "gpu": one.gpu,
        "batch": batch,
        "method": one.artefact.name,
        "artefact": one.artefact.what,
        "ttft_none_ms": 1e3 * one.plain.ttft_s[i],
        "ttft_released_ms": 1e3 * released.ttft_s[i],
        "ttft_lean_ms": 1e3 * lean.ttft_s[i],
        "artefact_ms": 1e3 * one.extra_s[i],
        "artefact_pct_of_released": 100 * one.extra_s[i] / released.ttft_s[i],
        "speedup_released": one.plain.ttft_s[i] / released.ttft_s[i],
        "speedup_lean": one.plain.ttft_s[i] / lean.ttft_s[i],
        "artefact_peak_mb": one.extra_bytes[i] / 1e6,
        "artefact_kv_mb": (released.memory.kv_cache[i] - lean.memory.kv_cache[i]) / 1e6,
        "peak_vs_none_mb": (released.memory.total[i] - one.plain.memory.total[i]) / 1e6,
        "artefact_gflop": (released.flops["total"][i] - lean.flops["total"][i]) / 1e9,
        "artefact_launches": released.launches(own)[i] - lean.launches(own)[i],
    }


_MARKS = {
    "FastV": ("weights.layer", "the second run of layer K-1"),
    "PyramidDrop": ("_proj", "projections computed again"),
    "SparseVLM": (".distances", "difference of every pair of dropped tokens"),
}
"""Part of the names of the operators that make up an artefact."""


def _sizes(one: Audited) -> list[dict[str, Any]]:
    if one.artefact.name not in _MARKS:
        return []
    mark, what = _MARKS[one.artefact.name]
    run = one.released.evaluation
    own = [op.stage == "compression" and mark in op.name for op in run.ops]
    live = [float(row.flat[0]) for row, mine in zip(run.live, own, strict=True) if mine]
    return [
        {
            "method": one.artefact.name,
            "operators": what,
            "number": sum(own),
            "gflop": float(run.total(run.flops, own).flat[0]) / 1e9,
            "gpu_ms": 1e3 * float(run.total(one.released.times.op_s, own).flat[0]),
            "live_mb_at_most": max(live, default=0.0) / 1e6,
            "moved_mb": float(run.total(run.bytes_moved, own).flat[0]) / 1e6,
        }
    ]


def _bars(found: Sequence[Audited], batches: Sequence[int]) -> BarChart:
    gpus = list(dict.fromkeys(one.gpu for one in found))
    names = list(dict.fromkeys(one.artefact.name for one in found))
    by = {(one.gpu, one.artefact.name): one for one in found}
    places = [(i, size) for i, size in enumerate(batches)]
    return BarChart(
        "Time that released code adds to a request",
        Axis("per request", "ms", log=False),
        tuple(f"{name}, batch {size}" for name in names for _, size in places),
        {
            gpu: tuple(
                1e3 * float(by[gpu, name].extra_s[i]) / size
                for name in names
                for i, size in places
            )
            for gpu in gpus
        },
        stacked=False,
        horizontal=True,
        hover={
            gpu: tuple(by[gpu, name].artefact.what for name in names for _ in places)
            for gpu in gpus
        },
        note="against an implementation without the artefact, as the library models it",
    )  # fmt: skip


def _memory(found: Sequence[Audited], batches: Sequence[int], gpu: str) -> BarChart:
    own = [one for one in found if one.gpu == gpu]
    return BarChart(
        "Peak memory against no compression", Axis("per request", "MB"),
        tuple(one.artefact.name for one in own),
        {
            "released": tuple(_peak_mb(one.released, one.plain, batches[-1]) for one in own),
            "without the artefact": tuple(
                _peak_mb(one.lean, one.plain, batches[-1]) for one in own
            ),
        },
        stacked=False,
        horizontal=True,
        hover={
            part: tuple(one.artefact.what for one in own)
            for part in ("released", "without the artefact")
        },
        note=f"batch {batches[-1]}; weights, KV cache and peak activations",
    )  # fmt: skip


def _peak_mb(run: Prefill, plain: Prefill, batch: int) -> float:
    """Peak memory above that without compression, per request of the last batch [MB]."""
    return float(run.memory.total[-1] - plain.memory.total[-1]) / 1e6 / batch


def _answer(found: Sequence[Audited], batches: Sequence[int], gpu: str) -> str:
    own = sorted((one for one in found if one.gpu == gpu), key=lambda one: -float(one.extra_s[0]))
    slow = own[:3]
    lost = [
        one.artefact.name for one in own
        if one.released.ttft_s[0] > one.plain.ttft_s[0] >= one.lean.ttft_s[0]
    ]  # fmt: skip
    heavy = sorted(own, key=lambda one: -float(one.extra_bytes[-1]))[:2]
    above = [
        one.artefact.name for one in own
        if one.released.memory.total[-1] > one.plain.memory.total[-1]
    ]  # fmt: skip
    cheap = [one for one in own if abs(one.extra_s[0]) < 0.02 * one.released.ttft_s[0]]
    time = listing(
        f"{one.artefact.name} ({one.artefact.what}) {milliseconds(float(one.extra_s[0]))}"
        for one in slow
    )
    text = (
        f"On {gpu} the dearest habits of released code at batch {batches[0]} are {time}; "
        f"of {len(own)} artefacts less than 2 % of the time to the first token goes to those of "
        f"{listing(one.artefact.name for one in cheap)}. "
    )
    text += (
        f"Without theirs {listing(lost)} would be faster than no compression and are not with it. "
        if lost
        else "None turns a gain over no compression into a loss. "
    )
    memory = listing(
        f"{one.artefact.name} {number(float(one.extra_bytes[-1]) / 1e6 / batches[-1])} MB"
        for one in heavy
    )
    return text + (
        f"In memory the most is added by {memory} per request at batch {batches[-1]}, and "
        + (
            f"{listing(above)} peak above no compression altogether."
            if above
            else "none peaks above no compression."
        )
    )


def _uncertainty(found: Sequence[Audited], cases: Sequence[Case]) -> str:
    spread = [
        100 * float(side[0] / one.released.ttft_s[0] - 1)
        for one in found
        for side in one.released.bands["any_stack"]
    ]
    peaks = {
        one.artefact.name: 100 * float(one.released.memory.total[0] / one.plain.memory.total[0] - 1)
        for one in found
        if one.artefact.name in ("FastV", "SparseVLM maps")
    }
    return (
        f"Bands of the times that are subtracted reach from {min(spread):+.0f} to "
        f"{max(spread):+.0f} %; much of it is shared by both and cancels. "
        f"{evidence(cases)} {stack_bands(cases)} "
        "Released code was read, not timed, in the versions each method names; the lean variants "
        "are ours, and nobody published them. Sorts, gathers and reductions were timed nowhere. "
        "Peaks are of live tensors: V2Drop measured 3.7 % more memory of FastV and 23.5 % more of "
        "SparseVLM than of no compression at 192 tokens, where this predicts "
        f"{peaks['FastV']:+.1f} % at its own budget and {peaks['SparseVLM maps']:+.1f} %, so that "
        "an allocator or copies that were not read hold more than is counted here."
    )


STUDY = Study(
    title="What the habits of released code cost",
    question=(
        "Which artefacts of released implementations (FastV's second layer, PyramidDrop's repeated "
        "projections, VisionZip's attention maps, SparseVLM's N x N x C tensor and others) cost "
        "how many milliseconds and megabytes?"
    ),
    method=(
        "Every method is predicted twice with the same tokens kept: as its public code works, and "
        "without the habit. The difference is what the artefact costs in time to the first token, "
        "peak memory, cache, FLOPs and launches, by the calibrated time model under the eager "
        "runtime. A second table sums the operators an artefact consists of."
    ),
    run=_run,
    sources=(
        "https://arxiv.org/abs/2403.06764",
        "https://arxiv.org/abs/2410.17247",
        "https://arxiv.org/abs/2412.04467",
        "https://arxiv.org/abs/2410.04417",
        "https://arxiv.org/abs/2509.01552",
    ),
)
