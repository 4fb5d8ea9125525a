"""What the host and the device pay for a kernel that does nothing to speak of.

The kind ``launch`` has columns ``op`` and ``kernels``, how many are handed over together:

``dispatch``
    One element is added to; on a CPU the whole of it, on a GPU the host's part while the
    queue has room.
``view``
    A view is made: no kernel at all.
``launch_rate``
    GPU: what a kernel takes when ever more wait in the queue, which is the slower of host
    and device.
``launch_and_wait``, ``wait``
    GPU: a kernel and the wait for it; the wait alone when there is nothing to wait for.
``read_back``
    GPU: the host reads one number, as a test for convergence does.
``graph_replay``, ``graph_launch``
    GPU: replay of a CUDA graph of so many kernels, until the device is done, and the host's
    part of it.  The slope over ``kernels`` is what a node takes.

Times are those of one handing over of all ``kernels``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Timer
from ..harness.inputs import Inputs

__all__ = ["SUITE"]

_QUEUE = 4000
_GRAPHS = (1, 10, 100, 1000)
_QUICK_GRAPHS = (1, 100)

Prepare = Callable[[Inputs], Runnable]


def _cases(options: Options) -> list[Case]:
    made: list[tuple[str, int, Prepare]] = [
        ("dispatch", 1, partial(_adding, timer="host")),
        ("view", 1, _viewing),
    ]
    if options.device == "cuda":
        made += [
            ("launch_rate", 1, _filling),
            ("launch_and_wait", 1, partial(_adding, timer="wall")),
            ("wait", 1, _waiting),
            ("read_back", 1, _reading),
        ]
        for kernels in _QUICK_GRAPHS if options.quick else _GRAPHS:
            made += [
                ("graph_replay", kernels, partial(_replaying, kernels=kernels, timer="wall")),
                ("graph_launch", kernels, partial(_replaying, kernels=kernels, timer="host")),
            ]
    return [
        Case("launch", "launch", {"dtype": dtype, "op": op, "kernels": kernels}, prepare)
        for dtype in options.dtypes
        for op, kernels, prepare in made
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

    return _runnable(run, "wall", per_call=_QUEUE)


def _waiting(inputs: Inputs) -> Runnable:
    return _runnable(lambda i: None, "wall")


def _reading(inputs: Inputs) -> Runnable:
    one = inputs.normal(1)
    return _runnable(lambda i: one.item(), "wall")


def _replaying(inputs: Inputs, kernels: int, timer: Timer) -> Runnable:
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
    return _runnable(lambda i: graph.replay(), timer)


SUITE = Suite("launch", "Launch, dispatch and synchronisation cost, CUDA graph replay.", _cases)
