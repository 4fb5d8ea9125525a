"""Compression methods alone: from tokens in device memory to tokens in device memory.

A time is from the call on an idle device until the device is done, so that a method that waits
for the device or starts hundreds of kernels shows it.  In a pass the host may run ahead of the
device, and some of that is hidden: it is the most that a method adds.  Runtime ``eager`` calls
the implementation as it is, ``compiled`` is the variant that compiles its steps, ``cuda-graph``
replays a graph of it.  Inputs do not rotate: the layer before has just written them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..harness.case import Case, Options, Runnable, Suite, Value
from ..harness.inputs import Inputs
from ..models.shapes import DTYPE_BYTES, ModelShape
from ._methods import Run, runs_of
from ._shapes import models_of

if TYPE_CHECKING:
    from ..methods import MethodCase

__all__ = ["SUITE", "method_case", "params_text"]


def params_text(params: Any) -> str:
    """Return parameters as ``key=value,...`` in alphabetical order.

    Examples
    --------
    >>> params_text({"iterations": 5, "check": False})
    'check=false,iterations=5'
    """
    words = {key: str(value).lower() if isinstance(value, bool) else value
             for key, value in params.items()}  # fmt: skip
    return ",".join(f"{key}={words[key]}" for key in sorted(words))


def _cases(options: Options) -> list[Case]:
    made = [
        _case(run, runtime, dtype, batch, shape.name)
        for shape in models_of(options)
        if shape.vision is not None
        for dtype in options.dtypes
        for tokens in _tokens(shape, options)
        for run in runs_of(shape, tokens, options)
        for batch in (_batches(options) if run.batched else (1,))
        for runtime in _runtimes(run, options)
    ]
    return sorted(made, key=_work)


def _work(case: Case) -> int:
    return int(case.key["batch"]) * int(case.key["tokens"]) * int(case.key["width"])


def _tokens(shape: ModelShape, options: Options) -> tuple[int, ...]:
    own = shape.visual_tokens
    given = sorted(set(options.tokens)) or ([own, 4 * own] if options.device == "cuda" else [own])
    # Fewer leave nothing to choose from, and some methods need as many neighbours.
    return tuple(count for count in given if count >= 64)


def _batches(options: Options) -> tuple[int, ...]:
    if options.device == "cuda" and not options.quick:
        return 1, 4, 16
    return 1, 2


def _runtimes(run: Run, options: Options) -> Iterator[str]:
    yield "compiled" if run.variant == "compiled" else "eager"
    if run.graph and options.device == "cuda":
        yield "cuda-graph"


def _case(run: Run, runtime: str, dtype: str, batch: int, model: str) -> Case:
    key: dict[str, Value] = {
        "dtype": dtype,
        "method": run.method,
        "variant": run.variant,
        "runtime": runtime,
        "batch": batch,
        "tokens": run.tokens,
        "kept": run.kept,
        "width": run.width,
        "params": params_text(run.params),
    }
    prepare = partial(_prepare, run=run, runtime=runtime, batch=batch)
    return Case("compression", "compression", key, prepare, notes={"model": model})


def method_case(run: Run, device: str, dtype: str, batch: int) -> MethodCase:
    """Return what a method is prepared from."""
    from ..methods import MethodCase

    return MethodCase(
        batch, run.tokens, run.kept, run.width, device, dtype, run.variant, dict(run.params)
    )


def _prepare(inputs: Inputs, run: Run, runtime: str, batch: int) -> Runnable:
    import torch

    from ..methods import load_method
    from ..methods.counting import count_calls
    from ..models.runtimes import wrap

    case = method_case(run, inputs.device, inputs.dtype, batch)
    # Of tensors of inference mode torch does not show what composite operators consist of.
    with torch.inference_mode(False), torch.no_grad():
        prepared = load_method(run.method).prepare(case)
        calls = None if run.variant == "compiled" else count_calls(prepared.run)
    if prepared.graph_safe != run.graph:
        raise ValueError(f"{run.method} {run.variant}: graph_safe is {prepared.graph_safe}")
    columns: dict[str, Value] = {} if calls is None else {"launches": calls.launches}
    call = prepared.run
    if runtime == "cuda-graph":
        call = wrap(prepared.run, "cuda-graph", compile_first=False)
    size = (batch * run.tokens * run.width + prepared.parameters) * DTYPE_BYTES[inputs.dtype]
    return Runnable(
        lambda i: call(), sets=1, set_bytes=size, timer="wall", graph=False, queue=1,
        columns=columns,
    )  # fmt: skip


SUITE = Suite("compression", "Compression methods alone, by implementation.", _cases)
