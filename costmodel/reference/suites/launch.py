"""What the host pays for a kernel that does nothing to speak of: one element is added to.

Rows say for which runtime (``eager`` calls kernels one by one, ``cuda-graph`` replays them) and
which cost (``op``); the costs that the cost model has are the first three.

``launch``
    Host's time for one kernel while the queue has room; in a graph, its share of the replay of
    1000.  On a CPU it is the whole call.
``start``
    Host's time to start the replay of a graph of 300 kernels, as many as a stage may have.
``sync``
    From then until the device is done with one such kernel and the host goes on.
``view``
    A view is made: no kernel at all.
``launch_rate``
    Time for each of ever more kernels in the queue: the slower of host and device.
``read_back``
    The host reads one number, as a test for convergence does.
``replay``
    Replay of a graph of so many ``kernels`` until the device is done; the slope is what a
    kernel takes in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Timer
from ..harness.inputs import Inputs

__all__ = ["SUITE"]

_QUEUE = 4000
_STAGE, _MANY = 300, 1000
_REPLAYS = (1, 10, 100, 1000)

Prepare = Callable[[Inputs], Runnable]


def _cases(options: Options) -> list[Case]:
    made: list[tuple[str, str, int, Prepare]] = [
        ("eager", "launch", 1, partial(_adding, timer="host")),
        ("eager", "view", 1, _viewing),
    ]
    if options.device == "cuda":
        whole = partial(_replaying, kernels=_MANY, timer="host", per_call=_MANY)
        made += [
            ("eager", "sync", 1, partial(_adding, timer="wait")),
            ("eager", "launch_rate", 1, _filling),
            ("eager", "read_back", 1, _reading),
            ("cuda-graph", "launch", 1, whole),
            ("cuda-graph", "start", _STAGE, partial(_replaying, kernels=_STAGE, timer="host")),
            ("cuda-graph", "sync", 1, partial(_replaying, kernels=1, timer="wait")),
        ]
        for kernels in _REPLAYS:
            replaying = partial(_replaying, kernels=kernels, timer="wall")
            made.append(("cuda-graph", "replay", kernels, replaying))
    return [
        Case(
            "launch",
            "launch",
            {"dtype": dtype, "runtime": runtime, "op": op, "kernels": kernels},
            prepare,
        )
        for dtype in options.dtypes
        for runtime, op, kernels, prepare in made
    ]


def _runnable(run: Callable[[int], object], timer: Timer = "host", **rest: Any) -> Runnable:
    return Runnable(run, sets=1, set_bytes=4, timer=timer, graph=False, **rest)


def _adding(inputs: Inputs, timer: Timer) -> Runnable:
    one = inputs.scratch(1)
    return _runnable(lambda i: one.add_(1), timer)


def _viewing(inputs: Inputs) -> Runnable:
    some = inputs.normal(2, 2)
    return _runnable(lambda i: some.view(4))


def _filling(inputs: Inputs) -> Runnable:
    one = inputs.scratch(1)

    def run(_: int) -> None:
        for _ in range(_QUEUE):
            one.add_(1)

    return _runnable(run, "wall", per_call=_QUEUE, queue=1)


def _reading(inputs: Inputs) -> Runnable:
    one = inputs.normal(1)
    return _runnable(lambda i: one.item(), "wall")


def _replaying(inputs: Inputs, kernels: int, timer: Timer, per_call: int = 1) -> Runnable:
    import torch

    one = inputs.scratch(1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        one.add_(1)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(kernels):
            one.add_(1)
    return _runnable(lambda i: graph.replay(), timer, per_call=per_call, queue=8)


SUITE = Suite("launch", "Launch, dispatch and synchronisation cost, CUDA graph replay.", _cases)
