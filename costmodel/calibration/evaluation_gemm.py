"""How well matrix products are predicted: rows of the accuracy table.

Every figure is out of sample: folds leave out whole (n, k), whole models or values of m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.calibration.accuracy import AccuracyRow, Targets, judge
from costmodel.calibration.fitting import Samples, fit
from costmodel.calibration.residuals import (
    corrected_time_s,
    cross_validate_corrected,
    fit_residual,
)
from costmodel.calibration.setups import SETUPS
from costmodel.timing.kernels.base import Chip, FloatArray
from costmodel.timing.kernels.gemm import BENCHMARK_MODEL, GemmModel
from costmodel.timing.kernels.residual import coordinates

__all__ = [
    "AccuracyRow",
    "GemmStack",
    "GemmTargets",
    "across_labs",
    "evaluate_gemm",
]

_SHORTEST_S = 10e-6
_FIT_OPTIONS: dict[str, Any] = {"max_rows": 2000, "starts": 3}
_WIDE_GROUPS = 100
_M_VALUES_KEPT = 5
_FEWEST_M = 24

Target = Targets | None


@dataclass(frozen=True)
class GemmTargets:
    """What is asked of a stack: errors [%], at most and aimed at, per quantity."""

    unseen_shapes: Target = None
    unseen_m: Target = None
    layer_sums: Target = None


@dataclass(frozen=True)
class GemmStack:
    """Timings of one GPU, source, software and number format.

    Attributes
    ----------
    gpu, source, software, dtype : str
        What was measured.
    chip : Chip
        Datasheet figures.
    samples : Samples
        m, n, k and seconds; groups are (n, k).
    layers : dict of str to tuple of (n, k)
        The products of one decoder layer, by model.
    model : GemmModel
        The form, for rows of a benchmark.
    targets : GemmTargets
        Goals.
    """

    gpu: str
    source: str
    software: str
    dtype: str
    chip: Chip
    samples: Samples
    layers: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    model: GemmModel = BENCHMARK_MODEL
    targets: GemmTargets = GemmTargets()


def _reaches_far(samples: Samples) -> bool:
    """Return whether a correction that carries over to other (n, k) pays: it needs many."""
    return len(np.unique(samples.groups)) >= _WIDE_GROUPS


def _correction(model: GemmModel, wide: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the features of the correction that calibrations use, and options of its fit."""
    setup = next(setup for setup in SETUPS.values() if setup.model == model.name)
    if not wide:
        near = {"noise_ratio": setup.near_noise, "max_points": setup.near_points}
        return (), {"scales": setup.near, **near}
    return tuple(setup.features), {
        "scales": (*(setup.residual or ()), *setup.features.values()),
        "noise_ratio": setup.residual_noise,
        "max_points": setup.residual_points,
    }


def evaluate_gemm(stack: GemmStack) -> list[AccuracyRow]:
    """Return the rows of one stack: unseen shapes, unseen m, sums over a layer.

    Parameters
    ----------
    stack : GemmStack
        The data; products under 10 us are left out.

    Returns
    -------
    list of AccuracyRow
        Without unseen m if 24 or fewer were measured, without the sums if the stack names
        no layers.
    """
    samples = _long(stack.samples)
    features, options = _correction(stack.model, wide=True)
    plain, corrected = cross_validate_corrected(
        stack.model, samples, stack.chip, features=features, **options, **_FIT_OPTIONS
    )
    predicted = corrected if _reaches_far(samples) else plain
    roof = roofline_s(stack, samples)
    rows = [
        _row("unseen (n, k)", stack, samples.time_s, predicted, roof, stack.targets.unseen_shapes),
    ]
    if len(np.unique(samples.shapes["m"])) > _FEWEST_M:
        rows.append(_unseen_m(stack, samples))
    if stack.layers:
        rows.append(_layer_sums(stack, samples))
    return rows


def across_labs(fitted: GemmStack, predicted: GemmStack, target: Target = None) -> AccuracyRow:
    """Return how well a fit to one lab's timings predicts another's on the same GPU."""
    train, test = _long(fitted.samples), _long(predicted.samples)
    values = fit(fitted.model, train, fitted.chip, **_FIT_OPTIONS).values
    time_s = predicted.model.time_s(values, test.shapes, predicted.chip)
    quantity = f"fitted on {fitted.source}, {fitted.software}"
    return _row(quantity, predicted, test.time_s, time_s, roofline_s(predicted, test), target)


def roofline_s(stack: GemmStack, samples: Samples) -> FloatArray:
    """Return the datasheet roofline: the longer of computing and moving each operand once [s]."""
    m, n, k = (samples.shapes[name] for name in ("m", "n", "k"))
    moved = 2 * (m * k + m * n) + stack.model.weight_bytes(k) * n * k
    compute = 2 * m * n * k / stack.chip.peak_flops_per_s
    return np.maximum(compute, moved / stack.chip.bandwidth_bytes_per_s)


def _unseen_m(stack: GemmStack, samples: Samples) -> AccuracyRow:
    """Fit on every fifth value of m, at least 24, and predict the others of the same (n, k)."""
    values_of_m = np.unique(samples.shapes["m"])
    kept = max(_FEWEST_M, len(values_of_m) // _M_VALUES_KEPT)
    chosen = np.linspace(0, len(values_of_m) - 1, kept).round().astype(int)
    seen = np.isin(samples.shapes["m"], values_of_m[chosen])
    train = samples.take(seen)
    values = fit(stack.model, train, stack.chip, **_FIT_OPTIONS).values
    time_s = stack.model.time_s(values, samples.shapes, stack.chip)
    features, options = _correction(stack.model, _reaches_far(samples))
    points = coordinates(samples.shapes, stack.model.sizes, features, stack.chip.multiprocessors)
    residual = fit_residual(points[seen], np.log(train.time_s / time_s[seen]), **options)
    predicted = corrected_time_s(time_s, residual, points)
    quantity = f"unseen m of seen (n, k), fitted on {kept} values"
    return _row(
        quantity, stack, samples.time_s[~seen], predicted[~seen],
        roofline_s(stack, samples)[~seen], stack.targets.unseen_m,
    )  # fmt: skip


def _layer_sums(stack: GemmStack, samples: Samples) -> AccuracyRow:
    """Sum the products of a layer at tokens >= 128, every (n, k) of its model left out."""
    shapes = samples.shapes
    sums = []
    for products in stack.layers.values():
        wanted = [(shapes["n"] == n) & (shapes["k"] == k) for n, k in products]
        train = samples.take(~np.logical_or.reduce(wanted))
        values = fit(stack.model, train, stack.chip, **_FIT_OPTIONS).values
        modelled = stack.model.time_s(values, shapes, stack.chip)
        roof = roofline_s(stack, samples)
        tokens = set(shapes["m"][wanted[0]][shapes["m"][wanted[0]] >= 128])
        for rows in wanted[1:]:
            tokens &= set(shapes["m"][rows])
        for m in sorted(tokens):
            parts = [np.flatnonzero(rows & (shapes["m"] == m)) for rows in wanted]
            sums.append(
                [sum(np.mean(t[part]) for part in parts) for t in (samples.time_s, modelled, roof)]
            )
    measured, predicted, roofline = np.array(sums).T
    quantity = "sum of a layer's products, unseen model"
    return _row(quantity, stack, measured, predicted, roofline, stack.targets.layer_sums)


def _long(samples: Samples) -> Samples:
    rows: npt.NDArray[np.bool_] = samples.time_s >= _SHORTEST_S
    return samples.take(rows)


def _row(
    quantity: str,
    stack: GemmStack,
    measured: FloatArray,
    predicted: FloatArray,
    roof: FloatArray,
    target: Target,
) -> AccuracyRow:
    labels = (stack.gpu, stack.source, stack.software, stack.dtype)
    # The samples hold long kernels only; sums are judged whatever their length.
    return judge(quantity, labels, measured, predicted, roof, targets=target, least_s=0.0)
