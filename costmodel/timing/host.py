"""Time the GPU waits for the host, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from costmodel.catalog.runtimes import load_runtime
from costmodel.evaluation import Evaluation, FloatArray
from costmodel.ops import Op
from costmodel.specs.calibration import Calibration
from costmodel.specs.workload import Deployment
from costmodel.timing.kernels.launch import HostCosts, stage_time_s

__all__ = ["End", "ExposedHost", "HostQueue", "exposed_by_stage", "exposed_host_s", "host_queues"]

End = Literal["low", "mid", "high"]
"""Of the range that sources give of a launch."""

_EAGER = "eager"


@dataclass(frozen=True)
class ExposedHost:
    """Exposed host time of a pass.

    Attributes
    ----------
    time_s : ndarray
        [s]; shape of the points.
    low_s, high_s : ndarray
        The same with a launch at the ends of what sources say of it [s].
    """

    time_s: FloatArray
    low_s: FloatArray
    high_s: FloatArray


@dataclass(frozen=True)
class HostQueue:
    """Operators that one queue starts.

    Attributes
    ----------
    rows : tuple of int
        Which operators of the pass.
    costs : HostCosts
        What starting them costs.
    """

    rows: tuple[int, ...]
    costs: HostCosts


def host_queues(
    ops: Sequence[Op], deployment: Deployment, calibration: Calibration | None = None
) -> tuple[HostQueue, ...]:
    """Return the queues of a pass.

    Every stage is one queue of kernels.  Operators that no CUDA graph can hold are
    started eagerly whatever the runtime, as a queue of their own.

    Parameters
    ----------
    ops : sequence of Op
        Operators of the pass.
    deployment : Deployment
        Its runtime says what a launch costs.
    calibration : Calibration, optional
        Its measured host costs replace the runtime's defaults.

    Returns
    -------
    tuple of HostQueue
    """
    queues: dict[tuple[str, str], list[int]] = {}
    for index, op in enumerate(ops):
        if op.kind != "host":
            runtime = deployment.runtime if op.graph_safe else _EAGER
            queues.setdefault((op.stage, runtime), []).append(index)
    return tuple(
        HostQueue(tuple(rows), _costs(runtime, calibration))
        for (_, runtime), rows in queues.items()
    )


def exposed_by_stage(
    evaluation: Evaluation, op_s: FloatArray, queues: Sequence[HostQueue], end: End = "mid"
) -> dict[str, FloatArray]:
    """Return the exposed host time of each stage of a pass.

    Parameters
    ----------
    evaluation : Evaluation
        Evaluated operators.
    op_s : ndarray
        GPU time of one execution of each operator [s]; shape ``(operators, points)``.
    queues : sequence of HostQueue
        Of the pass.
    end : {"low", "mid", "high"}
        Which end of a launch's range.

    Returns
    -------
    dict of str to ndarray
        By operator stage [s].
    """
    found: dict[str, FloatArray] = {}
    for queue in queues:
        rows = list(queue.rows)
        counts = evaluation.repeat[rows]
        exposed = stage_time_s(
            (op_s[rows] * counts).sum(axis=0),
            (evaluation.launches[rows] * counts).sum(axis=0),
            (evaluation.host_syncs[rows] * counts).sum(axis=0),
            queue.costs.at_launch(end),
        )
        stage = evaluation.ops[rows[0]].stage
        found[stage] = found[stage] + exposed if stage in found else exposed
    return found


def exposed_host_s(
    evaluation: Evaluation,
    op_s: FloatArray,
    deployment: Deployment,
    calibration: Calibration | None = None,
) -> ExposedHost:
    """Return the exposed host time of a pass, summed over its queues.

    Parameters
    ----------
    evaluation : Evaluation
        Evaluated operators.
    op_s : ndarray
        GPU time of one execution of each operator [s]; shape ``(operators, points)``.
    deployment, calibration
        As in `host_queues`.

    Returns
    -------
    ExposedHost
    """
    queues = host_queues(evaluation.ops, deployment, calibration)
    nothing: FloatArray = np.zeros(evaluation.points)
    ends: tuple[End, ...] = ("mid", "low", "high")
    return ExposedHost(
        *(sum(exposed_by_stage(evaluation, op_s, queues, end).values(), nothing) for end in ends)
    )


def _costs(runtime: str, calibration: Calibration | None) -> HostCosts:
    measured = calibration.find_host(runtime) if calibration is not None else None
    if measured is not None:
        return HostCosts.measured(measured)
    return HostCosts.of(load_runtime(runtime))
