"""What the host pays for kernels that do nothing to speak of: one element is added to.

Rows say for which runtime (``eager`` calls kernels one by one, ``compiled`` has a compiled
function start them, ``cuda-graph`` replays them), which cost (``op``) and over how many
``kernels``.  A calibration makes all host costs of a runtime from them:

``launch``
    Host's time for one kernel while the queue has room.  On a CPU it is the whole call.
``call``
    Host's time to hand over one stage of so many kernels: by transformers' code of some layers,
    by one call of a compiled function, by one replay.  The slope is a launch, the rest the start
    of a stage.
``sync``
    From the launch of one such kernel until the device is done with it and the host goes on.
``replay``
    Replay of a graph of so many kernels until the device is done: the slope is what a kernel
    takes in a graph, the time between kernels included.
``queued``
    Device's time of each of many kernels that were all in the queue when the first began.
``kernel``
    The same kernel as other suites time theirs, in batches that a graph holds.  What the slope of
    ``replay``, or ``queued``, is more than this is the gap that times of kernels do not have.

The others are for people:

``view``
    A view is made: no kernel at all.
``launch_rate``
    Time for each of ever more kernels in the queue: the slower of host and device.
``read_back``
    The host reads one number, as a test for convergence does.

A stage of compiled code is a chain of small matrix products, each followed by a kernel that
Inductor generates, so that half of its kernels are started by either, as in a language model.
Kernels of transformers' code are the operators that compute or copy, as they are counted when
the case is prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Timer
from ..harness.inputs import Inputs

__all__ = ["SUITE"]

_QUEUE = 4000
_QUEUED = 200
_REPLAYS = (1, 10, 100, 1000)
_CHAINS = (2, 20, 100)
_CHAIN_WIDTH = 16
_LAYERS = (1, 2, 8)
_TOKENS = 16

Prepare = Callable[[Inputs], Runnable]
Made = tuple[str, str, int, Prepare]


def _cases(options: Options) -> list[Case]:
    made: list[Made] = [
        ("eager", "launch", 1, partial(_adding, timer="host")),
        ("eager", "view", 1, _viewing),
    ]
    if options.device == "cuda":
        made += _on_a_gpu()
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


def _on_a_gpu() -> Iterator[Made]:
    yield "eager", "sync", 1, partial(_adding, timer="wait")
    yield "eager", "queued", 1, partial(_adding, timer="queued", queue=_QUEUED)
    yield "eager", "launch_rate", 1, _filling
    yield "eager", "read_back", 1, _reading
    for layers in _LAYERS:
        yield "eager", "call", layers, partial(_layers, layers=layers)
    yield "cuda-graph", "kernel", 1, partial(_adding, timer="device", graph=True)
    yield "cuda-graph", "sync", 1, partial(_replaying, kernels=1, timer="wait")
    for kernels in _REPLAYS:
        yield "cuda-graph", "call", kernels, partial(_replaying, kernels=kernels, timer="host")
        yield "cuda-graph", "replay", kernels, partial(_replaying, kernels=kernels, timer="wall")
    for kernels in _CHAINS:
        yield "compiled", "call", kernels, partial(_calling, kernels=kernels)


def _runnable(
    run: Callable[[int], object], timer: Timer = "host", graph: bool = False, **rest: Any
) -> Runnable:
    return Runnable(run, sets=1, set_bytes=4, timer=timer, graph=graph, **rest)


def _adding(inputs: Inputs, timer: Timer, **rest: Any) -> Runnable:
    one = inputs.scratch(1)
    return _runnable(lambda i: one.add_(1), timer, **rest)


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


def _replaying(inputs: Inputs, kernels: int, timer: Timer) -> Runnable:
    from ..graphs import capture

    one = inputs.scratch(1)

    def run() -> None:
        for _ in range(kernels):
            one.add_(1)

    graph, _ = capture(run)
    # More than one replay may fill the queue, and the host would wait for room.
    return _runnable(lambda i: graph.replay(), timer, queue=1)


def _calling(inputs: Inputs, kernels: int) -> Runnable:
    from ..models.runtimes import wrap

    x, weight = inputs.normal(2, _CHAIN_WIDTH, _CHAIN_WIDTH)

    def chain(hidden: Any) -> Any:
        for _ in range(kernels // 2):
            hidden = (hidden @ weight).relu()
        return hidden

    call = wrap(chain, "compiled")
    return _runnable(lambda i: call(x), "host", queue=max(1, _QUEUED // kernels))


def _layers(inputs: Inputs, layers: int) -> Runnable:
    import torch
    import transformers

    from ..methods.counting import count_calls
    from ..models.runtimes import build
    from ..models.shapes import ModelShape, load_shape

    shape = ModelShape("layers", replace(load_shape("llava-tiny").decoder, layers=layers))
    # Of tensors of inference mode torch does not show what composite operators consist of.
    with torch.inference_mode(False), torch.no_grad():
        model: Any = build(shape, "eager", device=inputs.device, dtype=inputs.dtype)
        ids = inputs.below(shape.decoder.vocab, 1, _TOKENS)

        def call() -> Any:
            cache = transformers.DynamicCache()
            return model.decoder(input_ids=ids, past_key_values=cache, use_cache=True)

        kernels = count_calls(call).launches
    return _runnable(
        lambda i: call(), queue=max(1, _QUEUED // kernels), columns={"kernels": kernels}
    )


SUITE = Suite("launch", "Launch, dispatch and synchronisation cost, CUDA graph replay.", _cases)
