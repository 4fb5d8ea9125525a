"""How well attention is predicted: rows of the accuracy table.

Every figure is out of sample: folds leave out whole (heads, kv_heads, head_dim).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.calibration.accuracy import AccuracyRow, Targets, judge
from costmodel.calibration.attention_stacks import RESIDUAL_NOISE, RESIDUAL_SCALES, settings_of
from costmodel.calibration.bands import bands_from_residuals
from costmodel.calibration.fitting import Samples, fit, group_folds
from costmodel.calibration.residuals import cross_validate_corrected
from costmodel.timing.kernels.attention import CAUSAL, ENCODER
from costmodel.timing.kernels.base import Chip, FloatArray, KernelModel
from costmodel.timing.kernels.decode import BENCHMARK_MODEL

__all__ = [
    "BAND_EDGES",
    "QUANTITIES",
    "AttentionStack",
    "Quantity",
    "attention_roofline_s",
    "evaluate_attention",
    "interval_coverage",
    "out_of_fold",
    "transfer_to",
]

_FIT_OPTIONS: dict[str, Any] = {"max_rows": 1500, "starts": 1}
_LEVEL = 0.9
_FOLDS = 4

MODEL_OF: dict[str, KernelModel] = {
    model.kind: model for model in (CAUSAL, ENCODER, BENCHMARK_MODEL)
}
"""Model that rows of a benchmark are fitted with, by kind."""

BAND_EDGES = (20e-6, 50e-6, 200e-6, 1e-3)
"""Bins of predicted time [s] within which error bands are alike."""


@dataclass(frozen=True)
class Quantity:
    """Rows that are judged together.

    Attributes
    ----------
    name : str
        For the table.
    least_s : float
        Shorter measurements are left out [s].
    ranges : dict of str to (low, high)
        Sizes that rows must have, inclusive.
    """

    name: str
    least_s: float = 0.0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


QUANTITIES: dict[str, tuple[Quantity, ...]] = {
    "attention_prefill": (
        Quantity(
            "causal prefill, batch 1, 512-4096 tokens",
            ranges={"batch": (1, 1), "q_len": (512, 4096)},
        ),
        Quantity("causal prefill from 50 us", least_s=50e-6),
    ),
    "attention_encoder": (Quantity("encoder attention from 50 us", least_s=50e-6),),
    "attention_decode": (Quantity("decode attention from 20 us", least_s=20e-6),),
}
"""Rows of the table by kind."""


@dataclass(frozen=True)
class AttentionStack:
    """Timings of one attention kernel.

    Attributes
    ----------
    kind : str
        Kind of operator, a key of `QUANTITIES`.
    gpu, source, software, dtype, kernel : str
        What was measured.
    chip : Chip
        Datasheet figures.
    samples : Samples
        Sizes of the model; groups are (heads, kv_heads, head_dim).
    targets : sequence of (at most, aim)
        Errors [%] asked of each quantity, in their order.
    """

    kind: str
    gpu: str
    source: str
    software: str
    dtype: str
    kernel: str
    chip: Chip
    samples: Samples
    targets: Sequence[Targets | None] = ()


def evaluate_attention(stack: AttentionStack, *, corrected: bool = True) -> list[AccuracyRow]:
    """Return the rows of one stack.

    Parameters
    ----------
    stack : AttentionStack
        The data.
    corrected : bool
        Whether the correction learned from neighbouring shapes is applied.

    Returns
    -------
    list of AccuracyRow
        One for each quantity of the kind.
    """
    plain, better = out_of_fold(stack)
    return _rows(stack, better if corrected else plain)


def out_of_fold(stack: AttentionStack) -> tuple[FloatArray, FloatArray]:
    """Return seconds from fits that did not see a row's group, without and with correction."""
    return cross_validate_corrected(
        MODEL_OF[stack.kind],
        stack.samples,
        stack.chip,
        folds=_FOLDS,
        fixed=settings_of(stack.kind, stack.kernel, stack.samples),
        scales=RESIDUAL_SCALES[stack.kind],
        noise_ratio=RESIDUAL_NOISE,
        **_FIT_OPTIONS,
    )


def transfer_to(fitted: AttentionStack, other: AttentionStack) -> list[AccuracyRow]:
    """Return how well parameters fitted on one GPU predict another from its datasheet."""
    values = fit(
        MODEL_OF[fitted.kind],
        fitted.samples,
        fitted.chip,
        fixed=settings_of(fitted.kind, fitted.kernel, fitted.samples),
        **_FIT_OPTIONS,
    ).values
    predicted = MODEL_OF[fitted.kind].time_s(values, other.samples.shapes, other.chip)
    return _rows(other, predicted, f", fitted on {fitted.gpu}")


def interval_coverage(stack: AttentionStack, predicted_s: FloatArray) -> float:
    """Return the share of rows within bands made from other groups' residuals.

    Parameters
    ----------
    stack : AttentionStack
        The data.
    predicted_s : ndarray
        Out-of-fold seconds.

    Returns
    -------
    float
        To compare with 0.9.
    """
    samples = stack.samples
    ratio = np.log(samples.time_s / predicted_s)
    fold = group_folds(samples.groups, _FOLDS)
    inside = 0
    for index in range(_FOLDS):
        seen, unseen = fold != index, fold == index
        bands = bands_from_residuals(
            ratio[seen], predicted_s[seen], samples.groups[seen], _LEVEL, BAND_EDGES
        )
        low, high = bands.log_range(predicted_s[unseen])
        inside += int(((ratio[unseen] >= low) & (ratio[unseen] <= high)).sum())
    return inside / len(samples)


def attention_roofline_s(kind: str, samples: Samples, chip: Chip) -> FloatArray:
    """Return the datasheet roofline: the longer of computing and moving each operand once [s].

    A causal mask leaves each query the keys up to its own.
    """
    names = ("batch", "kv_len", "heads", "kv_heads", "head_dim")
    batch, kv_len, heads, kv_heads, head_dim = (samples.shapes[name] for name in names)
    q_len = samples.shapes.get("q_len", np.ones_like(batch))
    scores = q_len * kv_len
    if kind == "attention_prefill":
        scores = scores - q_len * (q_len - 1) / 2
    compute = 4 * batch * heads * head_dim * scores / chip.peak_flops_per_s
    moved = 4 * batch * head_dim * (q_len * heads + kv_len * kv_heads)
    return np.maximum(compute, moved / chip.bandwidth_bytes_per_s)


def _rows(stack: AttentionStack, predicted_s: FloatArray, suffix: str = "") -> list[AccuracyRow]:
    samples = stack.samples
    roofline = attention_roofline_s(stack.kind, samples, stack.chip)
    quantities = QUANTITIES[stack.kind]
    targets = [*stack.targets, *[None] * len(quantities)]
    rows = []
    for quantity, target in zip(quantities, targets, strict=False):
        chosen = _chosen(samples, quantity)
        rows.append(
            judge(
                quantity.name + suffix,
                (stack.gpu, stack.source, f"{stack.software} {stack.kernel}", stack.dtype),
                samples.time_s[chosen],
                predicted_s[chosen],
                roofline[chosen],
                targets=target,
                least_s=quantity.least_s,
            )
        )
    return rows


def _chosen(samples: Samples, quantity: Quantity) -> npt.NDArray[np.bool_]:
    chosen = np.ones(len(samples), dtype=np.bool_)
    for name, (low, high) in quantity.ranges.items():
        chosen &= (samples.shapes[name] >= low) & (samples.shapes[name] <= high)
    return chosen
