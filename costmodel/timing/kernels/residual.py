r"""What a kernel model systematically misses near measured shapes.

Libraries choose kernels by rules no closed form follows, yet by the same rules for
similar shapes.  A kernel regression of the logarithm of measured over modelled time
carries that over to neighbours and leaves the model alone far from any measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from costmodel.timing.kernels.base import FloatArray, Shapes
from costmodel.timing.kernels.tile_features import tile_features

__all__ = ["Residual", "coordinates", "matern"]

# Correlations computed at once: what stays in the cache is several times faster than what does not.
_BLOCK = 32_768


def coordinates(
    shapes: Shapes,
    sizes: tuple[str, ...],
    features: tuple[str, ...] = (),
    multiprocessors: int = 1,
) -> FloatArray:
    """Return the binary logarithm of the sizes, then features, a row per point [octaves].

    Parameters
    ----------
    shapes : mapping of str to ndarray
        Sizes by name.
    sizes : tuple of str
        Those that are coordinates.
    features : tuple of str
        Further coordinates: names that `tile_features` knows.
    multiprocessors : int
        Of the device; only features need it.

    Returns
    -------
    ndarray
        (points, sizes and features).

    Examples
    --------
    >>> coordinates({"m": np.array([8.0]), "n": np.array([1024.0])}, ("m", "n")).tolist()
    [[3.0, 10.0]]
    """
    logarithms = [np.log2(np.asarray(shapes[name], dtype=np.float64)) for name in sizes]
    columns = np.broadcast_arrays(*logarithms, *tile_features(shapes, features, multiprocessors))
    return np.stack([column.ravel() for column in columns], axis=1)


def matern(first: FloatArray, second: FloatArray) -> FloatArray:
    r"""Return the Matérn 3/2 correlation :math:`(1 + \sqrt3 d) e^{-\sqrt3 d}` of all pairs.

    Parameters
    ----------
    first, second : ndarray
        Points in units of the correlation length, of shapes (P, D) and (Q, D).

    Returns
    -------
    ndarray
        Of shape (P, Q), 1 at no distance.

    References
    ----------
    Rasmussen, Williams, Gaussian Processes for Machine Learning, MIT Press 2006, eq. 4.17.

    Examples
    --------
    >>> matern(np.zeros((1, 2)), np.array([[0.0, 0.0], [9.0, 9.0]])).round(3).tolist()
    [[1.0, 0.0]]
    """
    distance: FloatArray = first @ (-6 * second.T)
    distance += 3 * (first**2).sum(axis=1)[:, None]
    distance += 3 * (second**2).sum(axis=1)
    np.sqrt(np.maximum(distance, 0.0, out=distance), out=distance)
    decay = np.exp(-distance)
    distance += 1
    return np.multiply(distance, decay, out=decay)


@dataclass(frozen=True)
class Residual:
    r"""Correction :math:`\sum_j K(x, z_j) v_j` of the logarithm of time.

    Attributes
    ----------
    points : ndarray
        Places :math:`z_j` in the space of `coordinates`, (P, D) [octaves].
    values : ndarray
        Weights :math:`v_j`, (P,).
    scales : ndarray
        Correlation length along each coordinate, (D,) [octaves].
    amplitude : float
        Largest absolute correction of log time.

    Examples
    --------
    >>> hump = Residual(np.array([[10.0]]), np.array([0.2]), np.array([1.0]), 0.5)
    >>> hump.log_correction(np.array([[10.0], [30.0]])).round(3).tolist()
    [0.2, 0.0]
    >>> hump.support(np.array([[10.0], [30.0]])).round(3).tolist()
    [1.0, 0.0]
    """

    points: FloatArray
    values: FloatArray
    scales: FloatArray
    amplitude: float

    def log_correction(self, shapes: FloatArray) -> FloatArray:
        """Return what to add to the logarithm of modelled time.

        Parameters
        ----------
        shapes : ndarray
            Coordinates as of `coordinates`, (N, D) [octaves].

        Returns
        -------
        ndarray
            (N,); 0 far from every point.
        """
        result = np.empty(len(shapes))
        for rows, correlation in self._correlations(shapes):
            result[rows] = correlation @ self.values
        return np.clip(result, -self.amplitude, self.amplitude)

    def support(self, shapes: FloatArray) -> FloatArray:
        """Return how near measurements are: the correlation with the nearest point.

        Parameters
        ----------
        shapes : ndarray
            As in `log_correction`.

        Returns
        -------
        ndarray
            (N,), from 0 (extrapolated) to 1 (measured).
        """
        result = np.zeros(len(shapes))
        for rows, correlation in self._correlations(shapes):
            if correlation.shape[1]:
                result[rows] = correlation.max(axis=1)
        return result

    def _correlations(self, shapes: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        places = self.points / self.scales
        step = max(1, _BLOCK // max(1, len(places)))
        for first in range(0, len(shapes), step):
            rows = slice(first, first + step)
            yield rows, matern(shapes[rows] / self.scales, places)
