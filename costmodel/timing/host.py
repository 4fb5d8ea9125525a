"""Time the GPU waits for the host, stage by stage."""

from __future__ import annotations

import numpy as np

from costmodel.catalog.runtimes import load_runtime
from costmodel.evaluation import Evaluation, FloatArray
from costmodel.specs.workload import Deployment
from costmodel.timing.kernels.launch import HostCosts, stage_time_s

__all__ = ["exposed_host_s"]

_EAGER = "eager"


def exposed_host_s(
    evaluation: Evaluation, busy_s: FloatArray, deployment: Deployment
) -> FloatArray:
    """Return the exposed host time of a pass [s].

    Every stage is one queue of kernels.  Operators that no CUDA graph can hold are
    started eagerly whatever the runtime, as a queue of their own.

    Parameters
    ----------
    evaluation : Evaluation
        Evaluated operators.
    busy_s : ndarray
        GPU time of each operator, all repeats [s]; shape ``(operators, points)``.
    deployment : Deployment
        Its runtime says what a launch costs.

    Returns
    -------
    ndarray
        [s]; shape of the points.
    """
    queues: dict[tuple[str, str], list[int]] = {}
    for index, op in enumerate(evaluation.ops):
        if op.kind != "host":
            runtime = deployment.runtime if op.graph_safe else _EAGER
            queues.setdefault((op.stage, runtime), []).append(index)
    total: FloatArray = np.zeros(evaluation.points)
    for (_, runtime), rows in queues.items():
        counts = evaluation.repeat[rows]
        total = total + stage_time_s(
            busy_s[rows].sum(axis=0),
            (evaluation.launches[rows] * counts).sum(axis=0),
            (evaluation.host_syncs[rows] * counts).sum(axis=0),
            HostCosts.of(load_runtime(runtime)),
        )
    return total
