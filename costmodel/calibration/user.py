"""A calibration from the timing files of one's own card."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from costmodel.calibration.borrowing import stand_ins
from costmodel.calibration.dtypes import dtype_name
from costmodel.calibration.host_fits import host_fits
from costmodel.calibration.judging import own_devices
from costmodel.calibration.kernel_choice import by_kernel, kernel_notes
from costmodel.calibration.loading import load_timings
from costmodel.calibration.own_fits import LeftOut, OwnFit, Progress, fit_all
from costmodel.calibration.report import Problem
from costmodel.calibration.setups import SETUPS
from costmodel.calibration.stacks import StackRows, of_gpu, split_stacks
from costmodel.catalog.calibrations import load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError, InputError
from costmodel.specs.calibration import BandTable, Calibration, KindFit
from costmodel.specs.hardware import HardwareProfile

__all__ = ["OwnCalibration", "calibrate"]

_OTHER_DEVICE_WIDEN = 1.5
"""Factor on the logarithm of bands of kinds from another device, as in shipped transfers."""


@dataclass(frozen=True)
class OwnCalibration:
    """A calibration and how it came about.

    Attributes
    ----------
    calibration : Calibration
        To be written.
    fitted : tuple of OwnFit
        Kinds with rows.
    left_out : tuple of LeftOut
        Other stacks, and kinds with too few rows.
    taken : tuple of str
        Kinds from the base.
    stood_in : tuple of str
        Kinds without rows that take those of a like kind.
    datasheet : tuple of str
        Kinds with neither, for which estimates fall back to the datasheet.
    problems : tuple of Problem
        Rows that were dropped or need notice.
    """

    calibration: Calibration
    fitted: tuple[OwnFit, ...]
    left_out: tuple[LeftOut, ...]
    taken: tuple[str, ...]
    stood_in: tuple[str, ...]
    datasheet: tuple[str, ...]
    problems: tuple[Problem, ...]


def calibrate(
    paths: Iterable[str | os.PathLike[str]],
    gpu: str | os.PathLike[str],
    *,
    name: str | None = None,
    source: str | None = None,
    software: str | None = None,
    dtype: str | None = None,
    kernel: str | None = None,
    base: str | os.PathLike[str] | None = None,
    today: datetime.date | None = None,
    progress: Progress | None = None,
) -> OwnCalibration:
    """Fit every kind of kernel that timing files have rows of.

    Parameters
    ----------
    paths : iterable of path
        Timing files of any known format.
    gpu : str or path
        The device; rows whose file names none are taken as its own.
    name : str, optional
        Name of the calibration; the device's with ``.own`` by default.
    source, software, dtype : str, optional
        Stack to fit, by the beginning of its name, and what rows are that do not say.  Of
        several stacks the one with the most rows is taken for each kind.
    kernel : str, optional
        Implementation of attention to fit, by the beginning of its name.  Kinds that have
        rows of others only are left out; other kinds than attention are as they are.
    base : str or path, optional
        Calibration that supplies kinds without rows.
    today : date, optional
        Recorded as the date of the fits.
    progress : callable, optional
        Told what is being fitted.

    Returns
    -------
    OwnCalibration

    Raises
    ------
    CostModelError
        If a file or name cannot be used, there are no rows of the device, or too few of
        every kind, or SciPy is missing.
    """
    profile = load_gpu(gpu)
    donor = None if base is None else load_calibration(base, profile)
    timings, report = load_timings(
        paths, gpu=gpu, dtype=dtype, source=source, software=software, profiles=own_devices(gpu)
    )
    own = of_gpu(timings, profile.name)
    if not own:
        others = sorted({str(one) for item in timings for one in item.frame["gpu"].unique()})
        raise InputError("gpu", os.fspath(gpu), f"a device that has rows: {', '.join(others)}")
    stacks, unknown = split_stacks(own, by_kernel=True)
    if not stacks:
        reasons = "; ".join(f"{problem.reason} ({problem.count})" for problem in unknown)
        raise CostModelError(f"no row can be fitted: {reasons}")
    wanted = [stack for stack in stacks if _matches(stack, source, software, dtype)]
    if not wanted:
        known = "; ".join(dict.fromkeys(stack.label for stack in stacks))
        given = ", ".join(filter(None, (source, software, dtype)))
        raise InputError("source, software, dtype", given, f"the beginning of one of: {known}")
    unwanted: list[LeftOut] = []
    if kernel is not None:
        wanted, unwanted = by_kernel(wanted, kernel)
    chosen, left_out = _most_rows(wanted)
    left_out += unwanted
    date = today or datetime.date.today()
    fitted, failed = fit_all(chosen, profile, date, progress)
    if not fitted:
        raise CostModelError("; ".join(f"{one.stack.kind}: {one.reason}" for one in failed))
    kinds = {one.fit.kind: one.fit for one in fitted}
    taken = [_taken(fit, donor, profile) for fit in donor.kinds] if donor else []
    taken = [fit for fit in taken if fit.kind not in kinds]
    kinds |= {fit.kind: fit for fit in taken}
    like = stand_ins(kinds)
    calibration = Calibration(
        name=name or f"{profile.name}.own",
        device=profile.name,
        title=_title(profile, fitted),
        date=date,
        lab_spread=donor.lab_spread if donor else {},
        notes=(*_notes(fitted), *kernel_notes(fitted, left_out)),
        kinds=tuple(sorted([*kinds.values(), *like.values()], key=lambda fit: fit.kind)),
        host=host_fits(own, profile, date),
    )
    return OwnCalibration(
        calibration=calibration,
        fitted=tuple(fitted),
        left_out=(*left_out, *failed),
        taken=tuple(fit.kind for fit in taken),
        stood_in=tuple(like),
        datasheet=tuple(kind for kind in SETUPS if calibration.find(kind) is None),
        problems=(*report.problems, *unknown),
    )


def _matches(stack: StackRows, source: str | None, software: str | None, dtype: str | None) -> bool:
    formats = SETUPS[stack.kind].where.get("dtype")
    # A kind of another format, as weight-only products, is not what a format chooses between.
    chooses = dtype is not None and stack.dtype and (not formats or dtype_name(dtype) in formats)
    return (
        stack.source.startswith(source or "")
        and stack.software.startswith(software or "")
        and (not chooses or stack.dtype == dtype_name(str(dtype)))
    )


def _most_rows(stacks: Sequence[StackRows]) -> tuple[list[StackRows], list[LeftOut]]:
    best: dict[str, StackRows] = {}
    for stack in stacks:
        if stack.kind not in best or len(stack) > len(best[stack.kind]):
            best[stack.kind] = stack
    left_out = [
        LeftOut(stack, f"more rows are of {best[stack.kind].label}")
        for stack in stacks
        if stack is not best[stack.kind]
    ]
    return list(best.values()), left_out


def _notes(fitted: Sequence[OwnFit]) -> list[str]:
    return [note for one in fitted for note in (one.note, one.short_note) if note]


def _taken(fit: KindFit, donor: Calibration, profile: HardwareProfile) -> KindFit:
    here = fit.device == profile.name
    rule = f"taken from {donor.name}" + ("" if here else f", fitted on {fit.device}")
    widen = 1.0 if here else _OTHER_DEVICE_WIDEN
    bands = fit.bands.model_dump()
    bands |= {end: tuple(value**widen for value in bands[end]) for end in ("low", "high")}
    return fit.model_copy(
        update={
            "origin": "transferred",
            "rule": f"{fit.rule}; {rule}" if fit.rule else rule,
            "bands": BandTable.model_validate(bands),
            "residual": fit.residual if here else None,
            "seen": None,
        }
    )


def _title(profile: HardwareProfile, fitted: Sequence[OwnFit]) -> str:
    stacks = dict.fromkeys(
        label for one in fitted if (label := one.stack.software or one.stack.source)
    )
    return ", ".join([profile.title, *stacks])
