r"""What a result hangs on, one quantity of the machine at a time.

The elasticity of a time t with respect to a rate x is

.. math:: E_x = \frac{\mathrm{d} \ln t}{\mathrm{d} \ln x}

so that 1 % more of x changes t by :math:`E_x` %.  Where times are sums of maxima of work over
rates, as in the roofline, :math:`-E_x` is the share of the time that x bounds, and the elasticities
of all rates sum to -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.case import Case
from costmodel.errors import InputError, UnknownNameError
from costmodel.evaluation import FloatArray
from costmodel.search.scaled_device import QUANTITIES, Outcome, what_if

__all__ = ["FACTORS", "Change", "Elasticity", "Sensitivity", "sensitivity"]

FACTORS = (0.5, 2.0)

_STEP = 1e-3


@dataclass(frozen=True)
class Change:
    """The case with one quantity scaled.

    Attributes
    ----------
    quantity : str
        Which; empty for the case as it is.
    factor : float
        By how much.
    ttft_s, tpot_s : float
        Times [s].
    stages_s : dict of str to float
        By stage of the prefill, and ``host_overhead`` [s].
    baseline_ttft_s : float
        Time to the first token without compression, scaled alike [s].
    """

    quantity: str
    factor: float
    ttft_s: float
    tpot_s: float
    stages_s: dict[str, float]
    baseline_ttft_s: float

    @property
    def speedup(self) -> float:
        """Time to the first token without compression over that with it."""
        return self.baseline_ttft_s / self.ttft_s


@dataclass(frozen=True)
class Elasticity:
    """Percent by which results change for one percent more of a quantity."""

    quantity: str
    ttft: float
    tpot: float
    speedup: float


@dataclass(frozen=True)
class Sensitivity:
    """What changes of the machine do to a case.

    Attributes
    ----------
    case : Case
        The question.
    base : Change
        The case as it is.
    changes : tuple of Change
        By quantity and factor.
    elasticities : tuple of Elasticity
        By quantity.
    """

    case: Case
    base: Change
    changes: tuple[Change, ...]
    elasticities: tuple[Elasticity, ...]


def sensitivity(
    case: Case,
    quantities: Sequence[str] = tuple(QUANTITIES),
    factors: Sequence[float] = FACTORS,
) -> Sensitivity:
    """Scale one quantity of the machine after the other.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.
    quantities : sequence of str
        Of `costmodel.search.scaled_device.QUANTITIES`.
    factors : sequence of float
        By how much each is scaled.

    Returns
    -------
    Sensitivity

    Raises
    ------
    UnknownNameError
        If a quantity is not known.
    InputError
        If a factor is not positive, or there is none.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, time_model="ideal")
    >>> found = sensitivity(case, ["compute", "bandwidth", "interconnect"])
    >>> round(sum(one.ttft for one in found.elasticities), 6)
    -1.0
    """
    names = list(dict.fromkeys(quantities))
    for name in names:
        if name not in QUANTITIES:
            raise UnknownNameError("quantity", name, QUANTITIES)
    if not names or not len(factors):
        raise InputError("vary" if not names else "by", None, "at least one")
    for factor in factors:
        if not 0 < factor < math.inf:
            raise InputError("by", factor, "factors above 0")
    scaled = [(name, float(factor)) for name in names for factor in factors]
    ends = [(name, float(np.exp(sign * _STEP))) for name in names for sign in (-1, 1)]
    points = [("", 1.0), *scaled, *ends]
    columns = {
        name: np.array([factor if name == of else 1.0 for of, factor in points]) for name in names
    }
    outcomes = [what_if(one, **columns) for one in (case, replace(case, request=None))]
    changes = [_change(*points[index], index, *outcomes) for index in range(1 + len(scaled))]
    first = 1 + len(scaled)
    found = [
        _elasticity(name, slice(first + 2 * index, first + 2 * index + 2), *outcomes)
        for index, name in enumerate(names)
    ]
    return Sensitivity(case, changes[0], tuple(changes[1:]), tuple(found))


def _change(quantity: str, factor: float, index: int, now: Outcome, before: Outcome) -> Change:
    return Change(
        quantity=quantity,
        factor=factor,
        ttft_s=float(now.ttft_s[index]),
        tpot_s=float(now.tpot_s[index]),
        stages_s={stage: float(column[index]) for stage, column in now.stages_s.items()},
        baseline_ttft_s=float(before.ttft_s[index]),
    )


def _elasticity(name: str, ends: slice, now: Outcome, before: Outcome) -> Elasticity:
    def slope(column: FloatArray) -> float:
        below, above = np.log(column[ends])
        return float((above - below) / (2 * _STEP))

    ttft = slope(now.ttft_s)
    return Elasticity(name, ttft, slope(now.tpot_s), slope(before.ttft_s) - ttft)
