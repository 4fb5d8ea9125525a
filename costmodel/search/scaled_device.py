"""A case on devices that do not exist: some of their rates are others, the rest stays.

A calibration states what share of a datasheet rate kernels reach, so that a device with twice the
bandwidth reaches the same share of twice as much.  Fixed costs of a kernel and the bandwidth of
the second-level cache are fitted in seconds and bytes per second and stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.errors import InputError, UnknownNameError
from costmodel.evaluation import Evaluation, FloatArray, evaluate
from costmodel.program import Phase, Program
from costmodel.results import STAGES, stage_of
from costmodel.specs.hardware import HardwareProfile
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.kernels.launch import HostCosts, stage_time_s
from costmodel.timing.model import PassTimes, load_time_model

__all__ = ["QUANTITIES", "Outcome", "what_if"]

QUANTITIES = {
    "bandwidth": "bandwidth of device memory",
    "compute": "all peak rates of the device",
    "launch": "host time per launch, per start of a stage and per synchronisation",
    "l2": "size of the second-level cache",
    "interconnect": "links to other devices and to the host",
}
"""What can be scaled, and what it is."""

# Below the chunks of kernel models, which know nothing of rates that differ between points.
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Outcome:
    """Times at every point.

    Attributes
    ----------
    stages_s : dict of str to ndarray
        By stage of the prefill, and ``host_overhead`` [s].
    tpot_s : ndarray
        Per output token [s].
    """

    stages_s: dict[str, FloatArray]
    tpot_s: FloatArray

    @property
    def ttft_s(self) -> FloatArray:
        """Time to the first token [s]."""
        total: FloatArray = np.sum(list(self.stages_s.values()), axis=0)
        return total


def what_if(case: Case, **factors: Any) -> Outcome:
    """Return the times of a case with some rates of its device scaled.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.
    **factors : float or array_like
        By `QUANTITIES`, broadcast against each other; 2 is twice the rate or cost.

    Returns
    -------
    Outcome
        Arrays of the factors' shape.

    Raises
    ------
    UnknownNameError
        If a quantity is not known.
    InputError
        If a factor is not positive and finite.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, time_model="ideal")
    >>> slow, same = what_if(case, bandwidth=[0.5, 1.0], compute=[0.5, 1.0]).ttft_s
    >>> round(float(slow / same), 12)
    2.0
    """
    columns = {name: _factor(name, value) for name, value in factors.items()}
    shape = np.broadcast_shapes(*(column.shape for column in columns.values()))
    flat = {
        name: np.broadcast_to(columns.get(name, np.ones(())), shape).ravel() for name in QUANTITIES
    }
    program, _ = case.program()
    rows = [*STAGES, "host_overhead", "tpot"]
    found = np.empty((len(rows), flat["l2"].size))
    # The cache's size belongs to the profile, which holds one number for all points.
    for size in np.unique(flat["l2"]):
        same = np.flatnonzero(flat["l2"] == size)
        for first in range(0, len(same), _CHUNK):
            points = same[first : first + _CHUNK]
            scales = {name: column[points] for name, column in flat.items()}
            found[:, points] = _rows(case, program, scales, float(size))
    shaped = {name: found[index].reshape(shape) for index, name in enumerate(rows)}
    tpot = shaped.pop("tpot")
    return Outcome(shaped, tpot)


def _factor(name: str, value: Any) -> FloatArray:
    if name not in QUANTITIES:
        raise UnknownNameError("quantity", name, QUANTITIES)
    array = np.asarray(value, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all() or (array <= 0).any():
        raise InputError(name, value, "factors above 0, and at least one")
    return array


def _rows(
    case: Case, program: Program, scales: Mapping[str, FloatArray], cache: float
) -> list[FloatArray]:
    device = _device(case, scales, cache)
    prefill, times = _pass(case, program, device, "prefill", len(scales["l2"]))
    decode, decode_times = _pass(case, program, device, "decode", len(scales["l2"]))
    stages = [
        prefill.total(times.op_s, [stage_of(op) == stage for op in prefill.ops])
        for stage in STAGES
    ]  # fmt: skip
    host = _host_s(prefill, times, scales["launch"])
    return [
        *stages, host, decode.total(decode_times.op_s)
        + _host_s(decode, decode_times, scales["launch"]),
    ]  # fmt: skip


def _pass(
    case: Case, program: Program, device: Device, phase: Phase, points: int
) -> tuple[Evaluation, PassTimes]:
    batch = np.full(points, float(case.workload.batch))
    evaluation = evaluate(program, phase, b=batch)
    # Kernel models size their arrays by the shapes, which here differ less than the rates do.
    shapes = tuple(
        {name: np.broadcast_to(size, evaluation.points) for name, size in sizes.items()}
        for sizes in evaluation.shapes
    )
    evaluation = replace(evaluation, shapes=shapes)
    return evaluation, load_time_model(case.time_model).times(evaluation, device, case.deployment)


def _device(case: Case, scales: Mapping[str, FloatArray], cache: float) -> Device:
    """Return a device whose rates are arrays over points, which all formulas broadcast."""
    device = resolve_device(_with_cache(case.gpu, cache), load_host(), case.deployment)
    of = {
        "bandwidth": ("bandwidth_bytes_per_s",),
        "compute": ("linear_flops_per_s", "matmul_flops_per_s", "vector_flops_per_s"),
        "interconnect": ("link_bytes_per_s", "host_link_bytes_per_s"),
    }
    changed: dict[str, Any] = {}
    for name, fields in of.items():
        changed |= {field: getattr(device, field) * scales[name] for field in fields}
    return replace(device, **changed)


def _with_cache(profile: HardwareProfile, factor: float) -> HardwareProfile:
    scaled = profile.l2_cache.model_copy(update={"value": profile.l2_cache.value * factor})
    return profile.model_copy(update={"l2_cache": scaled})


def _host_s(evaluation: Evaluation, times: PassTimes, factor: FloatArray) -> FloatArray:
    """Exposed host time of a pass with scaled costs of the host [s]."""
    total: FloatArray = np.zeros(evaluation.points)
    for queue in times.queues:
        rows = list(queue.rows)
        counts = evaluation.repeat[rows]
        total = total + stage_time_s(
            (times.op_s[rows] * counts).sum(axis=0),
            (evaluation.launches[rows] * counts).sum(axis=0),
            (evaluation.host_syncs[rows] * counts).sum(axis=0),
            _scaled(queue.costs, factor),
        )
    return total


def _scaled(costs: HostCosts, factor: Any) -> HostCosts:
    return replace(
        costs, launch_s=costs.launch_s * factor, start_s=costs.start_s * factor,
        sync_s=costs.sync_s * factor,
    )  # fmt: skip
