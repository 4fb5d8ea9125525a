"""Run a pass the way a runtime of the cost model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..compiling import compile_each_shape
from ..graphs import capture
from .base import RunnableModel
from .shapes import ModelShape

__all__ = ["RUNTIMES", "Runtime", "build", "wrap"]

Runtime = Literal["eager", "compiled", "cuda-graph"]
RUNTIMES: tuple[Runtime, ...] = ("eager", "compiled", "cuda-graph")
"""Names as in the cost model."""


def build(
    shape: ModelShape, runtime: Runtime, *, attention: str = "", **options: Any
) -> RunnableModel:
    """Make the model that a runtime runs: transformers' for ``eager``, else the fused one.

    Parameters
    ----------
    shape : ModelShape
        Sizes.
    runtime : {"eager", "compiled", "cuda-graph"}
        As in the cost model.
    attention : str
        Implementation; empty for the model's default.
    **options
        Of `build_eager` or `build_fused`: device, dtype, seed.

    Raises
    ------
    ValueError
        If the runtime is unknown.
    """
    _check(runtime)
    if attention:
        options["attention"] = attention
    if runtime == "eager":
        from .eager import build_eager

        return build_eager(shape, **options)
    from .fused import build_fused

    return build_fused(shape, **options)


def wrap(
    run: Callable[..., Any],
    runtime: Runtime,
    *,
    backend: str = "inductor",
    compile_first: bool = True,
) -> Callable[..., Any]:
    """Return `run` as a runtime runs it.

    Parameters
    ----------
    run : callable
        Takes tensors and returns a tensor or a tuple that holds tensors; bind everything else
        beforehand: ``partial(model.prefill, cache=cache)``.  A graph copies its inputs into
        buffers before each replay; bind them too to time the replay alone.
    runtime : {"eager", "compiled", "cuda-graph"}
        ``eager``: as it is.  ``compiled``: `torch.compile`, anew for each shape.  ``cuda-graph``:
        captured at the first call with inputs of these shapes and replayed afterwards: Python
        runs only then, so a replay does not advance a cache, and its result is overwritten by
        the next call.
    backend : str
        Of `torch.compile`.
    compile_first : bool
        Whether what a CUDA graph captures is compiled.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If the runtime is unknown.
    RuntimeError
        If ``cuda-graph`` is asked for without a CUDA device.
    """
    _check(runtime)
    if runtime == "eager":
        return run
    if runtime == "compiled":
        return _compiled(run, backend)
    if not torch.cuda.is_available():
        raise RuntimeError("runtime: 'cuda-graph' needs a CUDA device; use eager or compiled here")
    return _Graph(_compiled(run, backend) if compile_first else run)


def _check(runtime: str) -> None:
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: {runtime!r} is none of {', '.join(RUNTIMES)}")


def _compiled(run: Callable[..., Any], backend: str) -> Callable[..., Any]:
    def call(*inputs: Any) -> Any:
        return run(*inputs)

    return compile_each_shape(call, backend=backend)


class _Graph:
    """Captures a call for each shape of its inputs and replays it."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run
        self.captured: dict[Any, tuple[list[Tensor], Any, Any]] = {}

    def __call__(self, *inputs: Any) -> Any:
        leaves, tree = pytree.tree_flatten(inputs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = tuple(
            (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves
        )
        if key not in self.captured:
            self.captured[key] = self._capture(leaves, tree)
        static, graph, result = self.captured[key]
        for buffer, tensor in zip(static, tensors, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        return result

    def _capture(self, leaves: list[Any], tree: Any) -> tuple[list[Tensor], Any, Any]:
        held = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        inputs = pytree.tree_unflatten(held, tree)
        graph, result = capture(lambda: self.run(*inputs))
        return [leaf for leaf in held if isinstance(leaf, Tensor)], graph, result
