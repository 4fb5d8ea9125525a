"""Which requests of a whole model are timed, and how much of a model fits."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from ..harness.case import Options
from ..models.shapes import ModelShape, load_shape

__all__ = ["Request", "compiles", "fitting_models", "requests_of", "split"]

TEXT = 64
"""Tokens of a prompt that are not visual, unless it is too short or too long for that."""

_LEAST_TEXT = 32
_GPU = (40, 64, 96, 128, 192, 256, 320, 384, 512, 640, 1024, 1536, 2048, 3072, 4096)
_GPU_COMPILED = (40, 128, 256, 640, 1024, 2048, 4096)
_CPU = (40, 64, 128, 256, 448, 640, 1024, 2048)
_WINDOWS = (2, 3)
_SEVERAL = 8
_SHARE_OF_MEMORY = 0.7
"""Of a device for weights and KV cache; the rest is for activations, graphs and input sets."""


@dataclass(frozen=True)
class Request:
    """A stage of a request in a runtime.

    Attributes
    ----------
    runtime : {"eager", "compiled", "cuda-graph"}
        As in the cost model.
    stage : {"ttft", "vision", "llm", "tpot"}
        What is timed.
    batch : int
        Requests computed together.
    text, kept : int
        Tokens of a prompt that are not visual, and visual ones after compression.
    compress : str
        Method as of the command line; empty for none.
    """

    runtime: str
    stage: str
    batch: int
    text: int
    kept: int
    compress: str = ""

    @property
    def prompt(self) -> int:
        """Tokens of a prompt that the language model sees."""
        return self.text + self.kept

    @property
    def code(self) -> str:
        """Which model runs: transformers' or the compiled one."""
        return "eager" if self.runtime == "eager" else "compiled"


def split(prompt: int, visual: int) -> tuple[int, int]:
    """Return the text tokens and the visual tokens kept of a prompt.

    Examples
    --------
    >>> split(40, 576), split(128, 576), split(640, 576), split(4096, 576), split(128, 0)
    ((20, 20), (64, 64), (64, 576), (3520, 576), (128, 0))
    """
    if not visual:
        return prompt, 0
    text = TEXT if prompt >= 2 * TEXT else min(_LEAST_TEXT, math.ceil(prompt / 2))
    kept = min(visual, prompt - text)
    return prompt - kept, kept


def requests_of(shape: ModelShape, options: Options) -> list[Request]:
    """Return the requests of a model, those of a runtime together, from small to large."""
    made: dict[Request, None] = {}
    for runtime in _runtimes(options):
        for batch, prompts in _prompts(runtime, shape, options).items():
            made |= dict.fromkeys(_plain(shape, runtime, batch, prompts))
            if shape.visual_tokens:
                made |= dict.fromkeys(_methods(shape, runtime, batch))
    return list(made)


def _runtimes(options: Options) -> tuple[str, ...]:
    if options.device == "cuda":
        return "eager", "compiled", "cuda-graph"
    return ("eager",) if options.quick or not compiles() else ("eager", "compiled")


def compiles() -> bool:
    """Return whether there is a compiler that `torch.compile` needs on a CPU."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return any(shutil.which(name) for name in names if name)


def _prompts(runtime: str, shape: ModelShape, options: Options) -> dict[int, tuple[int, ...]]:
    """Return the prompts of each batch, in tokens."""
    whole = shape.visual_tokens + TEXT
    some = tuple(sorted({2 * TEXT, whole}))
    if options.tokens:
        return {1: tuple(sorted({tokens for tokens in options.tokens if tokens > 1}))}
    if options.quick:
        return {1: some} if options.device == "cuda" else {1: (40, *some, 192), 2: some[:1]}
    if options.device == "cuda":
        return {1: _GPU if runtime == "eager" else _GPU_COMPILED, _SEVERAL: some}
    return {1: _CPU, 4: some} if runtime == "eager" else {1: some}


def _plain(
    shape: ModelShape, runtime: str, batch: int, prompts: tuple[int, ...]
) -> Iterator[Request]:
    visual = shape.visual_tokens
    if visual:
        yield Request(runtime, "vision", batch, TEXT, visual)
    for prompt in prompts:
        text, kept = split(prompt, visual)
        compress = f"random:k={kept}" if kept < visual else ""
        for stage in ("llm", "tpot", "ttft"):
            yield Request(runtime, stage, batch, text, kept, compress)


def _methods(shape: ModelShape, runtime: str, batch: int) -> Iterator[Request]:
    side = math.isqrt(shape.visual_tokens)
    windows = [window for window in _WINDOWS if side % window == 0]
    # Each number of tokens is one more shape to compile.
    for window in windows if runtime == "eager" else windows[-1:]:
        k = shape.visual_tokens // window**2
        for compress in (
            f"random:k={k}",
            f"spatial:k={k}",
            f"avgpool:window={window}",
            f"stf:window={window}",
            *_clusterings(runtime, k),
        ):
            yield Request(runtime, "ttft", batch, TEXT, k, compress)


def _clusterings(runtime: str, k: int) -> tuple[str, ...]:
    # A test for convergence would end it early: these tokens are random.
    if runtime == "eager":
        return f"cluster:check=false,k={k}", f"cluster:impl=fused,k={k}"
    return (f"cluster:impl=compiled,k={k}",)


def fitting_models(options: Options, dtype: str) -> Iterator[ModelShape]:
    """Yield the chosen models, with as many layers as the device's memory holds.

    LLaVA-1.5 of 7 and 13 billion parameters on a GPU, a small model on a CPU, where none was
    named.  A cut model says so in its name; one of which not a layer fits is left out.
    """
    default: tuple[str, ...] = ("llava-1.5-7b", "llava-1.5-13b")
    if options.quick or options.device != "cuda":
        default = ("llava-tiny",) if options.quick else ("llava-small",)
    for name in options.models or default:
        shape = load_shape(name)
        longest = max(options.tokens or (_GPU[-1],))
        tokens = max(longest, _SEVERAL * (shape.visual_tokens + TEXT)) + 1
        layers = shape.fits(_SHARE_OF_MEMORY * _memory_bytes(options.device), dtype, tokens)
        if layers:
            yield shape.truncated(layers)


def _memory_bytes(device: str) -> float:
    """Return the memory of the device [B]; without bound where it is not known."""
    import torch

    if device == "cuda":
        if not torch.cuda.is_available():
            return 1e15
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return 1e15
