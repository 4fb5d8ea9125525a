"""The interface of a time model, and the registry that finds one by name.

A time model is one module in `costmodel.timing.models` that defines ``MODEL``.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from costmodel.errors import UnknownNameError
from costmodel.evaluation import Evaluation, FloatArray
from costmodel.specs.workload import Deployment
from costmodel.timing import models as _models
from costmodel.timing.composition import Part
from costmodel.timing.device import Device
from costmodel.timing.host import HostQueue

__all__ = ["BOUNDS", "PassTimes", "Provenance", "TimeModel", "list_time_models", "load_time_model"]

Provenance = Literal["measured", "interpolated", "extrapolated", "transferred", "datasheet"]
"""What a time rests on, strongest first."""

BOUNDS = ("compute", "memory", "link", "host", "launch")
"""What limits an operator; `PassTimes.bound` holds indices."""


@dataclass(frozen=True)
class PassTimes:
    """Times of one pass.

    Attributes
    ----------
    op_s : ndarray
        One execution of every operator [s]; shape ``(operators, points)``.
    bound : ndarray of int
        Index into `BOUNDS`; same shape.
    provenance : tuple of str
        What each operator's time rests on.
    host_overhead_s : ndarray
        Time the GPU waits for the host in the whole pass [s]; shape of the points.
    low_s, high_s : dict of str to ndarray
        Bounds of the pass time by kind of band (``same_stack``, ``any_stack``);
        empty where nothing was measured.
    stage_low_s, stage_high_s : dict of str to dict of str to ndarray
        The same by operator stage within each kind of band; host time is in no stage.
    level : float, optional
        Probability the bands are meant to have.
    evidence : dict
        What the times rest on: calibration, and per kind source, software and error.
    notes : tuple of str
        Warnings, for people.
    parts : tuple of Part
        What the bands are composed of, operator by operator; empty where nothing was measured.
    queues : tuple of HostQueue
        What `host_overhead_s` sums over; empty where the host costs nothing.
    """

    op_s: FloatArray
    bound: FloatArray
    provenance: tuple[Provenance, ...]
    host_overhead_s: FloatArray
    low_s: dict[str, FloatArray] = field(default_factory=dict)
    high_s: dict[str, FloatArray] = field(default_factory=dict)
    stage_low_s: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    stage_high_s: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    level: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    queues: tuple[HostQueue, ...] = ()


class TimeModel(Protocol):
    """Turns evaluated operators into seconds."""

    name: str
    summary: str

    def times(self, evaluation: Evaluation, device: Device, deployment: Deployment) -> PassTimes:
        """Return the times of all operators of a pass."""
        ...


def list_time_models() -> tuple[str, ...]:
    """Return the names of all time models.

    Examples
    --------
    >>> "ideal" in list_time_models()
    True
    """
    return tuple(sorted(item.name for item in pkgutil.iter_modules(_models.__path__)))


def load_time_model(name: str) -> TimeModel:
    """Return the time model called `name`.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if name not in list_time_models():
        raise UnknownNameError("time-model", name, list_time_models())
    model: TimeModel = importlib.import_module(f"{_models.__name__}.{name}").MODEL
    return model
