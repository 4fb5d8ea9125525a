"""One decoder layer and one vision layer, with what lies around them in a model of one layer.

Rows are of kind ``whole_model``, of a model whose config.json says one layer, so that a reader
can predict them:

``llm_prefill``
    Embedding, one decoder layer that fills a KV cache, final norm; no head.  `text_tokens` in
    each of `batch` sequences.
``vision_encoder``
    Patch embedding, class token, positions, first norm, one layer, last norm on the class token;
    no projector.  The image is as large as `visual_tokens` patches need.

Runtime ``eager`` is transformers' code and ``compiled`` the fused code compiled for each shape.
Times are of the device: short calls of ``compiled`` are captured, while those of ``eager`` hold
the gaps between kernels where the host is slower.  Several models take turns, so that weights do
not stay in the cache.  Fused code that is not compiled is no runtime of a reader's: left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Value
from ..harness.inputs import Inputs
from ..models.shapes import DecoderShape, ModelShape, load_shape
from ._config import config_json
from ._held import Held, model_bytes
from ._requests import compiles
from ._shapes import models_of

__all__ = ["SUITE"]

_GPU = (16, 64, 128, 256, 640, 1024, 2048, 4096)
_GPU_SIDES = (8, 12, 16, 24, 32, 48)
_MOST_SETS = 16


@dataclass(frozen=True)
class Block:
    """A layer of a model and its inputs.

    Attributes
    ----------
    shape : ModelShape
        A model of that layer alone.
    runtime : {"eager", "compiled"}
        Whose code.
    batch, tokens : int
        Sequences and tokens of each; patches of each image for a vision layer.
    """

    shape: ModelShape
    runtime: str
    batch: int
    tokens: int

    @property
    def is_vision(self) -> bool:
        """Whether it is a layer of the vision tower."""
        return self.shape.vision is not None


def decoder_layer(shape: ModelShape) -> ModelShape:
    """Return a language model of one layer."""
    return ModelShape(f"{shape.name}@decoder-layer", replace(shape.decoder, layers=1))


def vision_layer(shape: ModelShape, side: int) -> ModelShape:
    """Return a model with one vision layer and images of `side` by `side` patches.

    Its language model is as small as can be: it never runs.

    Raises
    ------
    ValueError
        If there is no vision tower.
    """
    if shape.vision is None:
        raise ValueError(f"{shape.name}: has no vision tower")
    size = side * shape.vision.patch_size
    vision = replace(shape.vision, layers=1, image_size=size)
    return ModelShape(f"{shape.name}@vision-layer", _SMALL, vision, (_SMALL.width,) * 2)


_SMALL: DecoderShape = replace(load_shape("llava-tiny").decoder, layers=1, vocab=32)


def _blocks(options: Options) -> Iterator[Block]:
    tokens, sides = _sizes(options)
    for shape in models_of(options):
        for runtime in _runtimes(options):
            for batch in (1, 2) if options.quick else (1, 4):
                for count in tokens:
                    yield Block(decoder_layer(shape), runtime, batch, count)
                for side in sides if shape.vision is not None else ():
                    yield Block(vision_layer(shape, side), runtime, batch, side**2)


def _sizes(options: Options) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return tokens of the decoder layer, and sides of the images of the vision layer."""
    if options.tokens:
        sides = {math.isqrt(count) for count in options.tokens if math.isqrt(count) ** 2 == count}
        return tuple(sorted(set(options.tokens))), tuple(sorted(sides))
    if options.quick:
        return (16, 64), (4, 8)
    return (_GPU, _GPU_SIDES) if options.device == "cuda" else (_GPU[1:5], _GPU_SIDES[:4])


def _runtimes(options: Options) -> tuple[str, ...]:
    compiled = options.device == "cuda" or (not options.quick and compiles())
    return ("eager", "compiled") if compiled else ("eager",)


def _cases(options: Options) -> list[Case]:
    held = Held()
    made = [(dtype, block) for dtype in options.dtypes for block in _blocks(options)]
    # Those of the same weights and code stay together.
    made.sort(key=lambda one: (one[0], one[1].shape.name, one[1].runtime, one[1].tokens))
    return [_case(block, dtype, held) for dtype, block in made]


def _case(block: Block, dtype: str, held: Held) -> Case:
    key: dict[str, Value] = {
        "dtype": dtype,
        "model": block.shape.name,
        "config": config_json(block.shape),
        "runtime": block.runtime,
        "attention": "flash",
        "compress": "",
        "stage": "vision_encoder" if block.is_vision else "llm_prefill",
        "batch": block.batch,
        "visual_tokens": block.tokens if block.is_vision else 0,
        "text_tokens": 1 if block.is_vision else block.tokens,
        "output_tokens": 0,
    }
    return Case("blocks", "whole_model", key, partial(_prepare, block=block, held=held))


def _prepare(inputs: Inputs, block: Block, held: Held) -> Runnable:
    import torch

    which = (block.shape, block.runtime, inputs.device, inputs.dtype)
    models, call = held.get(which, lambda: _models(block, inputs))
    if block.is_vision:
        size = block.shape.vision.image_size if block.shape.vision is not None else 0
        shape = (block.batch, 3, size, size)
        given: Any = torch.randn(shape, device=inputs.device, dtype=inputs.torch_dtype)
    else:
        given = inputs.below(block.shape.decoder.vocab, block.batch, block.tokens)
    caches = [model.new_cache(block.batch, block.tokens) for model in models]
    call(models[0], given, caches[0])
    count = len(models)
    return Runnable(
        lambda i: call(models[i % count], given, caches[i % count]),
        sets=count,
        set_bytes=_layer_bytes(models[0], block),
        graph=block.runtime == "compiled",
        queue=20,
    )


def _models(block: Block, inputs: Inputs) -> tuple[list[Any], Callable[..., Any]]:
    """Return models whose layers are more than the cache holds, and what runs one of them."""
    from ..models.runtimes import build, wrap

    runtime: Any = block.runtime
    where = {"device": inputs.device, "dtype": inputs.dtype}

    def make(seed: int) -> Any:
        return build(block.shape, runtime, seed=seed, **where)

    first = make(0)
    count = min(_MOST_SETS, inputs.sets_for(_layer_bytes(first, block)))
    run = _vision if block.is_vision else _eager if block.runtime == "eager" else _fused
    call = wrap(run, runtime)
    return [first, *(make(seed) for seed in range(1, count))], call


def _layer_bytes(model: Any, block: Block) -> int:
    """Return what a pass reads of the weights [B]: of the embedding only few rows."""
    return model_bytes(model.vision if block.is_vision else model.decoder.layers)


def _vision(model: Any, pixels: Any, cache: Any) -> Any:
    return model.encode(pixels)


def _fused(model: Any, ids: Any, cache: Any) -> Any:
    decoder = model.decoder
    return decoder.norm(decoder.prefill(decoder.embed(ids), cache))


def _eager(model: Any, ids: Any, cache: Any) -> Any:
    import transformers

    cache = transformers.DynamicCache()
    return model.decoder(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state


SUITE = Suite("blocks", "One decoder layer, one vision layer.", _cases, ordered=True)
