"""Timing on a CPU, and which clock times what.

Warm-up, then samples.  A sample of something short is the average of many calls, so that neither
the clock's resolution nor its own cost shows; calls go round the input sets.  The monotonic
clock with the finest resolution counts, `time.perf_counter_ns`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .case import Runnable
from .timing import Limits, Timing, calls_for, collect, scaled

__all__ = ["time_runnable"]

_LEAST_SAMPLE_S = 200e-6
_MOST_CALLS = 10_000


def time_runnable(runnable: Runnable, device: str, limits: Limits) -> Timing:
    """Time one runnable.

    Parameters
    ----------
    runnable : Runnable
        What to time.
    device : str
        Where it runs.
    limits : Limits
        When to stop.

    Returns
    -------
    Timing
    """
    import torch

    with torch.inference_mode(), runnable.context(), _no_garbage_collection():
        if device.startswith("cuda"):
            from .cuda_clock import time_on_cuda

            return time_on_cuda(runnable, limits)
        return _time_on_cpu(runnable, limits)


def _time_on_cpu(runnable: Runnable, limits: Limits) -> Timing:
    run = runnable.run
    position, one_s = _warm_up(runnable, limits)
    calls = calls_for(one_s, _LEAST_SAMPLE_S, _MOST_CALLS)

    def sample() -> float:
        nonlocal position
        numbers = range(position, position + calls)
        start = time.perf_counter_ns()
        for number in numbers:
            run(number)
        end = time.perf_counter_ns()
        position += calls
        return (end - start) * 1e-9 / calls

    samples = collect(sample, limits)
    return Timing(scaled(samples, runnable.per_call), calls, "perf_counter")


def _warm_up(runnable: Runnable, limits: Limits) -> tuple[int, float]:
    """Return how many calls were made, and the seconds of one: the median, for one may stall."""
    taken: list[int] = []
    start = time.monotonic()
    while len(taken) < 2 or time.monotonic() - start < limits.warm_up_s:
        before = time.perf_counter_ns()
        runnable.run(len(taken))
        taken.append(time.perf_counter_ns() - before)
    # The first call sets libraries up.
    return len(taken), statistics.median(taken[1:]) * 1e-9


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running within a sample."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
