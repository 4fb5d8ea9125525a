"""From paths to checked timings: recognise, read, validate, check against physics."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from costmodel.calibration.dtypes import DTYPES, dtype_name
from costmodel.calibration.files import read_head, sha256_of
from costmodel.calibration.formats import find_source
from costmodel.calibration.gpus import Gpus
from costmodel.calibration.physics import check_physics, check_unit
from costmodel.calibration.reading import Hints, Part
from costmodel.calibration.report import Problem, Report
from costmodel.calibration.schema import Timings
from costmodel.calibration.validation import validate
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import SpecError, UnknownNameError
from costmodel.specs.hardware import HardwareProfile

__all__ = ["load_timings"]

_SHOWN_PROBLEMS = 3


def load_timings(
    paths: Iterable[str | os.PathLike[str]],
    *,
    gpu: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    source: str | None = None,
    software: str | None = None,
    profiles: Mapping[str, HardwareProfile] | None = None,
) -> tuple[list[Timings], Report]:
    """Read timing files of any known format.

    Parameters
    ----------
    paths : iterable of path
        Files; each is recognised by its content.
    gpu, dtype, source, software : optional
        Values of rows whose file does not say; `gpu` may also be a hardware profile's file,
        and goes before what folders say.
    profiles : mapping of str to HardwareProfile, optional
        The caller's own devices, by the name that the files use.

    Returns
    -------
    timings : list of Timings
        Valid rows, one entry for each file and kind.
    report : Report
        Every row that was dropped or needs notice, by reason.

    Raises
    ------
    SpecError
        If a file is missing, empty, damaged, of no known format, lacks a column, has times
        in another unit than its format says, or not one usable row.
    UnknownNameError
        If `gpu` or `dtype` is not known.
    """
    own = dict(profiles or {})
    if gpu is not None:
        profile = own.get(os.fspath(gpu)) or load_gpu(gpu)
        own[profile.name] = profile
        gpu = profile.name
    if dtype is not None and dtype_name(dtype) not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    hints, gpus = Hints(gpu, dtype, source, software), Gpus(own)
    timings: list[Timings] = []
    problems: list[Problem] = []
    for path in map(Path, paths):
        found, noticed = _load(path, hints, gpus)
        timings += found
        problems += noticed
    return timings, Report(sum(map(len, timings)), tuple(problems))


def _load(path: Path, hints: Hints, gpus: Gpus) -> tuple[list[Timings], list[Problem]]:
    reading = find_source(path, read_head(path)).read(path, hints)
    digest = sha256_of(path)
    problems, found = list(reading.problems), []
    for part in reading.parts:
        timings, noticed = _check(part, path, hints, gpus, digest)
        problems += noticed
        if len(timings):
            found.append(timings)
    if not found:
        shown = "; ".join(f"{p.reason} ({p.count})" for p in problems[:_SHOWN_PROBLEMS])
        raise SpecError(f"{path}: no usable row{': ' if shown else ''}{shown}")
    return found, problems


def _check(
    part: Part, path: Path, hints: Hints, gpus: Gpus, digest: str
) -> tuple[Timings, list[Problem]]:
    frame, problems = validate(part, path, hints, gpus)
    timings = Timings(part.kind, frame, path, digest)
    found = {str(name): gpus.find(str(name)) for name in frame["gpu"].unique() if name}
    profiles = {name: profile for name, profile in found.items() if profile is not None}
    check_unit(timings, profiles)
    for profile in profiles.values():
        keep, impossible = check_physics(timings, profile)
        timings = replace(timings, frame=timings.frame[keep])
        problems += impossible
    return timings, problems
