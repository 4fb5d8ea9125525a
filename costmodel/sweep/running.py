"""A sweep from its spec to a file, to chunks of arrays or to a data frame."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costmodel.catalog.calibrations import default_calibration, load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import InputError
from costmodel.sweep.blocks import LeftOut, Plan, plan_sweep
from costmodel.sweep.computing import number_columns
from costmodel.sweep.encoding import Format
from costmodel.sweep.executors import Job, Task, computer_of, on_cluster, on_processes, one_by_one
from costmodel.sweep.output import Output
from costmodel.sweep.parquet import ParquetFormat
from costmodel.sweep.parts import parts_of
from costmodel.sweep.spec import SweepSpec, load_spec
from costmodel.sweep.text import CsvFormat

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LIMIT",
    "SUFFIXES",
    "Prepared",
    "Summary",
    "iterate",
    "prepare_sweep",
    "run_sweep",
    "to_frame",
]

LIMIT = 50_000_000
"""Points that a sweep has without being asked twice."""

_FRAME_LIMIT = 10_000_000
SUFFIXES = (".parquet", ".csv")
"""Endings of files that a result can be written to."""

Source = str | os.PathLike[str] | Mapping[str, Any] | SweepSpec
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """What a sweep has done.

    Attributes
    ----------
    points : int
        In the result.
    seconds : float
        Of this run.
    points_per_second : float
        That this run computed.
    output : str
    bytes : int
        Size of the result [B].
    resumed : int
        Points that an earlier run had computed.
    left_out : tuple of LeftOut
    """

    points: int
    seconds: float
    points_per_second: float
    output: str
    bytes: int
    resumed: int
    left_out: tuple[LeftOut, ...]

    @property
    def record(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sweep that can start: everything checked, nothing computed.

    Attributes
    ----------
    plan : Plan
    texts : dict of str to tuple
        Values of the columns that are constant within a block.
    numbers : dict of str to dtype
        The other columns.
    metadata : dict
        What the result will say of itself.
    """

    plan: Plan
    texts: dict[str, tuple[Any, ...]]
    numbers: dict[str, Any]
    metadata: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return (*self.texts, *self.numbers)

    @property
    def estimated_bytes(self) -> int:
        """Size of the numbers before compression [B]."""
        widths: list[int] = [np.dtype(kind).itemsize for kind in self.numbers.values()]
        return self.plan.points * sum(widths)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the numbers depend on."""
        return hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode()).hexdigest()

    def job(self, form: Format) -> Job:
        """Return what workers need to know."""
        return Job(self.digest, self.numbers, self.plan.spec.outputs, form, self.texts)

    def tasks(self, first: int = 0) -> Iterator[Task]:
        """Return parts from number `first` on, each with its blocks."""
        blocks = self.plan.blocks
        for part in parts_of([block.points for block in blocks]):
            if part.index >= first:
                yield part, {piece.block: blocks[piece.block] for piece in part.pieces}

    def format_of(self, suffix: str) -> Format:
        """Return how a file with this suffix is written."""
        if suffix == ".csv":
            return CsvFormat(self.numbers, self.texts)
        counts = ("batch", "text_tokens", "visual_tokens_asked", "visual_tokens_kept")
        return ParquetFormat(self.numbers, self.texts, {n for n in counts if n in self.numbers})


def prepare_sweep(source: Source) -> Prepared:
    """Read a spec and work out what it covers.

    Raises
    ------
    CostModelError
        If the spec is not valid or has no points.
    """
    spec = source if isinstance(source, SweepSpec) else load_spec(source)
    plan = plan_sweep(spec)
    names = list(plan.blocks[0].labels)
    texts = {
        name: tuple(dict.fromkeys(block.labels[name] for block in plan.blocks)) for name in names
    }
    numbers = number_columns(plan.blocks, spec.outputs, spec.precision)
    metadata = {
        "spec": spec.resolved,
        "costmodel": version("costmodel"),
        "calibrations": _calibrations(spec),
        "points": plan.points,
        "left_out": [asdict(item) for item in plan.left_out],
    }
    return Prepared(plan, texts, numbers, metadata)


def run_sweep(
    source: Source | Prepared,
    output: str | os.PathLike[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    limit: int | None = LIMIT,
    progress: Progress | None = None,
) -> Summary:
    """Compute a sweep and write it to a file.

    Parameters
    ----------
    source : path, mapping, SweepSpec or Prepared
        The spec.
    output : path
        A ``.parquet`` or ``.csv`` file; metadata of the latter go to ``NAME.json``.
    workers : int
        Processes of this machine.
    scheduler : str, optional
        Address of a dask.distributed scheduler instead.
    resume : bool
        Go on where an earlier run of the same sweep stopped.
    limit : int, optional
        Most points; None for any number.
    progress : callable, optional
        Told the points that are done, and all of them.

    Returns
    -------
    Summary

    Raises
    ------
    CostModelError
        If the spec, the output or an option is not valid; before anything is computed.
    """
    from costmodel.files import check_output, write_text

    target = check_output(output, SUFFIXES)
    if target.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(
            "output", os.fspath(output), "a name that ends in .csv; parquet needs pyarrow "
            "(pip install 'costmodel[fit]')",
        )  # fmt: skip
    if workers < 1:
        raise InputError("workers", workers, "a whole number of at least 1")
    if scheduler is not None and workers > 1:
        raise InputError("workers", workers, "1 with a scheduler, which has its own workers")
    prepared = source if isinstance(source, Prepared) else prepare_sweep(source)
    points = prepared.plan.points
    if limit is not None and points > limit:
        raise InputError("points", points, f"at most {limit:,}; a larger limit allows them")
    form = prepared.format_of(target.suffix.lower())
    job = prepared.job(form)
    start = time.perf_counter()
    grown = Output(target, form, job.digest, resume=resume)
    resumed = grown.points
    try:
        tasks = prepared.tasks(grown.done)
        if scheduler is not None:
            parts = on_cluster(job, tasks, scheduler)
        elif workers > 1:
            parts = on_processes(job, tasks, workers)
        else:
            parts = one_by_one(job, tasks)
        for part in parts:
            grown.append(part)
            if progress is not None:
                progress(grown.points, points)
        described = json.dumps(prepared.metadata, ensure_ascii=False)
        if target.suffix.lower() == ".csv":
            write_text(f"{target}.json", json.dumps(prepared.metadata, indent=2) + "\n")
        size = grown.finish({"costmodel": described})
    finally:
        grown.close()
    seconds = time.perf_counter() - start
    return Summary(
        points=points, seconds=seconds, points_per_second=(points - resumed) / seconds,
        output=str(target), bytes=size, resumed=resumed, left_out=prepared.plan.left_out,
    )  # fmt: skip


def iterate(source: Source | Prepared) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Compute a sweep chunk by chunk in memory.

    Parameters
    ----------
    source : path, mapping, SweepSpec or Prepared
        The spec.

    Yields
    ------
    dict of str to ndarray
        Columns of up to 262,144 points; text as arrays of objects.

    Examples
    --------
    >>> spec = {"model": "llava-1.5-7b", "gpu": "a40", "text_tokens": {"range": [1, 100, 1]}}
    >>> [len(chunk["ttft_s"]) for chunk in iterate(spec)]
    [100]
    """
    prepared = source if isinstance(source, Prepared) else prepare_sweep(source)
    job = prepared.job(prepared.format_of(".parquet"))
    computer = computer_of(job)
    for part, blocks in prepared.tasks():
        labels = job.labels(part, blocks)
        sizes = [label[0] for label in labels]
        texts: dict[str, npt.NDArray[Any]] = {}
        for place, (name, values) in enumerate(prepared.texts.items(), start=1):
            kind = np.int32 if isinstance(values[0], int) else object
            texts[name] = np.repeat(np.array(values, kind)[[x[place] for x in labels]], sizes)
        yield texts | computer.part(part, blocks)


def to_frame(source: Source | Prepared) -> pd.DataFrame:
    """Return a sweep of up to 10 million points as a data frame.

    Raises
    ------
    InputError
        If it has more.
    """
    import pandas as pd

    prepared = source if isinstance(source, Prepared) else prepare_sweep(source)
    if prepared.plan.points > _FRAME_LIMIT:
        raise InputError("points", prepared.plan.points, f"at most {_FRAME_LIMIT:,} in memory")
    frames = [pd.DataFrame(chunk) for chunk in iterate(prepared)]
    whole = pd.concat(frames, ignore_index=True)
    for name, values in prepared.texts.items():
        if isinstance(values[0], str):
            whole[name] = pd.Categorical(whole[name], categories=list(values))
    return whole


def _calibrations(spec: SweepSpec) -> list[dict[str, str]]:
    """Return the name and hash of every calibration that the sweep may use."""
    found: dict[str, str] = {}
    for gpu in spec.gpu:
        profile = load_gpu(gpu)
        for name in spec.calibration:
            given = load_calibration(name, profile) if name else default_calibration(profile)
            if given is not None:
                text = given.model_dump_json()
                found[given.name] = hashlib.sha256(text.encode()).hexdigest()
    return [{"name": name, "sha256": digest} for name, digest in found.items()]
