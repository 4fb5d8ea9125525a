"""The datasheet roofline: every operator at the peak rate or the peak bandwidth."""

from __future__ import annotations

import numpy as np

from costmodel.evaluation import Evaluation
from costmodel.specs.workload import Deployment
from costmodel.timing.device import Device
from costmodel.timing.model import BOUNDS, PassTimes, Provenance
from costmodel.timing.roofline import limits

__all__ = ["MODEL", "IdealRoofline"]


class IdealRoofline:
    r"""Sum over operators of the larger of arithmetic and traffic time.

    .. math:: t = \sum_i r_i \max\!\left(\frac{F_i}{P_i}, \frac{Q_i}{B}\right)

    with repeats r, FLOPs F, dense peak P of the operator's format, bytes Q and
    memory bandwidth B [1]_.  Collectives also take their link bytes over the
    link bandwidth; host work takes the host's roofline plus the host link.
    Launches and host synchronisation cost nothing here, which is why no real
    machine reaches these times.

    References
    ----------
    .. [1] S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful
       Visual Performance Model for Multicore Architectures", CACM 52(4), 2009.
    """

    name = "ideal"
    summary = "datasheet roofline, summed over operators; no launch overhead, no derating"

    def times(self, evaluation: Evaluation, device: Device, deployment: Deployment) -> PassTimes:
        """Return the roofline time of every operator."""
        seconds, bounds = [], []
        for index in range(len(evaluation.ops)):
            terms = limits(evaluation, index, device)
            stacked = np.stack(list(terms.values()))
            winner = stacked.argmax(axis=0)
            seconds.append(stacked.max(axis=0))
            codes = np.array([BOUNDS.index(bound) for bound in terms])
            bounds.append(codes[winner])
        rests_on: Provenance = "datasheet"
        return PassTimes(
            op_s=np.stack(seconds),
            bound=np.stack(bounds),
            provenance=(rests_on,) * len(evaluation.ops),
            host_overhead_s=np.zeros(evaluation.points),
        )


MODEL = IdealRoofline()
