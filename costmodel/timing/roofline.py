"""The limits of one operator: arithmetic, memory, link and host time on a datasheet device."""

from __future__ import annotations

import numpy as np

from costmodel.evaluation import Evaluation, FloatArray
from costmodel.ops import Op
from costmodel.symbols import sym
from costmodel.timing.device import Device

__all__ = ["limits", "peak_flops_per_s"]


def limits(evaluation: Evaluation, index: int, device: Device) -> dict[str, FloatArray]:
    """Return the time each resource needs for one execution of an operator.

    Parameters
    ----------
    evaluation : Evaluation
        Evaluated operators.
    index : int
        Which one.
    device : Device
        Datasheet rates.

    Returns
    -------
    dict of str to ndarray
        Seconds by the names of `costmodel.timing.model.BOUNDS`; the largest bounds.
    """
    op = evaluation.ops[index]
    traffic: FloatArray = np.sum([rows[index] for rows in evaluation.traffic.values()], axis=0)
    flops = evaluation.flops[index]
    if op.kind == "host":
        link = evaluation.shapes[index]["link_bytes"] / device.host_link_bytes_per_s
        work = np.maximum(
            flops / device.host_flops_per_s, traffic / device.host_bandwidth_bytes_per_s
        )
        return {"host": work + link} if flops.any() else {"link": work * 0 + link}
    terms = {
        "compute": flops / peak_flops_per_s(op, device),
        "memory": traffic / device.bandwidth_bytes_per_s,
    }
    if op.kind == "collective":
        link_bytes = np.broadcast_to(evaluation.shapes[index]["link_bytes"], flops.shape)
        terms["link"] = link_bytes / device.link_bytes_per_s
    return terms


def peak_flops_per_s(op: Op, device: Device) -> float:
    """Return the datasheet peak of the format and engine an operator computes in [FLOP/s]."""
    if not op.matmul:
        return device.vector_flops_per_s
    linear = sym("bw") in op.traffic.weights.free_symbols
    return device.linear_flops_per_s if linear else device.matmul_flops_per_s
