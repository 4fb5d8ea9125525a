"""Attention: causal prefill, encoder, and decode against a KV cache, by implementation.

``sdpa-flash``, ``sdpa-cudnn``, ``sdpa-mem-efficient`` and ``sdpa-math`` are the backends of
torch's ``scaled_dot_product_attention``; ``eager`` is Hugging Face's code with its score matrix.
Queries, keys and values of prefill and encoder lie as (batch, tokens, heads, width) and are
transposed views, as after a projection; the cache of decode lies as (batch, heads, tokens, width).

``sdpa-flash`` is measured on all shapes, the others on half of the lengths: fits take the
implementation with the most rows, which should be the one that serving code uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Value, rotating
from ..harness.inputs import Inputs
from ..models.shapes import ModelShape
from ._shapes import models_of, tokens_of

__all__ = ["SUITE", "Shape", "eager_attention"]

_BACKENDS = {
    "sdpa-flash": "FLASH_ATTENTION",
    "sdpa-cudnn": "CUDNN_ATTENTION",
    "sdpa-mem-efficient": "EFFICIENT_ATTENTION",
    "sdpa-math": "MATH",
}
_KINDS = ("attention_prefill", "attention_encoder", "attention_decode")
_LEAST_LENGTH = 16


@dataclass(frozen=True)
class Shape:
    """One attention problem.

    Attributes
    ----------
    kind : str
        ``attention_prefill``, ``attention_encoder`` or ``attention_decode``.
    batch, q_len, kv_len, heads, kv_heads, head_dim : int
        As in the tidy schema.
    """

    kind: str
    batch: int
    q_len: int
    kv_len: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def causal(self) -> bool:
        """Whether a query sees earlier keys only; the one of decode sees all there are."""
        return self.kind != "attention_encoder"

    @property
    def masked(self) -> bool:
        """Whether a mask hides anything."""
        return self.kind == "attention_prefill"


def eager_attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Return attention as Hugging Face's eager code computes it, scores in memory.

    Parameters
    ----------
    q : torch.Tensor
        (batch, heads, q_len, head_dim).
    k, v : torch.Tensor
        (batch, kv_heads, kv_len, head_dim).
    mask : torch.Tensor or None
        Added to the scores.

    Returns
    -------
    torch.Tensor
        (batch, heads, q_len, head_dim).
    """
    import torch

    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (one.repeat_interleave(groups, dim=1) for one in (k, v))
    scores = torch.matmul(q, k.transpose(2, 3)) * (1.0 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v)


def _cases(options: Options) -> list[Case]:
    shapes = {
        (shape, kernel): model.name
        for model in reversed(models_of(options))
        for shape, kernel in _shapes(model, options)
    }
    made = [
        _case(shape, kernel, dtype, model)
        for (shape, kernel), model in shapes.items()
        for dtype in options.dtypes
        if not (kernel == "sdpa-flash" and dtype == "fp32" and options.device == "cuda")
    ]
    return sorted(made, key=lambda c: (_KINDS.index(c.kind), _work(c)))


def _work(case: Case) -> int:
    return math.prod(int(case.key[name]) for name in ("batch", "heads", "q_len", "kv_len"))


def _shapes(model: ModelShape, options: Options) -> Iterator[tuple[Shape, str]]:
    """Problems of a model and the implementations that they are measured with."""
    lengths = [length for length in tokens_of(options) if length >= _LEAST_LENGTH]
    lengths = lengths or list(tokens_of(options))
    decoder, batches = model.decoder, (1,) if options.quick else (1, 2, 4)
    heads = (decoder.heads, decoder.kv_heads, decoder.head_dim)
    for batch in batches:
        for index, length in enumerate(lengths):
            others = index % 2 == 0 and batch != 2
            prefill = Shape("attention_prefill", batch, length, length, *heads)
            # A cache of one token would be prefill to the readers.
            decode = Shape("attention_decode", batch, 1, max(length, 2), *heads)
            for shape in (prefill, decode):
                yield from ((shape, kernel) for kernel in _kernels(shape, options, others))
    if model.vision is None:
        return
    vision = model.vision
    own = (vision.heads, vision.heads, vision.width // vision.heads)
    for batch in batches:
        for index, length in enumerate(sorted({*lengths, vision.patches + 1})):
            others = index % 2 == 0 and batch != 2
            shape = Shape("attention_encoder", batch, length, length, *own)
            yield from ((shape, kernel) for kernel in _kernels(shape, options, others))


def _kernels(shape: Shape, options: Options, others: bool) -> Iterator[str]:
    yield "sdpa-flash"
    if not others:
        return
    if options.device == "cuda" and not options.quick:
        yield "sdpa-cudnn"
    if options.device == "cuda" and shape.heads == shape.kv_heads:
        # This backend takes no grouped queries, and a CPU has none.
        yield "sdpa-mem-efficient"
    if not options.quick:
        yield "sdpa-math"
    yield "eager"


def _case(shape: Shape, kernel: str, dtype: str, model: str) -> Case:
    key: dict[str, Value] = {
        "dtype": dtype,
        "kernel": kernel,
        "causal": shape.causal,
        "batch": shape.batch,
        "q_len": shape.q_len,
        "kv_len": shape.kv_len,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
    }
    prepare = partial(_prepare, shape=shape, kernel=kernel)
    return Case("attention", shape.kind, key, prepare, notes={"model": model})


def _prepare(inputs: Inputs, shape: Shape, kernel: str) -> Runnable:
    import torch

    def make(some: Inputs) -> tuple[Any, ...]:
        of_queries = (some.normal, shape.q_len, shape.heads)
        of_keys = (some.normal, shape.kv_len, shape.kv_heads)
        return tuple(
            normal(shape.batch, heads, length, shape.head_dim)
            if shape.kind == "attention_decode"
            else normal(shape.batch, length, heads, shape.head_dim).transpose(1, 2)
            for normal, length, heads in (of_queries, of_keys, of_keys)
        )

    if kernel == "eager":
        mask = _mask(inputs, shape.q_len) if shape.masked else None
        return rotating(inputs, make, lambda q, k, v: eager_attention(q, k, v, mask))
    sdpa = partial(
        torch.nn.functional.scaled_dot_product_attention,
        is_causal=shape.masked,
        # Torch before 2.5 knows no such argument.
        **({"enable_gqa": True} if shape.heads != shape.kv_heads else {}),
    )
    return rotating(inputs, make, sdpa, context=partial(_only, kernel))


def _mask(inputs: Inputs, length: int) -> Any:
    import torch

    full = torch.full((length, length), float("-inf"), device=inputs.device)
    return full.triu(1).to(inputs.torch_dtype)


def _only(kernel: str) -> AbstractContextManager[Any]:
    """Return the context in which torch takes one backend or fails."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    made: AbstractContextManager[Any] = sdpa_kernel(getattr(SDPBackend, _BACKENDS[kernel]))
    return made


SUITE = Suite("attention", "Prefill, encoder and decode attention, by implementation.", _cases)
