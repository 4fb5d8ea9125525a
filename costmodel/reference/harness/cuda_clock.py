"""Timing on a GPU.

Kernels shorter than the host needs to launch them would be timed with the gaps between them,
and code of ten kernels with ten gaps.  So a batch of calls of up to a millisecond is captured
into a CUDA graph, one call for each input set at least.  Longer calls are enqueued one by one.

A batch is timed between two events, of which the first is the end of the batch before: while one
runs the host enqueues the next, so that the device never waits for the host to start a sample.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..graphs import capture
from .case import Runnable
from .timing import Limits, Timing, calls_for, collect, scaled

__all__ = ["Load", "time_on_cuda"]

_SHORT_S = 1e-3
_LEAST_SAMPLE_S = 1e-3
# The host may be slower than the device, whose time of a batch is then shorter than estimated.
_LEAST_GRAPH_S = 2e-3
_LONG_S = 20e-3
_MOST_CALLS = 4096
_FIRST_SETS = 32
_PLUG_CYCLES = 20_000_000
_LOAD_WIDTH = 4096
# Beyond about a thousand kernels in the queue the host has to wait.
_MOST_QUEUED = 900


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
    if runnable.timer == "queued":
        timing = _behind_a_plug(runnable, limits)
    elif runnable.timer != "device":
        timing = _by_host(runnable, limits, runnable.queue if runnable.timer == "host" else 1)
    elif runnable.graph and one_s < _SHORT_S:
        timing = _by_graph(runnable, limits, one_s)
    else:
        timing = _by_events(runnable, limits, one_s)
    return Timing(scaled(timing.samples_s, runnable.per_call), timing.calls, timing.timer)


class Load:
    """Work that keeps a GPU busy: its clocks rise under it, and are what they are under load.

    Parameters
    ----------
    device : str
        ``cuda`` or ``cuda:1``.
    """

    def __init__(self, device: str) -> None:
        import torch

        shape = (_LOAD_WIDTH, _LOAD_WIDTH)
        self._operand = torch.ones(shape, device=device, dtype=torch.float16)
        self._result = torch.empty_like(self._operand)
        self._one_s = 1e-3

    def wake(self, seconds: float = 1.0) -> None:
        """Run for so long, until clocks are as they are during a long measurement."""
        import torch

        start, calls = time.monotonic(), 0
        while (passed := time.monotonic() - start) < seconds:
            self._enqueue(10)
            torch.cuda.synchronize()
            calls += 10
        self._one_s = passed / calls

    def start(self, seconds: float = 0.3) -> None:
        """Enqueue work for so long, and return."""
        self._enqueue(min(max(1, round(seconds / self._one_s)), _MOST_QUEUED))

    def _enqueue(self, calls: int) -> None:
        import torch

        for _ in range(calls):
            torch.mm(self._operand, self._operand, out=self._result)


def _warm_up(runnable: Runnable, limits: Limits) -> float:
    """Return the seconds of one call when many are in flight: the least, for one may compile."""
    import torch

    # Code may be compiled anew for each set of weights.
    number = max(3, min(runnable.sets, _FIRST_SETS))
    for index in range(number):
        runnable.run(index)
    torch.cuda.synchronize()
    calls, least = 1, float("inf")
    start = time.monotonic()
    while True:
        before = time.perf_counter()
        for _ in range(calls):
            runnable.run(number)
            number += 1
        torch.cuda.synchronize()
        least = min(least, (time.perf_counter() - before) / calls)
        if time.monotonic() - start >= limits.warm_up_s:
            return least
        calls = min(2 * calls, runnable.queue)


def _between_events(
    batch: Callable[[], object], limits: Limits, ahead: int = 2
) -> tuple[float, ...]:
    """Return the device's seconds of batches that follow each other without a gap."""
    import torch

    ends: deque[Any] = deque()

    def enqueue() -> None:
        batch()
        ends.append(_event())

    def sample() -> float:
        enqueue()
        begin, end = ends.popleft(), ends[0]
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    for _ in range(ahead):
        enqueue()
    samples = collect(sample, limits)
    torch.cuda.synchronize()
    return samples


def _event() -> Any:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _by_events(runnable: Runnable, limits: Limits, one_s: float) -> Timing:
    calls = calls_for(one_s, _LEAST_SAMPLE_S, _MOST_CALLS)
    # Of a long batch the host's microseconds are nothing, and one more costs patience.
    ahead = 2 if calls * one_s < _LONG_S else 1
    samples = _between_events(_batches(runnable, calls), limits, ahead)
    return Timing(scaled(samples, calls), calls, "cuda_events")


def _batches(runnable: Runnable, calls: int) -> Callable[[], None]:
    """Return what runs so many calls, each time on the sets that come next."""
    position = 0

    def batch() -> None:
        nonlocal position
        for number in range(position, position + calls):
            runnable.run(number)
        position += calls

    return batch


def _by_graph(runnable: Runnable, limits: Limits, one_s: float) -> Timing:
    calls = max(runnable.sets, calls_for(one_s, _LEAST_GRAPH_S, _MOST_CALLS))

    def batch() -> None:
        # Results rotate as inputs do: one that is dropped at once gives its place, which the
        # cache holds, to the next.
        results: deque[object] = deque(maxlen=runnable.sets)
        for number in range(calls):
            results.append(runnable.run(number))

    def warm_up() -> None:
        for number in range(2):
            runnable.run(number)

    graph, _ = capture(batch, warm_up)
    # The first replay uploads the graph.
    graph.replay()
    samples = _between_events(graph.replay, limits)
    return Timing(scaled(samples, calls), calls, "cuda_graph")


def _behind_a_plug(runnable: Runnable, limits: Limits) -> Timing:
    """Time calls that wait in the queue, all of them enqueued, when the first one starts."""
    import torch

    calls, batch = runnable.queue, _batches(runnable, runnable.queue)

    def sample() -> float:
        torch.cuda.synchronize()
        torch.cuda._sleep(_PLUG_CYCLES)
        begin = _event()
        batch()
        if begin.query():
            raise RuntimeError(f"the host took longer to enqueue {calls} calls than the device")
        end = _event()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    return Timing(scaled(collect(sample, limits), calls), calls, "queued")


def _by_host(runnable: Runnable, limits: Limits, calls: int) -> Timing:
    """Time on the host's clock: handing the work over, the wait for the device, or both."""
    import torch

    batch = _batches(runnable, calls)

    def sample() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        batch()
        handed_over = time.perf_counter_ns()
        torch.cuda.synchronize()
        end = time.perf_counter_ns()
        if runnable.timer == "host":
            end = handed_over
        elif runnable.timer == "wait":
            start = handed_over
        return (end - start) * 1e-9 / calls

    return Timing(collect(sample, limits), calls, runnable.timer)
