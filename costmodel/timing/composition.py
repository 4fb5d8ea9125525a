r"""Bounds of a sum of kernel times from the bounds of its parts.

Errors of one stack's kernels of one kind are correlated: a share
:math:`\rho` of their variance is common to all shapes, the rest belongs to a
shape.  With deviations :math:`u_i` of the parts,

.. math:: U_K^2 = \rho \Big(\sum_i u_i\Big)^2 + (1-\rho) \sum_i u_i^2,\qquad
          U^2 = \sum_K U_K^2

over kinds K.  Independent errors alone (:math:`\rho = 0`) would make the band of a
32-layer model far too narrow, since the repeats of a layer share theirs.
Another lab or framework shifts all kernels of a kind together, and kinds alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.evaluation import FloatArray

__all__ = ["Part", "any_stack_deviation", "same_stack_deviation"]


@dataclass(frozen=True)
class Part:
    """All executions of one operator.

    Attributes
    ----------
    kind : str
        Kernel kind; errors of different kinds are independent.
    time_s : ndarray
        Predicted time, all repeats [s].
    low, high : ndarray
        Bounds of measured over predicted time.
    common_share : float
        Share of the error's variance common to all shapes of the kind.
    lab_ratio : float
        By how much another lab or framework differs, as a ratio of at least 1.
    """

    kind: str
    time_s: FloatArray
    low: FloatArray
    high: FloatArray
    common_share: float
    lab_ratio: float


def same_stack_deviation(parts: Sequence[Part]) -> tuple[FloatArray, FloatArray]:
    """Return how far below and above the sum the truth may lie [s].

    Parameters
    ----------
    parts : sequence of Part
        The operators.

    Returns
    -------
    tuple of ndarray
        Downward and upward deviation, both at least 0.

    Examples
    --------
    >>> part = Part("gemm", np.array(1.0), np.array(0.9), np.array(1.2), 0.5, 1.1)
    >>> [round(float(x), 3) for x in same_stack_deviation([part])]
    [0.1, 0.2]
    """
    down = _squares(parts, [part.time_s * (1.0 - part.low) for part in parts])
    up = _squares(parts, [part.time_s * (part.high - 1.0) for part in parts])
    return np.sqrt(down), np.sqrt(up)


def any_stack_deviation(parts: Sequence[Part]) -> tuple[FloatArray, FloatArray]:
    """Return the deviations when the machine is another lab's [s].

    The difference between labs adds to what the same stack's fit leaves.

    Parameters
    ----------
    parts : sequence of Part
        The operators.

    Returns
    -------
    tuple of ndarray
    """
    down, up = same_stack_deviation(parts)
    shift_up = _sum([part.time_s * (part.lab_ratio - 1.0) for part in parts])
    shift_down = _sum([part.time_s * (1.0 - 1.0 / part.lab_ratio) for part in parts])
    return np.hypot(down, shift_down), np.hypot(up, shift_up)


def _squares(parts: Sequence[Part], deviations: Sequence[FloatArray]) -> FloatArray:
    total: FloatArray = np.asarray(0.0)
    for kind in dict.fromkeys(part.kind for part in parts):
        chosen = [
            (part.common_share, np.maximum(deviation, 0.0))
            for part, deviation in zip(parts, deviations, strict=True)
            if part.kind == kind
        ]
        share = chosen[0][0]
        together = _sum([deviation for _, deviation in chosen])
        apart = _sum([deviation**2 for _, deviation in chosen])
        total = total + share * together**2 + (1.0 - share) * apart
    return total


def _sum(rows: Sequence[FloatArray]) -> FloatArray:
    result: FloatArray = np.sum(np.broadcast_arrays(*rows), axis=0) if rows else np.asarray(0.0)
    return result
