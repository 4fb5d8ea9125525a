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

__all__ = [
    "DeviationSums",
    "Part",
    "any_stack_deviation",
    "deviation_sums",
    "same_stack_deviation",
]


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


@dataclass(frozen=True)
class DeviationSums:
    """What a deviation is composed of: sums over parts, so that those of two stages add up.

    Attributes
    ----------
    shares : dict of str to float
        Common share by kind.
    together : dict of str to ndarray
        Sum of the deviations by kind [s].
    apart : ndarray
        Sum of squared deviations, each times the share of its kind that is not common [s^2].
    shift : ndarray
        Sum of what another lab shifts [s].
    """

    shares: dict[str, float]
    together: dict[str, FloatArray]
    apart: FloatArray
    shift: FloatArray

    def same_stack(self) -> FloatArray:
        """Return the deviation on the same stack [s]."""
        squares = (self.shares[kind] * total**2 for kind, total in self.together.items())
        return np.sqrt(sum(squares, start=self.apart))

    def any_stack(self) -> FloatArray:
        """Return the deviation on any stack [s]."""
        return np.hypot(self.same_stack(), self.shift)


def deviation_sums(parts: Sequence[Part]) -> tuple[DeviationSums, DeviationSums]:
    """Return the sums over `parts` that a band's downward and upward deviation are made of."""
    down = [(part.time_s * (1.0 - part.low), 1.0 - 1.0 / part.lab_ratio) for part in parts]
    up = [(part.time_s * (part.high - 1.0), part.lab_ratio - 1.0) for part in parts]
    return _sums(parts, down), _sums(parts, up)


def _sums(parts: Sequence[Part], sides: Sequence[tuple[FloatArray, float]]) -> DeviationSums:
    shares: dict[str, float] = {}
    together: dict[str, FloatArray] = {}
    apart: FloatArray = np.asarray(0.0)
    shift: FloatArray = np.asarray(0.0)
    for part, (deviation, other_lab) in zip(parts, sides, strict=True):
        share = shares.setdefault(part.kind, part.common_share)
        own = np.maximum(deviation, 0.0)
        together[part.kind] = together[part.kind] + own if part.kind in together else own
        apart = apart + (1.0 - share) * own**2
        shift = shift + part.time_s * other_lab
    return DeviationSums(shares, together, apart, shift)


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
    down, up = deviation_sums(parts)
    return down.same_stack(), up.same_stack()


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
    down, up = deviation_sums(parts)
    return down.any_stack(), up.any_stack()
