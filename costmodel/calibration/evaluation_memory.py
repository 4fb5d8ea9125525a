"""Accuracy of memory-bound kernels and collectives, whole groups left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.accuracy import AccuracyRow, Targets, judge
from costmodel.calibration.fitting import Samples, cross_validate
from costmodel.calibration.memory_samples import (
    COLLECTIVE_MODELS,
    FIXED,
    collective_samples,
    memory_samples,
)
from costmodel.timing.kernels import collective, memory_bound
from costmodel.timing.kernels.base import Chip

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CUSTOM_TARGETS", "NCCL_TARGETS", "collective_rows", "memory_rows", "target_of"]

NCCL_TARGETS = (11.0, 6.0)
CUSTOM_TARGETS = (17.0, 9.0)
LEAST_BYTES = 65536.0
"""Smaller messages are latency, which differs from run to run [B]."""

_TARGETS: Mapping[str, Targets] = {
    "rmsnorm": (8.5, 5.0),
    "activation": (6.0, 4.0),
    "rotary": (8.5, 6.0),
    "add": (10.0, 6.0),
}
_HOPPER_NORM = (14.0, 10.0)
_STACK = ["gpu", "source", "software", "dtype"]
_MODELS = {model.name: model for model in collective.MODELS}
_FOLDS = 4


def target_of(kind: str, gpu: str) -> Targets | None:
    """Return the required and the aimed-at error of a kind [%], or None.

    Examples
    --------
    >>> target_of("rmsnorm", "h100-sxm"), target_of("gather", "a40")
    ((14.0, 10.0), None)
    """
    if kind == "rmsnorm" and gpu.lower().startswith("h100"):
        return _HOPPER_NORM
    return _TARGETS.get(kind)


def memory_rows(
    frame: pd.DataFrame, chip_of: Callable[[str], Chip], *, max_rows: int = 1000, starts: int = 2
) -> list[AccuracyRow]:
    """Return a row per stack and memory-bound kind.

    Parameters
    ----------
    frame : pandas.DataFrame
        Tidy memory-bound timings.
    chip_of : callable
        The chip of a GPU's name.
    max_rows, starts : int
        Passed to the fits.

    Returns
    -------
    list of AccuracyRow
        Kinds with fewer rows than groups or parameters allow are left out.
    """
    found = []
    model = memory_bound.MODEL
    for stack, rows in frame.groupby(_STACK, sort=True):
        gpu, source, software, dtype = (str(part) for part in stack)
        chip = chip_of(gpu)
        for kind, samples in memory_samples(rows).items():
            fixed = FIXED[kind]
            if not _enough(samples, len(model.parameters) - len(fixed)):
                continue
            predicted = cross_validate(
                model, samples, chip, folds=_folds(samples), fixed=fixed, max_rows=max_rows,
                starts=starts,
            )  # fmt: skip
            moved = samples.shapes["read_bytes"] + samples.shapes["write_bytes"]
            found.append(
                judge(
                    kind, (gpu, source, software, dtype), samples.time_s, predicted,
                    moved / chip.bandwidth_bytes_per_s, targets=target_of(kind, gpu),
                )
            )  # fmt: skip
    return found


def collective_rows(
    frame: pd.DataFrame, chip_of: Callable[[str], Chip], *, max_rows: int = 1000, starts: int = 3
) -> list[AccuracyRow]:
    """Return a row per stack, topology and operation, messages of 64 KiB and more.

    Parameters
    ----------
    frame : pandas.DataFrame
        Tidy collective timings.
    chip_of : callable
        The chip of a GPU's name.
    max_rows, starts : int
        Passed to the fits.

    Returns
    -------
    list of AccuracyRow
        ``quantity`` is the operation and, after a comma, the topology.
    """
    found = []
    for stack, rows in frame.groupby(_STACK[:3], sort=True):
        gpu, source, software = (str(part) for part in stack)
        chip = chip_of(gpu)
        for label, op, fixed, samples in collective_samples(rows):
            model = _MODELS[COLLECTIVE_MODELS[op]]
            if not _enough(samples, len(model.parameters) - len(fixed)):
                continue
            predicted = cross_validate(
                model, samples, chip, folds=_folds(samples), fixed=fixed, max_rows=max_rows,
                starts=starts,
            )  # fmt: skip
            large = samples.shapes["bytes"] >= LEAST_BYTES
            sent = model.sent_bytes(samples.shapes["bytes"], samples.shapes["devices"])
            single = label == "single-node"
            targets = CUSTOM_TARGETS if op.startswith("custom") else NCCL_TARGETS
            found.append(
                judge(
                    f"{op}, {label}", (gpu, source, software, ""), samples.time_s[large],
                    predicted[large], sent[large] / chip.link_bytes_per_s,
                    targets=targets if single else None, least_s=0.0,
                )
            )  # fmt: skip
    return found


def _folds(samples: Samples) -> int:
    return min(_FOLDS, len(np.unique(samples.groups)))


def _enough(samples: Samples, parameters: int) -> bool:
    folds = _folds(samples)
    return folds > 1 and len(samples) * (folds - 1) // folds > 2 * parameters
