"""Times fitted to measured kernels, with launch and host overhead and error bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costmodel.catalog.calibrations import default_calibration, load_calibration
from costmodel.errors import UnsupportedError
from costmodel.evaluation import Evaluation, FloatArray
from costmodel.ops import Op
from costmodel.specs.calibration import Calibration, KindFit
from costmodel.specs.workload import DTYPE_BYTES, Deployment
from costmodel.symbols import sym
from costmodel.timing.composition import Part, any_stack_deviation, same_stack_deviation
from costmodel.timing.device import Device
from costmodel.timing.host import ExposedHost, exposed_host_s, host_queues
from costmodel.timing.kernels.base import Chip
from costmodel.timing.kinds import KindSizes, kind_of
from costmodel.timing.model import BOUNDS, PassTimes, Provenance
from costmodel.timing.prediction import (
    band_ratios,
    distance_outside,
    kernel_time_s,
    provenance_of,
)
from costmodel.timing.roofline import limits

__all__ = ["MODEL", "CalibratedKernels"]

LEVEL = 0.9
_DEVIATIONS = {"same_stack": same_stack_deviation, "any_stack": any_stack_deviation}
_NAMED = 4
# Another device's calibration, scaled by datasheets: the width that transfers are given.
_SIBLING_WIDENS = 1.5
# Parameter of attention fits whose timings include writing the KV cache.
_CACHE_WRITE = "wt"
# A kind without any data runs at the datasheet roof or up to this much slower.
_DATASHEET_HIGH = 2.5
_DEFAULT_LAB_RATIO = 1.25
# Kinds whose models count elements of 16 bits; there are none for narrower ones.
_COUNT_ELEMENTS = ("gemm", "attention")
_LEAST_ELEMENT_BYTES = 2.0


@dataclass(frozen=True)
class _Timed:
    """One operator with its time and what it rests on."""

    time_s: FloatArray
    low: FloatArray
    high: FloatArray
    kind: str
    common_share: float
    provenance: Provenance


class CalibratedKernels:
    r"""Sum of fitted kernel times, plus the host time they do not hide.

    .. math:: t = \sum_i r_i\, l_i\, t_{K(i)}(\text{sizes}_i / l_i) + t_\mathrm{host}

    over operators i of kind K with repeats r and l kernels each.  A kind the
    calibration lacks falls back to the datasheet roofline with a wide band and
    says so.
    """

    name = "calibrated"
    summary = "kernel models fitted to measured timings, host overhead, 90 % bands"

    def times(self, evaluation: Evaluation, device: Device, deployment: Deployment) -> PassTimes:
        """Return the time of every operator, the exposed host time and the bands.

        Raises
        ------
        UnsupportedError
            If the device has no calibration.
        """
        calibration = _calibration(device, deployment)
        timed = [
            _time(evaluation, index, device, deployment, calibration)
            for index in range(len(evaluation.ops))
        ]
        op_s = np.stack([item.time_s for item in timed])
        busy = op_s * evaluation.repeat
        exposed = exposed_host_s(evaluation, op_s, deployment, calibration)
        host = exposed.time_s
        total = busy.sum(axis=0) + host
        parts = [
            Part(
                item.kind,
                busy[index],
                item.low,
                item.high,
                item.common_share,
                calibration.lab_spread.get(item.kind, _DEFAULT_LAB_RATIO),
            )
            for index, item in enumerate(timed)
        ]
        stages = _stage_bands(evaluation, parts)
        everything = [*parts, _host_part(exposed)]
        bands = {name: deviation(everything) for name, deviation in _DEVIATIONS.items()}
        return PassTimes(
            op_s=op_s,
            bound=_bounds(evaluation, device),
            provenance=tuple(item.provenance for item in timed),
            host_overhead_s=host,
            low_s={name: np.maximum(total - down, 0.0) for name, (down, _) in bands.items()},
            high_s={name: total + up for name, (_, up) in bands.items()},
            stage_low_s={name: stages[name][0] for name in stages},
            stage_high_s={name: stages[name][1] for name in stages},
            level=LEVEL,
            evidence=_evidence(calibration, timed),
            notes=_notes(evaluation, calibration, timed, device),
            parts=tuple(parts),
            queues=host_queues(evaluation.ops, deployment, calibration),
        )


def _host_part(exposed: ExposedHost) -> Part:
    """The host as a part of the sum: its range is what sources say of a launch."""
    time_s = np.maximum(exposed.time_s, 1e-12)
    low, high = exposed.low_s / time_s, exposed.high_s / time_s
    return Part("host", exposed.time_s, low, high, common_share=1.0, lab_ratio=1.0)


def _stage_bands(
    evaluation: Evaluation, parts: Sequence[Part]
) -> dict[str, tuple[dict[str, FloatArray], dict[str, FloatArray]]]:
    """Bounds of each stage's time, by kind of band."""
    by_stage: dict[str, list[Part]] = {}
    for op, part in zip(evaluation.ops, parts, strict=True):
        by_stage.setdefault(op.stage, []).append(part)
    found = {}
    for name, deviation in _DEVIATIONS.items():
        low, high = {}, {}
        for stage, own in by_stage.items():
            time_s = np.sum([part.time_s for part in own], axis=0)
            down, up = deviation(own)
            low[stage], high[stage] = np.maximum(time_s - down, 0.0), time_s + up
        found[name] = (low, high)
    return found


def _evidence(calibration: Calibration, timed: Sequence[_Timed]) -> dict[str, Any]:
    used = {item.kind for item in timed}
    return {
        "calibration": calibration.name,
        "title": calibration.title,
        "date": calibration.date.isoformat(),
        "kinds": {
            fit.kind: {
                "origin": fit.origin,
                "device": fit.device,
                "source": fit.source,
                "software": fit.software,
                "rows": fit.rows,
                "mape_pct": fit.error.mape_pct if fit.error else None,
                "rule": fit.rule,
            }
            for fit in calibration.kinds
            if fit.kind in used
        },
    }


def _notes(
    evaluation: Evaluation, calibration: Calibration, timed: Sequence[_Timed], device: Device
) -> tuple[str, ...]:
    notes = [f"times calibrated on: {calibration.title}"]
    if calibration.device != device.profile.name:
        notes.append(f"{calibration.name} was fitted on another device and is scaled by datasheets")
    rules = {
        fit.rule: fit.kind
        for fit in calibration.kinds
        if fit.rule and any(item.kind == fit.kind for item in timed)
    }
    notes += [f"{kind} and the like: {rule}" for rule, kind in rules.items()]
    for label, meaning in (
        ("extrapolated", "outside the measured sizes, wider band"),
        ("datasheet", "no measurement applies, datasheet roofline with a wide band"),
    ):
        names = [
            op.name
            for op, item in zip(evaluation.ops, timed, strict=True)
            if item.provenance == label and op.kind != "host"
        ]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            notes.append(f"{meaning}: {', '.join(names[:_NAMED])}{more}")
    return tuple(notes)


def _calibration(device: Device, deployment: Deployment) -> Calibration:
    if deployment.calibration is not None:
        return load_calibration(deployment.calibration, device.profile)
    found = default_calibration(device.profile)
    if found is None:
        raise UnsupportedError(
            "time-model", "calibrated",
            f"ideal, or a calibration of your own: none ships for {device.profile.name}",
        )  # fmt: skip
    return found


def _time(
    evaluation: Evaluation,
    index: int,
    device: Device,
    deployment: Deployment,
    calibration: Calibration,
) -> _Timed:
    op = evaluation.ops[index]
    if op.primitive == "cache_write" and deployment.attention == "flash":
        measured = calibration.find(f"attention_{evaluation.phase}")
        if measured is not None and _CACHE_WRITE in measured.values:
            return _included(evaluation, measured, device)
    wanted = kind_of(evaluation, index, deployment)
    fit = calibration.find_or_like(wanted.kind) if wanted is not None else None
    if wanted is None or fit is None:
        return _from_datasheet(evaluation, index, device)
    chip = _chip(op, device)
    if wanted.kind.startswith(_COUNT_ELEMENTS):
        chip = chip.for_elements(max(DTYPE_BYTES[deployment.dtype], _LEAST_ELEMENT_BYTES))
    single = np.broadcast_to(kernel_time_s(fit, wanted.sizes, chip), evaluation.points)
    outside = np.broadcast_to(distance_outside(fit, wanted.sizes), evaluation.points)
    low, high = band_ratios(fit, wanted.sizes, single, outside)
    if calibration.device != device.profile.name:
        low, high = low**_SIBLING_WIDENS, high**_SIBLING_WIDENS
    return _Timed(
        time_s=single * wanted.kernels,
        low=np.broadcast_to(low, evaluation.points),
        high=np.broadcast_to(high, evaluation.points),
        kind=wanted.kind,
        common_share=fit.bands.common_share,
        provenance=_provenance(fit, wanted, outside, device),
    )


def _provenance(fit: KindFit, wanted: KindSizes, outside: FloatArray, device: Device) -> Provenance:
    if fit.origin == "fitted" and fit.device != device.profile.name:
        return "transferred"
    return provenance_of(fit, wanted.sizes, outside)


def _included(evaluation: Evaluation, measured: KindFit, device: Device) -> _Timed:
    """Nothing: timings of attention include writing keys and values to the cache."""
    none, one = np.zeros(evaluation.points), np.ones(evaluation.points)
    own = measured.origin == "fitted" and measured.device == device.profile.name
    rests_on: Provenance = "interpolated" if own else "transferred"
    return _Timed(none, one, one, measured.kind, measured.bands.common_share, rests_on)


def _from_datasheet(evaluation: Evaluation, index: int, device: Device) -> _Timed:
    calls: FloatArray = np.zeros(evaluation.points)
    if evaluation.ops[index].kind == "host":
        rate = device.host_flops_per_s * device.host_threads_share
        device = replace(device, host_flops_per_s=rate)
        calls = np.broadcast_to(evaluation.shapes[index].get("calls", calls), calls.shape)
    seconds = np.stack(list(limits(evaluation, index, device).values())).max(axis=0)
    seconds = seconds + calls * device.host_call_s
    one = np.ones(evaluation.points)
    return _Timed(seconds, one, one * _DATASHEET_HIGH, "datasheet", 1.0, "datasheet")


def _chip(op: Op, device: Device) -> Chip:
    linear = sym("bw") in op.traffic.weights.free_symbols
    return Chip(
        peak_flops_per_s=device.linear_flops_per_s if linear else device.matmul_flops_per_s,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        l2_bytes=device.profile.l2_cache.si,
        multiprocessors=device.profile.multiprocessors,
        link_bytes_per_s=device.link_bytes_per_s,
    )


def _bounds(evaluation: Evaluation, device: Device) -> FloatArray:
    rows = []
    for index in range(len(evaluation.ops)):
        found = limits(evaluation, index, device)
        codes = np.array([BOUNDS.index(name) for name in found])
        rows.append(codes[np.stack(list(found.values())).argmax(axis=0)])
    return np.stack(rows)


MODEL = CalibratedKernels()
