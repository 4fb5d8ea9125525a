"""Whole models with random weights: time to first token, its stages, one token more, memory.

Rows are of kind ``whole_model``; every row carries the config.json of its model, so that models
that were cut to fit or that are no real ones are known to a reader.

``ttft``
    From pixels and token ids on the device to the logits of the last token: vision tower (all
    its layers), projector, compression, language model, head on the last token.  Timed from an
    idle device until it is done, which is what a first token waits for; ``memory_bytes`` is the
    peak that torch allocated meanwhile, weights included, on a GPU.
``vision``, ``llm``
    Vision tower with projector; embedding, language model and head on visual tokens that are
    ready.  Times of the device; where the host is slower than the device, which is so in
    ``eager`` and ``compiled`` at few tokens, the gaps between kernels are in them.
``tpot``
    One token more after the prompt, from an idle device until it is done.

Prompts of up to all visual tokens and 64 others (640 for LLaVA-1.5) keep as many visual tokens as
fit by random sampling; longer ones have more text.  Other methods are timed beside it where both
leave the same number.  Runtimes: ``eager`` is transformers' code; ``compiled`` and
``cuda-graph`` the fused code, whose passes are compiled for each shape and in the latter
captured.  Compiling takes up to a minute for each pass and shape, so that these two have at most
9 shapes of each model by default, 7 of one request and 2 of several; a CPU has 2, and none in
quick mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Value
from ..harness.inputs import Inputs
from ..harness.order import coarse_first
from ..models.shapes import ModelShape
from ._compressors import compressor
from ._config import config_json
from ._held import Held, Parts, model_bytes, parts_of
from ._requests import Request, fitting_models, requests_of

__all__ = ["SUITE"]

_HOST_WAITS = ("ttft", "tpot")


def _cases(options: Options) -> list[Case]:
    held = Held()
    made: list[Case] = []
    for dtype in options.dtypes:
        for shape in fitting_models(options, dtype):
            asked = requests_of(shape, options)
            # One model lies in memory at a time, so its cases stay together.
            for code in dict.fromkeys(request.code for request in asked):
                own = [_case(r, shape, dtype, held) for r in asked if r.code == code]
                made += coarse_first(own)
    return made


def _case(request: Request, shape: ModelShape, dtype: str, held: Held) -> Case:
    key: dict[str, Value] = {
        "dtype": dtype,
        "model": shape.name,
        "config": config_json(shape),
        "runtime": request.runtime,
        # Without a mask in memory, which transformers makes of padded batches only.
        "attention": "flash",
        "compress": request.compress,
        "stage": request.stage,
        "batch": request.batch,
        "visual_tokens": shape.visual_tokens,
        "text_tokens": request.text,
        "output_tokens": 0,
    }
    prepare = partial(_prepare, request=request, shape=shape, held=held)
    return Case("prefill", "whole_model", key, prepare, {"prompt_tokens": request.prompt})


def _prepare(inputs: Inputs, request: Request, shape: ModelShape, held: Held) -> Runnable:
    which = (shape, request.code, inputs.device, inputs.dtype)
    parts = held.get(which, lambda: parts_of(*which))
    others = _allocated_bytes(inputs.device) - model_bytes(parts.model)
    run = _stage(parts, inputs, request, shape)
    columns: dict[str, Value] = {}
    run()
    if request.stage == "ttft" and inputs.device.startswith("cuda"):
        columns["memory_bytes"] = _peak_bytes(run) - others
    if request.runtime == "cuda-graph":
        from ..models.runtimes import wrap

        run = wrap(run, "cuda-graph", compile_first=False)
    return Runnable(
        lambda i: run(),
        sets=1,
        set_bytes=model_bytes(parts.model),
        timer="wall" if request.stage in _HOST_WAITS else "device",
        graph=False,
        queue=1,
        columns=columns,
    )


def _stage(parts: Parts, inputs: Inputs, request: Request, shape: ModelShape) -> Any:
    """Return a call without arguments, so that a graph of it copies no inputs."""
    import torch

    batch, vision = request.batch, shape.vision
    normal = partial(torch.randn, device=inputs.device, dtype=inputs.torch_dtype)
    ids = inputs.below(shape.decoder.vocab, batch, request.text)
    pixels = None if vision is None else normal(batch, 3, vision.image_size, vision.image_size)
    project: Any = parts.model.projector
    compress: Any = None
    if request.compress:
        replaces, compress = compressor(request.compress, shape, inputs.device, inputs.dtype)
        project = None if replaces else project

    def encode() -> tuple[Any, Any]:
        if pixels is None:
            return None, None
        features, pooled = parts.encode(pixels)
        return features if project is None else project(features), pooled

    if request.stage == "vision":
        return encode
    cache = parts.model.new_cache(batch, request.prompt + 1)

    def first_token() -> tuple[Any, Any]:
        tokens, pooled = encode()
        return parts.prompt(tokens if compress is None else compress(tokens), ids, cache), pooled

    if request.stage == "ttft":
        return first_token
    ready = normal(batch, request.kept, shape.decoder.width) if request.kept else None
    if request.stage == "llm":
        return lambda: parts.prompt(ready, ids, cache)
    parts.prompt(ready, ids, cache)
    return lambda: parts.decode(ids[:, -1:], cache)


def _allocated_bytes(device: str) -> int:
    """Return what is in the memory of a GPU now [B]."""
    import gc

    import torch

    gc.collect()
    return int(torch.cuda.memory_allocated()) if device.startswith("cuda") else 0


def _peak_bytes(run: Callable[[], Any]) -> int:
    """Return the peak of another call, which compiles nothing any more [B]."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated())


SUITE = Suite("prefill", "Whole models: first token, its stages, next token.", _cases, ordered=True)
