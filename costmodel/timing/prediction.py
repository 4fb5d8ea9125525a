"""One kernel's time, bounds and provenance from a calibration's fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from costmodel.evaluation import FloatArray
from costmodel.specs.calibration import KindFit, ResidualTable
from costmodel.timing.kernels.base import Chip
from costmodel.timing.kernels.registry import kernel_model
from costmodel.timing.kernels.residual import Residual, coordinates
from costmodel.timing.model import Provenance

__all__ = ["band_ratios", "distance_outside", "kernel_time_s", "provenance_of"]

Sizes = Mapping[str, FloatArray]

_WIDEN_PER_OCTAVE = 0.25
"""Relative widening of a band for each factor of two outside the measured range."""

_WIDEST = 3.0
"""A band is widened at most this often, and its ratios stay within this factor."""


def kernel_time_s(fit: KindFit, sizes: Sizes, chip: Chip, *, benchmark: bool = False) -> FloatArray:
    """Return seconds of one kernel on `chip`.

    Parameters
    ----------
    fit : KindFit
        Parameters, and a time scale where they are transferred.
    sizes : mapping of str to ndarray
        Sizes the kernel model reads.
    chip : Chip
        The device.
    benchmark : bool
        Whether operands may be left in the cache by an earlier repetition, as in a
        benchmark, rather than displaced by other layers, as in a model.

    Returns
    -------
    ndarray
        [s].
    """
    seconds = kernel_model(fit.model, benchmark=benchmark).time_s(fit.values, sizes, chip)
    if fit.residual is not None:
        seconds = seconds * np.exp(_log_correction(fit.residual, sizes, chip))
    return np.asarray(seconds * fit.time_scale, dtype=np.float64)


def _log_correction(table: ResidualTable, sizes: Sizes, chip: Chip) -> FloatArray:
    names = tuple(table.points)
    points = {name: np.asarray(table.points[name]) for name in names}
    if table.features:
        # Batches move the features of what is asked, but all places are single products.
        shape = np.broadcast_shapes(
            *(np.shape(sizes[name]) for name in {*names, "batch"} & {*sizes})
        )
        places = coordinates(points, names, table.features, chip.multiprocessors)
    else:
        shape = np.broadcast_shapes(*(np.shape(sizes[name]) for name in names))
        places = np.stack([points[name] for name in names], axis=1)
    residual = Residual(places, np.asarray(table.values), np.asarray(table.scales), table.amplitude)
    asked = coordinates(sizes, names, table.features, chip.multiprocessors)
    return residual.log_correction(asked).reshape(shape)


def distance_outside(fit: KindFit, sizes: Sizes) -> FloatArray:
    """Return how far sizes lie outside the measured range, in octaves; 0 inside.

    Examples
    --------
    >>> from costmodel.specs.calibration import BandTable
    >>> import datetime
    >>> fit = KindFit(kind="gemm", model="tile_wave", device="d", values={}, source="s",
    ...               software="w", dtype="fp16", rows=1, fitted=datetime.date(2026, 1, 1),
    ...               valid={"m": (1, 4096)}, bands=BandTable(size="m", low=(1,), high=(1,)))
    >>> distance_outside(fit, {"m": np.array([64.0, 16384.0])})
    array([0., 2.])
    """
    total: FloatArray = np.zeros(np.broadcast_shapes(*(np.shape(size) for size in sizes.values())))
    for name, (low, high) in fit.valid.items():
        if name in sizes:
            size = np.maximum(sizes[name], 1e-30)
            below = np.log2(max(low, 1e-30) / size)
            above = np.log2(size / max(high, 1e-30))
            total = total + np.maximum(np.maximum(below, above), 0.0)
    return total


def band_ratios(
    fit: KindFit, sizes: Sizes, time_s: FloatArray, outside: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return bounds of measured over predicted time of single kernels.

    Parameters
    ----------
    fit : KindFit
        Its bands hold on the measured range.
    sizes : mapping of str to ndarray
        Sizes.
    time_s : ndarray
        Predicted seconds, for bands over time.
    outside : ndarray
        Octaves outside the measured range; each widens the band.

    Returns
    -------
    tuple of ndarray
        Low and high ratio.
    """
    bands = fit.bands
    size = time_s if bands.size == "time_s" else sizes[bands.size]
    bins = np.searchsorted(np.asarray(bands.edges), size, side="right")
    widen = np.minimum(1.0 + _WIDEN_PER_OCTAVE * outside, _WIDEST)
    low = np.asarray(bands.low)[bins]
    high = np.asarray(bands.high)[bins]
    return np.maximum(low**widen, 1.0 / _WIDEST), np.minimum(high**widen, _WIDEST)


def provenance_of(fit: KindFit, sizes: Sizes, outside: FloatArray) -> Provenance:
    """Return what the time of an operator rests on, at its weakest point.

    ``measured`` needs that very shape in the data, at every point.
    """
    if fit.origin != "fitted":
        return "transferred"
    if (outside > 0).any():
        return "extrapolated"
    return "measured" if _was_measured(fit, sizes) else "interpolated"


def _was_measured(fit: KindFit, sizes: Sizes) -> bool:
    if fit.seen is None or any(np.ndim(size) for size in sizes.values()):
        return False
    return fit.seen.holds({name: float(size) for name, size in sizes.items()})
