"""Measured timings against what calibrations predict for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.building import Stack, chip_of, roofline_s, rows_of
from costmodel.calibration.error_figures import Errors, errors_of
from costmodel.calibration.loading import load_timings
from costmodel.calibration.method_overheads import (
    COMPRESSION,
    OVERHEAD_SIZES,
    OverheadGroup,
    overhead_groups,
    predict_overheads,
)
from costmodel.calibration.processor_setups import setup_of
from costmodel.calibration.report import Problem, Tally
from costmodel.calibration.setups import SETUPS
from costmodel.calibration.stacks import (
    StackRows,
    choose_calibration,
    is_same_stack,
    of_gpu,
    split_stacks,
)
from costmodel.calibration.whole_models import WHOLE_SIZES, Group, groups_of, predict
from costmodel.catalog.calibrations import default_calibration, load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import InputError
from costmodel.specs.calibration import Calibration, KindFit
from costmodel.specs.hardware import HardwareProfile
from costmodel.timing.kernels.base import Chip
from costmodel.timing.prediction import band_ratios, distance_outside, kernel_time_s

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIN_TIME_US", "Judged", "Validation", "own_devices", "validate_timings"]

MIN_TIME_US = 10.0
"""Shorter times are not judged: the clocks of some sources tick in microseconds [us]."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One kind on one stack.

    Attributes
    ----------
    stack : StackRows
        Device, kind, source, software and format.
    sizes : tuple of str
        Columns of `points` that tell its shapes apart.
    kernel : str
        Implementation of attention that is judged: the one with the most rows.
    calibration : str, optional
        What predicted; None where no calibration of the device has the kind.
    same_stack : bool
        Whether that was fitted on rows of this device, laboratory and framework.
    in_sample : bool
        Whether the fit names one of these very files: then its error is that of a fit, and
        `cv_mape_pct` says what to expect of other shapes.
    cv_mape_pct : float, optional
        Cross-validated error that the calibration states [%].
    errors : Errors
        Over `points`.
    points : pandas.DataFrame
        Judged shapes: sizes, ``time_s``, ``roofline_s`` and, where predicted,
        ``predicted_s``, ``low_s`` and ``high_s`` [s].
    """

    stack: StackRows
    sizes: tuple[str, ...]
    kernel: str
    calibration: str | None
    same_stack: bool
    in_sample: bool
    cv_mape_pct: float | None
    errors: Errors
    points: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Validation:
    """All groups of some timing files.

    Attributes
    ----------
    groups : tuple of Judged
        By device and kind.
    overall, same_stack : Errors
        Over the shapes of all predicted groups, and of those predicted by a calibration of
        their own stack.
    min_time_us : float
        Shorter times were not judged [us].
    problems : tuple of Problem
        Rows that were dropped or need notice.
    """

    groups: tuple[Judged, ...]
    overall: Errors
    same_stack: Errors
    min_time_us: float
    problems: tuple[Problem, ...]


def own_devices(gpu: str | os.PathLike[str] | None) -> dict[str, HardwareProfile]:
    """Return the profile of `gpu` by the names that a timing file may use for it."""
    if gpu is None:
        return {}
    profile = load_gpu(gpu)
    return dict.fromkeys((os.fspath(gpu), profile.name, *profile.aliases), profile)


def validate_timings(
    paths: Iterable[str | os.PathLike[str]],
    *,
    gpu: str | os.PathLike[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    min_time_us: float = MIN_TIME_US,
) -> Validation:
    """Predict every measured shape and compare.

    Parameters
    ----------
    paths : iterable of path
        Timing files of any known format.
    gpu : str or path, optional
        Device of rows whose file does not say; only its rows are judged.
    calibration : str or path, optional
        Used for every group, instead of the best match.
    min_time_us : float
        Shorter times are not judged [us].

    Returns
    -------
    Validation

    Raises
    ------
    CostModelError
        If a file cannot be used, a name is unknown or no row is left.
    """
    if not (np.isfinite(min_time_us) and min_time_us >= 0):
        raise InputError("min-time-us", min_time_us, "a number of microseconds from 0")
    devices = own_devices(gpu)
    timings, report = load_timings(paths, gpu=gpu, profiles=devices)
    if gpu is not None:
        timings = of_gpu(timings, load_gpu(gpu).name)
        if not timings:
            raise InputError("gpu", os.fspath(gpu), "a device that the files have rows of")
    stacks, unknown = split_stacks(timings)
    whole = list(groups_of(timings))
    overheads, unplanned = overhead_groups(timings)
    names = {s.gpu for s in stacks} | {group[0] for group, _ in (*whole, *overheads)}
    used = {name: devices.get(name) or load_gpu(name) for name in names}
    given = {
        name: None if calibration is None else load_calibration(calibration, profile)
        for name, profile in used.items()
    }
    named = os.fspath(calibration) if calibration is not None else None
    groups = (
        *(_judge(stack, used[stack.gpu], given[stack.gpu], min_time_us) for stack in stacks),
        *(_judge_whole(group, rows, used[group[0]], named) for group, rows in whole),
        *(
            _judge_overhead(
                group, rows[rows["time_s"] >= min_time_us * 1e-6], used[group.gpu], named
            )
            for group, rows in overheads
        ),
    )
    return Validation(
        groups=groups,
        overall=_over([group for group in groups if group.calibration is not None]),
        same_stack=_over([group for group in groups if group.same_stack]),
        min_time_us=min_time_us,
        problems=(*report.problems, *unknown, *unplanned, *_other_kernels(groups)),
    )


def _judge(
    stack: StackRows,
    profile: HardwareProfile,
    given: Calibration | None,
    min_time_us: float,
) -> Judged:
    chip = chip_of(profile, stack.kind, stack.dtype)
    setup = setup_of(stack.kind, profile)
    frame = rows_of(stack.kind, stack.timings, Stack(stack.gpu), setup)
    kernel = str(frame.attrs.get("kernel", ""))
    frame = frame[frame["time_s"] >= min_time_us * 1e-6].reset_index(drop=True)
    frame = frame.assign(roofline_s=roofline_s(stack.kind, frame, chip) if len(frame) else [])
    found = choose_calibration(stack, profile, given)
    if found is None:
        sizes = SETUPS[stack.kind].sizes
        return Judged(stack, sizes, kernel, None, False, False, None, errors_of(frame), frame)
    calibration, fit = found
    same = is_same_stack(fit, stack)
    frame = _predict(stack.kind, fit, frame, chip)
    return Judged(
        stack=stack,
        sizes=SETUPS[stack.kind].sizes,
        kernel=kernel,
        calibration=calibration.name,
        same_stack=same,
        in_sample=same and fit.sha256 in {item.sha256 for item in stack.timings},
        cv_mape_pct=fit.error.mape_pct if fit.error else None,
        errors=errors_of(frame),
        points=frame,
    )


def _judge_whole(
    group: Group, requests: pd.DataFrame, profile: HardwareProfile, calibration: str | None
) -> Judged:
    gpu, source, software, dtype, runtime, stage = group
    points = predict(group, requests, profile, calibration)
    stack = StackRows(gpu, f"{stage} {runtime}", source, software, dtype, "", ())
    return _judge_sums(stack, WHOLE_SIZES, points, profile, calibration)


def _judge_overhead(
    group: OverheadGroup, runs: pd.DataFrame, profile: HardwareProfile, calibration: str | None
) -> Judged:
    points = predict_overheads(group, runs.reset_index(drop=True), profile, calibration)
    kind = f"{COMPRESSION} {group.method}"
    stack = StackRows(group.gpu, kind, group.source, group.software, group.dtype, "", ())
    return _judge_sums(stack, OVERHEAD_SIZES, points, profile, calibration)


def _judge_sums(
    stack: StackRows,
    sizes: tuple[str, ...],
    points: pd.DataFrame,
    profile: HardwareProfile,
    calibration: str | None,
) -> Judged:
    """Return points that estimates predicted; the default calibration is what they use without."""
    chosen = (
        default_calibration(profile)
        if calibration is None
        else load_calibration(calibration, profile)
    )
    return Judged(
        stack=stack,
        sizes=sizes,
        kernel="",
        calibration=chosen.name if chosen else None,
        same_stack=chosen is not None and any(fit.source == stack.source for fit in chosen.kinds),
        in_sample=False,
        cv_mape_pct=None,
        errors=errors_of(points),
        points=points,
    )


def _other_kernels(groups: Iterable[Judged]) -> Iterator[Problem]:
    """Rows of implementations that a stack uses for few shapes, which fits leave out as well."""
    for group in groups:
        for item in group.stack.timings:
            if not (main := group.kernel):
                continue
            others = item.frame[item.frame["kernel"] != main]
            tally = Tally(item.path)
            for kernel, rows in others.groupby("kernel", sort=True):
                reason = f"{group.stack.kind} of kernel {kernel}: only {main} is judged"
                tally.add(reason, rows.index.to_numpy())
            yield from tally.problems()


def _predict(kind: str, fit: KindFit, frame: pd.DataFrame, chip: Chip) -> pd.DataFrame:
    sizes = {name: frame[name].to_numpy(dtype=np.float64) for name in SETUPS[kind].sizes}
    if not len(frame):
        return frame.assign(predicted_s=[], low_s=[], high_s=[])
    predicted = kernel_time_s(fit, sizes, chip, benchmark=True)
    low, high = band_ratios(fit, sizes, predicted, distance_outside(fit, sizes))
    return frame.assign(predicted_s=predicted, low_s=low * predicted, high_s=high * predicted)


def _over(groups: Sequence[Judged]) -> Errors:
    import pandas as pd

    parts = [group.points for group in groups if group.errors.n]
    return errors_of(pd.concat(parts)) if parts else Errors(0)
