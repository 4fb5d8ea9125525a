r"""Fitting the correction of a kernel model to what it missed.

A sparse Gaussian-process mean (subset of regressors): with correlations
:math:`K_{xz}` between rows and :math:`K_{zz}` among P chosen points,

.. math:: v = (K_{zx} W K_{xz} + \rho^2 K_{zz})^{-1} K_{zx} W y

for log ratios y, noise over amplitude :math:`\rho` and weights W that are
reweighted so that outliers count linearly.

References
----------
Quiñonero-Candela, Rasmussen, A Unifying View of Sparse Approximate Gaussian Process
Regression, JMLR 6, 2005, eq. 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.calibration.fitting import Samples, fit, group_folds
from costmodel.timing.kernels.base import Chip, FloatArray, KernelModel
from costmodel.timing.kernels.residual import Residual, coordinates, matern

__all__ = [
    "NEAR",
    "TILING",
    "WIDE",
    "WIDE_NOISE",
    "WIDE_POINTS",
    "WIDE_TILED",
    "corrected_time_s",
    "cross_validate_corrected",
    "fit_residual",
]

WIDE = (2.0, 2.0, 2.0)
"""Correlation lengths [octaves] that carry over to other (n, k); needs ~100 of them."""

WIDE_TILED = (4.0, 4.0, 1.2)
"""The same beside `TILING`, with which a correction reaches about two octaves of m or n."""

TILING: Mapping[str, float] = {
    "pad_m256": 1.3,
    "pad_n256": 1.3,
    "waves_128x128": 0.5,
    "waves_128x256": 0.5,
    "waves_256x128": 0.5,
    "tiles_128x128": 2.0,
}
"""Features that near products share, and their correlation lengths [octaves].

Chosen, with `WIDE_TILED`, on left-out (n, k) of four stacks (A100, H100, H200, L40S); on
six other stacks they lowered the error of left-out (n, k) as well.  Kernels of quantised
weights have other tiles: these features helped one of two and hurt the other.
"""

WIDE_NOISE = 0.6
"""Scatter of single rows over what neighbours share; from 0.4 to 0.8 the error is the same."""

WIDE_POINTS = 600
"""Places; 1000 would lower the error by another twentieth and be slower to read and use."""

NEAR = (0.25, 0.1, 0.1)
"""Correlation lengths [octaves] of an interpolation over m within a measured (n, k)."""

_OUTLIER = 0.05
_ROUNDS = 3


def fit_residual(
    points: FloatArray,
    log_ratio: FloatArray,
    *,
    scales: Sequence[float],
    max_points: int = 400,
    noise_ratio: float = 0.8,
    amplitude: float = 0.5,
    decimals: int = 4,
) -> Residual:
    """Return the correction that explains `log_ratio` near `points`.

    Parameters
    ----------
    points : ndarray
        Coordinates of measured shapes, (N, D) [octaves], features included.
    log_ratio : ndarray
        Logarithm of measured over modelled time, (N,).
    scales : sequence of float
        Correlation length along each coordinate [octaves].
    max_points : int
        Places kept: the ones that cover the data most evenly.
    noise_ratio : float
        Scatter of single rows over the size of what is shared by neighbours.
    amplitude : float
        Limit of the correction; larger log ratios are clipped.
    decimals : int
        Digits kept of the weights, which end up in a file.

    Returns
    -------
    Residual
    """
    lengths = np.asarray(scales, dtype=np.float64)
    target = np.clip(log_ratio, -amplitude, amplitude)
    places = points[_spread(points / lengths, max_points)]
    cross = matern(points / lengths, places / lengths)
    prior = noise_ratio**2 * matern(places / lengths, places / lengths)
    prior[np.diag_indices_from(prior)] += 1e-6
    weights: FloatArray = np.ones(len(target))
    solution: FloatArray = np.zeros(len(places))
    for _ in range(_ROUNDS):
        weighted = (cross * weights[:, None]).T
        solved = np.linalg.solve(weighted @ cross + prior, weighted @ target)
        solution = np.asarray(solved, dtype=np.float64)
        left: FloatArray = (target - cross @ solution) / _OUTLIER
        weights = 1 / np.sqrt(1 + left**2)
    return Residual(places, np.round(solution, decimals), lengths, amplitude)


def corrected_time_s(
    time_s: FloatArray, residual: Residual | None, points: FloatArray
) -> FloatArray:
    """Return modelled seconds times the correction, if there is one [s]."""
    if residual is None:
        return time_s
    result: FloatArray = time_s * np.exp(residual.log_correction(points))
    return result


def cross_validate_corrected(
    model: KernelModel,
    samples: Samples,
    chip: Chip,
    *,
    folds: int = 4,
    fold: npt.NDArray[np.int64] | None = None,
    features: tuple[str, ...] = (),
    **options: Any,
) -> tuple[FloatArray, FloatArray]:
    """Predict every row from fits of model and correction that did not see its group.

    Parameters
    ----------
    model, samples, chip
        As in `costmodel.calibration.fitting.fit`.
    folds : int
        Number of folds.
    fold : ndarray, optional
        Fold of each row, instead of `folds` grouped ones.
    features : tuple of str
        Coordinates of the correction beside the model's sizes.
    **options
        ``scales``, ``max_points``, ``noise_ratio`` of the correction, others of the fit.

    Returns
    -------
    plain, corrected : ndarray
        Out-of-fold seconds [s] without and with the correction.
    """
    names = ("scales", "max_points", "noise_ratio", "amplitude")
    ours = {name: options.pop(name) for name in names if name in options}
    fold = group_folds(samples.groups, folds) if fold is None else fold
    points = coordinates(samples.shapes, model.sizes, features, chip.multiprocessors)
    plain = np.empty(len(samples))
    corrected = np.empty(len(samples))
    for index in np.unique(fold):
        inside, outside = np.flatnonzero(fold != index), np.flatnonzero(fold == index)
        values = fit(model, samples.take(inside), chip, **options).values
        time_s = model.time_s(values, samples.shapes, chip)
        ratio = np.log(samples.time_s[inside] / time_s[inside])
        residual = fit_residual(points[inside], ratio, **ours)
        plain[outside] = time_s[outside]
        corrected[outside] = corrected_time_s(time_s[outside], residual, points[outside])
    return plain, corrected


def _spread(points: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Return rows far from each other: each next one is the farthest from those before."""
    chosen = [int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(points)) and distance.max() > 1e-9:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen, dtype=np.int64)
