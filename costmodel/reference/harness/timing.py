"""Samples of a time, and what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["LEAST_SAMPLES", "Limits", "Timing", "calls_for", "collect", "scaled"]

LEAST_SAMPLES = 3
"""However long one takes: a time without a spread is no measurement."""


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes
    ----------
    samples : int
        Wanted samples.
    seconds : float
        What they may take together [s]; `LEAST_SAMPLES` are taken in any case.
    warm_up_s : float
        Running before the first sample [s].
    deadline_s : float
        On `time.monotonic`, when only the least is taken [s].
    """

    samples: int = 30
    seconds: float = 1.0
    warm_up_s: float = 0.02
    deadline_s: float = field(default=float("inf"))


@dataclass(frozen=True)
class Timing:
    """What was timed.

    Attributes
    ----------
    samples_s : tuple of float
        Seconds of one execution, one value per sample.
    calls : int
        Calls that each sample is the average of.
    timer : str
        How: ``perf_counter``, ``cuda_graph``, ``cuda_events``, ``queued``, ``wall``, ``host``
        or ``wait``.

    Examples
    --------
    >>> columns = Timing((1e-6, 3e-6, 2e-6), 1, "perf_counter").columns()
    >>> columns["time_us"], columns["time_us_max"], columns["n_runs"]
    (2.0, 3.0, 3)
    """

    samples_s: tuple[float, ...]
    calls: int
    timer: str

    def columns(self) -> dict[str, float | int | str]:
        """Return median and spread in the columns of the tidy schema [us]."""
        microseconds = np.asarray(self.samples_s) * 1e6
        return {
            "time_us": float(np.median(microseconds)),
            "time_us_mean": float(microseconds.mean()),
            "time_us_min": float(microseconds.min()),
            "time_us_max": float(microseconds.max()),
            "time_us_std": float(microseconds.std(ddof=1)),
            "n_runs": len(self.samples_s),
            "calls_per_run": self.calls,
            "timer": self.timer,
        }


def collect(sample: Callable[[], float], limits: Limits) -> tuple[float, ...]:
    """Take samples until there are enough or the time is up.

    Parameters
    ----------
    sample : callable
        Takes one and returns its seconds.
    limits : Limits
        When to stop.

    Returns
    -------
    tuple of float
        At least `LEAST_SAMPLES`.
    """
    end = min(time.monotonic() + limits.seconds, limits.deadline_s)
    taken: list[float] = []
    while len(taken) < LEAST_SAMPLES or (len(taken) < limits.samples and time.monotonic() < end):
        taken.append(sample())
    return tuple(taken)


def calls_for(one_s: float, least_s: float, most: int) -> int:
    """Return how many calls make a sample of at least some seconds.

    Examples
    --------
    >>> calls_for(1e-5, 1e-3, 1000), calls_for(1.0, 1e-3, 1000), calls_for(0.0, 1e-3, 1000)
    (100, 1, 1000)
    """
    return min(most, max(1, int(np.ceil(least_s / max(one_s, 1e-9)))))


def scaled(samples: Sequence[float], calls: int) -> tuple[float, ...]:
    """Return samples of many executions as samples of one."""
    return tuple(value / calls for value in samples)
