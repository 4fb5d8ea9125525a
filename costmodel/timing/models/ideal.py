"""The datasheet roofline: every operator at the peak rate or the peak bandwidth."""

from __future__ import annotations

import numpy as np

from costmodel.evaluation import Evaluation, FloatArray
from costmodel.ops import Op
from costmodel.specs.workload import Deployment
from costmodel.symbols import sym
from costmodel.timing.device import Device
from costmodel.timing.model import BOUNDS, PassTimes, Provenance

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
        traffic = evaluation.bytes_moved
        for index, op in enumerate(evaluation.ops):
            terms = _terms(op, evaluation, device, index, traffic[index])
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


def _terms(
    op: Op, evaluation: Evaluation, device: Device, index: int, traffic: FloatArray
) -> dict[str, FloatArray]:
    flops = evaluation.flops[index]
    if op.kind == "host":
        link = evaluation.shapes[index]["link_bytes"] / device.host_link_bytes_per_s
        work = np.maximum(
            flops / device.host_flops_per_s, traffic / device.host_bandwidth_bytes_per_s
        )
        return {"host": work + link} if flops.any() else {"link": work * 0 + link}
    terms = {
        "compute": flops / _peak(op, device),
        "memory": traffic / device.bandwidth_bytes_per_s,
    }
    if op.kind == "collective":
        link_bytes = np.broadcast_to(evaluation.shapes[index]["link_bytes"], flops.shape)
        terms["link"] = link_bytes / device.link_bytes_per_s
    return terms


def _peak(op: Op, device: Device) -> float:
    if not op.matmul:
        return device.vector_flops_per_s
    linear = sym("bw") in op.traffic.weights.free_symbols
    return device.linear_flops_per_s if linear else device.matmul_flops_per_s


MODEL = IdealRoofline()
