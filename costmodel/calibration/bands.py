r"""Error bands from out-of-fold residuals, and how bands of several kernels add up.

Split conformal prediction: with n residuals of rows a fit did not see, the
:math:`\lceil (n+1) q\rceil`-th smallest bounds a new one with probability q if it is
exchangeable with them.  Rows of one group are alike, so that few groups promise less
than many rows.  The tails are therefore shrunk until groups that are left out in turn
are covered as often as asked for.

**Sums.**  The error of a kernel at one size has a part that all its shapes share
(share :math:`\rho` of the variance: clocks, a framework's overhead) and a part of its
own.  For a sum of kernels with times :math:`t_i` and half-widths :math:`u_i` of log time

.. math:: U = \frac{\sqrt{\rho\,(\sum t_i u_i)^2 + (1-\rho) \sum (t_i u_i)^2}}{\sum t_i}

Kernels that repeat one shape (the layers of a decoder) have one error and count as one
kernel with the summed time.

References
----------
Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, Distribution-Free Predictive Inference for
Regression, JASA 113, 2018, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costmodel.calibration.fitting import group_folds
from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import FloatArray

__all__ = ["Bands", "bands_from_residuals", "common_share", "sum_half_width"]

_FEWEST_ROWS = 30
_FOLDS = 10
_TAIL_SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1, 0.0)


@dataclass(frozen=True)
class Bands:
    """Where measured over predicted time lies, by size.

    Attributes
    ----------
    edges : tuple of float
        Inner boundaries of the bins of size, ascending; one fewer than bins.
    low, high : tuple of float
        Logarithm of measured over predicted time at the lower and upper end, per bin.
    common_share : float
        Share of the variance that all shapes of one size have in common.

    Examples
    --------
    >>> bands = Bands((100.0,), (-0.2, -0.1), (0.3, 0.1), 0.25)
    >>> low, high = bands.log_range(np.array([10.0, 1000.0]))
    >>> low.tolist(), high.tolist()
    ([-0.2, -0.1], [0.3, 0.1])
    """

    edges: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    common_share: float

    def log_range(self, size: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper log ratio for points of the given sizes."""
        index = np.searchsorted(np.asarray(self.edges), size, side="right")
        return np.asarray(self.low)[index], np.asarray(self.high)[index]


def bands_from_residuals(
    log_ratio: FloatArray,
    size: FloatArray,
    groups: npt.NDArray[np.int64],
    level: float = 0.9,
    edges: Sequence[float] = (),
) -> Bands:
    """Return two-sided bands that cover `level` of rows of unseen groups.

    Parameters
    ----------
    log_ratio : ndarray
        Logarithm of measured over out-of-fold predicted time.
    size : ndarray
        Variable of the bins, for example m or predicted seconds.
    groups : ndarray
        Group of each row, as in cross-validation.
    level : float
        Coverage, in (0, 1).
    edges : sequence of float
        Inner boundaries of the bins; a bin of under 30 rows takes the range of all rows.

    Returns
    -------
    Bands

    Raises
    ------
    CostModelError
        If there are no rows or `level` is not between 0 and 1.
    """
    if not len(log_ratio) or not 0 < level < 1:
        raise CostModelError(
            f"bands: need rows and a level between 0 and 1, not {len(log_ratio)} and {level}"
        )
    index = np.searchsorted(np.asarray(edges), size, side="right")
    overall = _range(log_ratio, groups, level)
    ranges = []
    for bin_ in range(len(edges) + 1):
        rows = index == bin_
        enough = rows.sum() >= _FEWEST_ROWS
        ranges.append(_range(log_ratio[rows], groups[rows], level) if enough else overall)
    return Bands(
        tuple(float(edge) for edge in edges),
        tuple(low for low, _ in ranges),
        tuple(high for _, high in ranges),
        common_share(log_ratio, size, groups),
    )


def common_share(log_ratio: FloatArray, size: FloatArray, groups: npt.NDArray[np.int64]) -> float:
    r"""Return the share :math:`\rho` of variance that groups have in common at one size.

    The mean product of residuals of two groups at the same size, over the mean square:

    .. math:: \rho = \frac{\sum_s \sum_{g \ne h} e_{gs} e_{hs} / (G_s - 1)}
                          {\sum_s \sum_g e_{gs}^2}

    Parameters
    ----------
    log_ratio, size, groups
        As in `bands_from_residuals`.

    Returns
    -------
    float
        Between 0 and 1; 1 if no size was measured for two groups.
    """
    keys = np.stack([np.asarray(size, dtype=np.float64), groups.astype(np.float64)])
    unique, inverse = np.unique(keys, axis=1, return_inverse=True)
    rows = np.bincount(inverse.ravel())
    mean = np.bincount(inverse.ravel(), weights=log_ratio) / rows
    _, same = np.unique(unique[0], return_inverse=True)
    members = np.bincount(same)
    sums = np.bincount(same, weights=mean)
    squares = np.bincount(same, weights=mean**2)
    several = members > 1
    if not several.any() or squares[several].sum() == 0:
        return 1.0
    pairs = (sums[several] ** 2 - squares[several]) / (members[several] - 1)
    return float(np.clip(pairs.sum() / squares[several].sum(), 0.0, 1.0))


def sum_half_width(time_s: FloatArray, half_width: FloatArray, common: float) -> FloatArray:
    r"""Return the half-width U of the log time of a sum of kernels.

    Parameters
    ----------
    time_s : ndarray
        Predicted seconds of each kernel, last axis summed [s].
    half_width : ndarray
        Lower or upper reach of each kernel's log time, same shape.
    common : float
        Share of variance in common.

    Returns
    -------
    ndarray
        One per sum: the equation above.

    Examples
    --------
    >>> sum_half_width(np.ones(4), np.full(4, 0.1), 0.0).round(3).item()
    0.05
    >>> sum_half_width(np.ones(4), np.full(4, 0.1), 1.0).round(3).item()
    0.1
    """
    reach = np.abs(half_width) * time_s
    variance = common * reach.sum(axis=-1) ** 2 + (1 - common) * (reach**2).sum(axis=-1)
    result: FloatArray = np.sqrt(variance) / time_s.sum(axis=-1)
    return result


def _range(
    log_ratio: FloatArray, groups: npt.NDArray[np.int64], level: float
) -> tuple[float, float]:
    """Return the narrowest quantiles that cover `level` of groups left out in turn."""
    fold = group_folds(groups, min(_FOLDS, len(np.unique(groups))))
    tail = (1 - level) / 2
    for share in _TAIL_SHARES:
        covered = 0
        for index in np.unique(fold):
            out = fold == index
            if out.all():
                break
            low, high = _quantiles(log_ratio[~out], tail * share)
            covered += int(((log_ratio[out] >= low) & (log_ratio[out] <= high)).sum())
        if covered >= level * len(log_ratio):
            break
    return _quantiles(log_ratio, tail * share)


def _quantiles(log_ratio: FloatArray, tail: float) -> tuple[float, float]:
    """Return the order statistics that leave out `tail` on either side, finite-sample corrected."""
    ordered = np.sort(log_ratio)
    rank = min(int(np.ceil((1 - tail) * (len(ordered) + 1))), len(ordered))
    return float(ordered[len(ordered) - rank]), float(ordered[rank - 1])
