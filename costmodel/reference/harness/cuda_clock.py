"""Timing on a GPU.

Kernels shorter than the host needs to launch them would be timed with the gaps between them,
and code of ten kernels with ten gaps.  So a batch of calls of up to a millisecond is captured
into a CUDA graph, one call for each input set at least, and events around its replays give the
device's time alone.  Longer calls are timed by events around batches of them: the host is then
ahead of the device.
"""

from __future__ import annotations

import time
from typing import Any

from .case import Runnable
from .timing import Limits, Timing, calls_for, collect, scaled

__all__ = ["time_on_cuda"]

_SHORT_S = 1e-3
_LEAST_SAMPLE_S = 1e-3
_MOST_CALLS = 4096


def time_on_cuda(runnable: Runnable, limits: Limits) -> Timing:
    """Time one runnable on the current GPU.

    Parameters
    ----------
    runnable : Runnable
        What to time.
    limits : Limits
        When to stop.

    Returns
    -------
    Timing
        ``timer`` says how it was timed.
    """
    one_s = _warm_up(runnable, limits)
    if runnable.timer != "device":
        timing = _by_host(runnable, limits, runnable.queue if runnable.timer == "host" else 1)
    elif runnable.graph and one_s < _SHORT_S:
        timing = _by_graph(runnable, limits, one_s)
    else:
        timing = _by_events(runnable, limits, calls_for(one_s, _LEAST_SAMPLE_S, _MOST_CALLS))
    return Timing(scaled(timing.samples_s, runnable.per_call), timing.calls, timing.timer)


def _warm_up(runnable: Runnable, limits: Limits) -> float:
    """Return the seconds of one call when many are in flight."""
    import torch

    for number in range(3):
        runnable.run(number)
    torch.cuda.synchronize()
    number, calls, elapsed = 3, 1, 0.0
    start = time.monotonic()
    while True:
        before = time.perf_counter()
        for _ in range(calls):
            runnable.run(number)
            number += 1
        torch.cuda.synchronize()
        elapsed = time.perf_counter() - before
        if time.monotonic() - start >= limits.warm_up_s:
            return elapsed / calls
        calls = min(2 * calls, runnable.queue)


def _events(timed: Any) -> float:
    """Return the device's seconds of what `timed` enqueues."""
    import torch

    begin = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    begin.record()
    timed()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3


def _by_events(runnable: Runnable, limits: Limits, calls: int) -> Timing:
    position = 0

    def batch() -> None:
        nonlocal position
        for number in range(position, position + calls):
            runnable.run(number)
        position += calls

    samples = collect(lambda: _events(batch), limits)
    return Timing(scaled(samples, calls), calls, "cuda_events")


def _by_graph(runnable: Runnable, limits: Limits, one_s: float) -> Timing:
    calls = max(runnable.sets, calls_for(one_s, _LEAST_SAMPLE_S, _MOST_CALLS))
    graph = _capture(runnable, calls)
    for _ in range(2):
        graph.replay()
    samples = collect(lambda: _events(graph.replay), limits)
    return Timing(scaled(samples, calls), calls, "cuda_graph")


def _capture(runnable: Runnable, calls: int) -> Any:
    import torch

    # Libraries set themselves up on first use of a stream, which a capture must not see.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for number in range(2):
            runnable.run(number)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(calls):
            runnable.run(number)
    return graph


def _by_host(runnable: Runnable, limits: Limits, calls: int) -> Timing:
    """Time on the host's clock: handing the work over, the wait for the device, or both."""
    import torch

    position = 0

    def sample() -> float:
        nonlocal position
        numbers = range(position, position + calls)
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        for number in numbers:
            runnable.run(number)
        handed_over = time.perf_counter_ns()
        torch.cuda.synchronize()
        end = time.perf_counter_ns()
        position += calls
        if runnable.timer == "host":
            end = handed_over
        elif runnable.timer == "wait":
            start = handed_over
        return (end - start) * 1e-9 / calls

    return Timing(collect(sample, limits), calls, runnable.timer)
