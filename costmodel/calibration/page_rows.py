"""The quantities of the accuracy page, evaluated on public timings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.accuracy import AccuracyRow, Targets
from costmodel.calibration.building import Stack, chip_of, rows_of, samples_of
from costmodel.calibration.evaluation_attention import AttentionStack, evaluate_attention
from costmodel.calibration.evaluation_gemm import (
    GemmStack,
    GemmTargets,
    across_labs,
    evaluate_gemm,
)
from costmodel.calibration.evaluation_memory import collective_rows, memory_rows
from costmodel.calibration.schema import Timings
from costmodel.calibration.setups import SETUPS
from costmodel.catalog.hardware import load_gpu
from costmodel.timing.kernels.base import Chip
from costmodel.timing.kernels.gemm import BENCHMARK_MODEL, GemmModel
from costmodel.timing.kernels.gemm_quantised import BENCHMARK_W4A16, BENCHMARK_W8A16

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AccuracyRow", "page_rows"]


_UNSEEN_M = ((5.0, 12.0), (3.0, 7.0))
_GEMM: Sequence[tuple[str, str, str, GemmTargets]] = (
    ("a100-80gb-sxm", "vidur", "",
     GemmTargets(((6.0, 12.5), (4.5, 10.0)), _UNSEEN_M, (3.3, 2.2))),
    ("a100-80gb-sxm", "aiconfigurator", "vllm", GemmTargets(((6.5, 14.0), (4.5, 10.0)))),
    ("a100-80gb-sxm", "aiconfigurator", "sglang/0.5.10",
     GemmTargets(((6.5, 14.0), (4.5, 10.0)), _UNSEEN_M)),
    ("a40", "vidur", "", GemmTargets(((7.8, 17.0), (6.0, 13.0)), _UNSEEN_M, (5.5, 4.0))),
    ("a30", "vidur", "", GemmTargets()),
    ("h100-sxm", "vidur", "", GemmTargets(((9.0, 19.0), (7.0, 15.0)), _UNSEEN_M, (8.0, 6.0))),
    ("h100-sxm", "aiconfigurator", "vllm", GemmTargets(((6.5, 13.5), (5.0, 10.5)), _UNSEEN_M)),
    ("h200", "aiconfigurator", "vllm", GemmTargets(((6.0, 12.5), (4.8, 10.0)), _UNSEEN_M)),
    ("l40s", "aiconfigurator", "vllm", GemmTargets(((11.5, 23.0), (8.0, 16.0)), _UNSEEN_M)),
)  # fmt: skip
"""Products of 16 bits: device, source, software, goals [%]."""
_ACROSS = ((2, 0), (1, 0), (0, 1))
"""Places in `_GEMM`: fitted on, predicted."""
_ACROSS_TARGET = ((13.0, 24.0), (8.0, 15.0))

_QUANTISED = (("w8a16", BENCHMARK_W8A16), ("w4a16", BENCHMARK_W4A16))
"""Weights of 8 and 4 bits, which one framework was timed with on one device."""
_QUANTISED_TARGETS = GemmTargets(((13.0, 27.0), (8.0, 17.0)))

_ATTENTION: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("a100-80gb-sxm", "vllm", ()),
    ("a100-80gb-sxm", "sglang/0.5.10", ()),
    ("a100-80gb-sxm", "trtllm", ()),
    ("h100-sxm", "vllm", ("vllm_flash_attn_fa3", "vllm_vit_flash_attn_fa3")),
    ("h100-sxm", "sglang", ("fa3", "flash_attention_v3")),
    ("h100-sxm", "trtllm", ()),
    ("h200", "vllm", ("vllm_flash_attn_fa3", "vllm_vit_flash_attn_fa3")),
    ("l40s", "vllm", ()),
    ("l40s", "trtllm", ()),
)
_KINDS = ("attention_prefill", "attention_encoder", "attention_decode")
_ATTENTION_TARGETS: Mapping[tuple[str, str], Sequence[Targets]] = {
    ("a100-80gb-sxm", "attention_prefill"): (
        ((6.5, 14.0), (4.0, 9.0)), ((6.5, 14.0), (3.0, 6.0))
    ),
    ("a100-80gb-sxm", "attention_decode"): (((12.0, 28.0), (4.0, 9.0)),),
    ("h100-sxm", "attention_prefill"): (((12.0, 26.0), (8.0, 17.0)), ((10.0, 22.0), (6.0, 12.0))),
    ("h100-sxm", "attention_encoder"): (((8.0, 17.0), (5.0, 12.0)),),
    ("h100-sxm", "attention_decode"): (((12.0, 28.0), (4.0, 9.0)),),
    ("l40s", "attention_prefill"): (((6.5, 14.0), (4.5, 9.0)), ((8.0, 17.0), (3.5, 7.5))),
    ("l40s", "attention_encoder"): (((6.5, 14.5), (4.7, 11.0)),),
    ("l40s", "attention_decode"): (((15.0, 30.0), (8.0, 20.0)),),
}  # fmt: skip
"""Goals [%] by device and kind, in the order of the kind's quantities."""
_NO_GOAL = (("a100-80gb-sxm", "attention_decode", "trtllm"),)
"""Device, kind and software that are shown without a goal."""


def page_rows(timings: Sequence[Timings]) -> Iterator[AccuracyRow]:
    """Yield the rows of the page, each as soon as it is known.

    Parameters
    ----------
    timings : sequence of Timings
        Public timings of all kinds.

    Yields
    ------
    AccuracyRow
        Products, attention, memory-bound kernels, collectives.
    """
    yield from _products(timings)
    yield from _attention(timings)
    yield from _memory_bound(timings)
    yield from _collectives(timings)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _chip(gpu: str) -> Chip:
    return chip_of(load_gpu(gpu))


def _frame(kind: str, timings: Sequence[Timings]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([item.frame for item in timings if item.kind == kind], ignore_index=True)


def _products(timings: Sequence[Timings]) -> Iterator[AccuracyRow]:
    stacks = []
    for gpu, source, software, targets in _GEMM:
        stack = _gemm_stack(timings, Stack(gpu, source, software), targets)
        stacks.append(stack)
        _tell(f"gemm, {gpu}, {stack.software}")
        yield from evaluate_gemm(stack)
    for fitted, predicted in _ACROSS:
        yield across_labs(stacks[fitted], stacks[predicted], _ACROSS_TARGET)
    for dtype, model in _QUANTISED:
        rows = Stack("a100-80gb-sxm", "aiconfigurator", "trtllm", (dtype,))
        _tell(f"gemm, {rows.device}, {dtype}")
        stack = _gemm_stack(timings, rows, _QUANTISED_TARGETS, f"gemm_{dtype}", model)
        yield from (
            replace(row, quantity=f"{dtype}: {row.quantity}") for row in evaluate_gemm(stack)
        )


def _gemm_stack(
    timings: Sequence[Timings],
    stack: Stack,
    targets: GemmTargets,
    kind: str = "gemm",
    model: GemmModel = BENCHMARK_MODEL,
) -> GemmStack:
    frame = rows_of(kind, timings, stack)
    chosen = stack.select(_frame("gemm", timings))
    products = chosen[(chosen["tp"] == 1) & (chosen["model"].astype(str) != "")]
    layers = {
        str(name): tuple(
            (int(n), int(k)) for n, k in sorted(set(zip(rows["n"], rows["k"], strict=True)))
        )
        for name, rows in products.groupby("model")
        if stack.source.startswith("vidur")
    }
    samples = samples_of(SETUPS[kind], frame)
    return GemmStack(
        stack.device, _only(chosen, "source"), _only(chosen, "software"), _only(chosen, "dtype"),
        _chip(stack.device), samples, layers, model, targets,
    )  # fmt: skip


def _only(frame: pd.DataFrame, name: str) -> str:
    return str(frame[name].mode()[0])


def _attention(timings: Sequence[Timings]) -> Iterator[AccuracyRow]:
    for kind in _KINDS:
        for gpu, software, kernels in _ATTENTION:
            stack = Stack(gpu, "aiconfigurator", software, kernels=kernels)
            frame = rows_of(kind, timings, stack)
            if frame.empty:
                continue
            chosen = stack.select(_frame(kind, timings))
            kernel = str(frame.attrs["kernel"])
            _tell(f"{kind}, {gpu}, {software} {kernel}")
            judged = AttentionStack(
                kind, gpu, _only(chosen, "source"), _only(chosen, "software"),
                _only(chosen, "dtype"), kernel, _chip(gpu), samples_of(SETUPS[kind], frame),
                () if (gpu, kind, software) in _NO_GOAL
                else _ATTENTION_TARGETS.get((gpu, kind), ()),
            )  # fmt: skip
            yield from evaluate_attention(judged)


def _memory_bound(timings: Sequence[Timings]) -> Iterator[AccuracyRow]:
    frame = _frame("memory_bound", timings)
    frame = frame[frame["source"].str.startswith("vidur")]
    for gpu, rows in frame.groupby("gpu", sort=True):
        _tell(f"memory-bound, {gpu}")
        yield from memory_rows(rows, _chip, max_rows=500, starts=1)


def _collectives(timings: Sequence[Timings]) -> Iterator[AccuracyRow]:
    """Within a node and not eager; all operations of a device together."""
    frame = _frame("collective", timings)
    frame = frame[(frame["topology"] == "single-node") & ~frame["software"].str.contains("eager")]
    for gpu, part in frame.groupby("gpu", sort=True):
        _tell(f"collectives, {gpu}")
        rows = collective_rows(part, _chip, max_rows=500, starts=2)
        for custom in (True, False):
            chosen = [row for row in rows if row.quantity.startswith("custom") == custom]
            if chosen:
                yield _mean(chosen, "custom all-reduce" if custom else "NCCL, all operations")


def _mean(rows: Sequence[AccuracyRow], quantity: str) -> AccuracyRow:
    counts = [row.n for row in rows]
    software = ", ".join(sorted({row.software for row in rows}))
    return replace(
        rows[0],
        quantity=quantity,
        n=sum(counts),
        software=software,
        mape_pct=float(np.average([row.mape_pct for row in rows], weights=counts)),
        p90_pct=float(np.average([row.p90_pct for row in rows], weights=counts)),
        bias_pct=float(np.average([row.bias_pct for row in rows], weights=counts)),
        roofline_mape_pct=float(
            np.average([row.roofline_mape_pct for row in rows], weights=counts)
        ),
    )
