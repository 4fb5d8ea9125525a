"""Capture of CUDA graphs, so that one that fails is a failure with its reason and nothing more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["CaptureError", "capture"]

_broken: list[Any] = []


class CaptureError(RuntimeError):
    """Something that no graph can hold, such as a wait for the device, ended a capture."""


def capture(run: Callable[[], Any], warm_up: Callable[[], object] | None = None) -> tuple[Any, Any]:
    """Capture what a call enqueues on the current GPU.

    Libraries set themselves up and compilers compile on first use, which a capture must not see:
    the call runs before on the very stream that is captured.  All captures share that stream,
    because cuBLAS keeps a workspace of up to tens of megabytes for every stream it has seen.

    Parameters
    ----------
    run : callable
        Enqueues the same work every time and never waits for the device.
    warm_up : callable, optional
        Runs the same kernels before; `run` itself, twice, by default.

    Returns
    -------
    graph : torch.cuda.CUDAGraph
        To be replayed; its memory is free again once it is deleted.
    result : object
        What the captured call returned, overwritten by every replay.

    Raises
    ------
    CaptureError
        If something cannot be captured.  torch reports the end of the broken capture, which
        says nothing; the message is that of the first error.
    """
    import torch

    stream, before = _stream(torch.cuda.current_device()), torch.cuda.current_stream()
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        if warm_up is None:
            run()
            run()
        else:
            warm_up()
    before.wait_stream(stream)
    torch.cuda.synchronize()
    graph, first = torch.cuda.CUDAGraph(), []
    try:
        # What other threads do, such as those of a compiler, is no part of the capture.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            try:
                result = run()
            except Exception as error:
                first.append(error)
                raise
    except Exception as error:
        # torch does not leave the stream when the end of a capture fails.
        torch.cuda.set_stream(before)
        # Kept in a variable here, the error would keep the tensors of its traceback.
        reason = str(first[0]) if first else ""
        if first and first.pop() is error:
            raise
        _recover(graph)
        raise CaptureError(f"cannot be captured: {reason or error}") from error
    return graph, result


def _recover(graph: Any) -> None:
    """Put right what torch leaves behind a capture whose end failed (ATen's CUDAGraph.cpp)."""
    import torch

    # The allocator still asks the graph which allocations are its own.
    _broken.append(graph)
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    # Random numbers would be refused, for the generator takes itself to be captured.
    if hasattr(generator, "graphsafe_set_state"):
        with contextlib.suppress(RuntimeError):
            fresh = torch.Generator(generator.device)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())


@cache
def _stream(device: int) -> Any:
    import torch

    return torch.cuda.Stream(device)
