"""Which rows share a stack, and which calibration was fitted on that stack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from costmodel.calibration.elementwise_bytes import OPERATORS, elementwise_sizes
from costmodel.calibration.report import Problem, Tally
from costmodel.calibration.schema import KINDS, Timings
from costmodel.calibration.setups import SETUPS
from costmodel.catalog.calibrations import (
    default_calibration,
    list_calibrations,
    load_calibration,
)
from costmodel.specs.calibration import Calibration, KindFit
from costmodel.specs.hardware import HardwareProfile

if TYPE_CHECKING:
    import pandas as pd

_NOT_KERNELS = ("launch", "whole_model", "compression")

__all__ = ["StackRows", "choose_calibration", "is_same_stack", "of_gpu", "split_stacks"]


@dataclass(frozen=True)
class StackRows:
    """Timings of one kernel kind on one stack.

    Attributes
    ----------
    gpu, kind, source, software, dtype : str
        The stack.
    kernel : str
        Implementation or, of collectives, topology, where stacks are told apart by it.
    timings : tuple of Timings
        Its rows.
    """

    gpu: str
    kind: str
    source: str
    software: str
    dtype: str
    kernel: str
    timings: tuple[Timings, ...]

    def __len__(self) -> int:
        return sum(map(len, self.timings))

    @property
    def label(self) -> str:
        """Stack in words."""
        parts = (self.source, self.software, self.dtype, self.kernel)
        return ", ".join(part for part in parts if part) or "no stack named"


def of_gpu(timings: Iterable[Timings], gpu: str) -> list[Timings]:
    """Return the rows of one device."""
    chosen = (replace(item, frame=item.frame[item.frame["gpu"] == gpu]) for item in timings)
    return [item for item in chosen if len(item)]


def split_stacks(
    timings: Sequence[Timings], *, by_kernel: bool = False
) -> tuple[list[StackRows], list[Problem]]:
    """Return the rows of every kernel kind and stack, and what no kernel kind covers.

    Parameters
    ----------
    timings : sequence of Timings
        Valid rows.
    by_kernel : bool
        Whether implementations of attention and topologies of collectives are stacks of
        their own.

    Returns
    -------
    stacks : list of StackRows
        By device, then in the order of `SETUPS`.
    problems : list of Problem
        Rows that have no kernel model.
    """
    names = ["gpu", "source", "software", "dtype"]
    found: dict[tuple[str, ...], list[Timings]] = {}
    problems: list[Problem] = []
    for item in timings:
        kinds, noticed = _kinds(item)
        problems += noticed
        frame = item.frame
        kernel = "topology" if item.kind == "collective" else "kernel"
        keys = [name for name in (*names, *([kernel] if by_kernel else [])) if name in frame]
        for kind in sorted(set(kinds) - {""}):
            some = frame[kinds == kind]
            for values, rows in some.groupby(keys, sort=True):
                given = dict(zip(keys, map(str, values), strict=True))
                key = (kind, *(given.get(name, "") for name in (*names, kernel)))
                found.setdefault(key, []).append(replace(item, frame=rows))
    order = {kind: index for index, kind in enumerate(SETUPS)}
    stacks = [
        StackRows(gpu, kind, source, software, dtype, kernel, tuple(parts))
        for (kind, gpu, source, software, dtype, kernel), parts in found.items()
    ]
    stacks.sort(key=lambda s: (s.gpu, order[s.kind], s.source, s.software, s.dtype, s.kernel))
    return stacks, problems


def _kinds(item: Timings) -> tuple[npt.NDArray[np.object_], list[Problem]]:
    """Kernel kind of each row, empty where none, and those rows as problems."""
    frame, tally = item.frame, Tally(item.path)
    kinds = np.full(len(frame), "", dtype=object)
    if not KINDS[item.kind].fit:
        tally.add(f"{item.kind}: rows carry no shapes", frame.index.to_numpy())
        return kinds, tally.problems()
    if item.kind in _NOT_KERNELS:
        return kinds, []
    if item.kind == "memory_bound":
        known = frame["op"].isin(list(OPERATORS)).to_numpy()
        moved = elementwise_sizes(frame[known])["kind"]
        kinds[known] = moved.where(moved.isin(list(SETUPS)), "").to_numpy()
    else:
        # One line of a file may time several operators, so that row numbers repeat.
        numbered = frame.reset_index(drop=True)
        for kind, setup in SETUPS.items():
            if setup.timings == item.kind:
                kinds[setup.rows(kind, numbered).index] = kind
        if item.kind == "collective":
            kinds[(numbered["n_gpus"] != numbered["gpus_per_node"]).to_numpy()] = ""
    for label, rows in _unknown(item, frame[kinds == ""]):
        tally.add(f"no kernel model of {label}", rows.index.to_numpy())
    return kinds, tally.problems()


def _unknown(item: Timings, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if item.kind == "gemm":
        for (dtype, several), rows in frame.groupby(["dtype", frame["batch"] > 1], sort=True):
            yield f"{'batched ' if several else ''}gemm {dtype}", rows
        return
    if item.kind == "collective":
        for (op, wide), rows in frame.groupby(["op", frame["n_gpus"] > frame["gpus_per_node"]]):
            yield f"{op}{' across nodes' if wide else ''}", rows
        return
    for value, rows in frame.groupby("op" if "op" in frame else "dtype", sort=True):
        yield f"{item.kind} {value}", rows


def choose_calibration(
    stack: StackRows,
    profile: HardwareProfile,
    given: Calibration | None = None,
) -> tuple[Calibration, KindFit] | None:
    """Return the calibration that is meant for a stack, and its fit of the kind.

    The one given; else of the device's own the one whose fit has the same source and
    framework, preferring the same version and number format; else the device's default.

    Parameters
    ----------
    stack : StackRows
        The rows.
    profile : HardwareProfile
        Their device.
    given : Calibration, optional
        Taken instead of a match.

    Returns
    -------
    tuple of Calibration and KindFit, or None
        None where there is no calibration or it lacks the kind.
    """
    if given is not None:
        return _with_fit(given, stack.kind)
    default = default_calibration(profile)
    own = [name for name in list_calibrations() if name.startswith(f"{profile.name}.")]
    candidates = [load_calibration(name, profile) for name in own]
    matching = [
        (calibration, fit)
        for calibration in candidates
        if (fit := calibration.find(stack.kind)) is not None and is_same_stack(fit, stack)
    ]
    if not matching:
        return None if default is None else _with_fit(default, stack.kind)

    def preference(pair: tuple[Calibration, KindFit]) -> tuple[bool, bool, bool]:
        calibration, fit = pair
        return (
            _holds(fit.software, stack.software),
            _holds(fit.dtype, stack.dtype),
            default is not None and calibration.name == default.name,
        )

    return max(matching, key=preference)


def is_same_stack(fit: KindFit, stack: StackRows) -> bool:
    """Return whether a fit rests on rows of this device, laboratory and framework."""
    return (
        fit.origin == "fitted"
        and fit.device == stack.gpu
        and fit.kind == stack.kind
        and _laboratory(stack.source) in map(_laboratory, fit.source.split(", "))
        and _framework(stack.software) in map(_framework, fit.software.split(", "))
    )


def _with_fit(calibration: Calibration, kind: str) -> tuple[Calibration, KindFit] | None:
    fit = calibration.find(kind)
    return None if fit is None else (calibration, fit)


def _laboratory(source: str) -> str:
    return source.partition("@")[0].strip().lower()


def _framework(software: str) -> str:
    """Return the name before a version.

    Examples
    --------
    >>> _framework("vllm/0.24.0 vLLM_custom_graph"), _framework("torch 2.9")
    ('vllm', 'torch')
    """
    return re.split(r"[/\s]", software.strip().lower(), maxsplit=1)[0]


def _holds(listed: str, value: str) -> bool:
    return value == listed or value in listed.split(", ")
