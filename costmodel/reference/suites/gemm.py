"""Matrix products of a model's linear layers over token counts.

``y[m,n] = x[m,k] w[k,n]`` as a linear layer has it, the weight stored as (n, k).  Layers appear
as serving code has them, with queries, keys and values as one product and gate and up as one,
and as Hugging Face's code has them, one by one; shapes that occur twice are measured once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..harness.case import Case, Options, Runnable, Suite, Value, rotating
from ..harness.inputs import Inputs
from ..models.shapes import DecoderShape, ModelShape, VisionShape
from ._shapes import models_of, tokens_of

__all__ = ["SUITE", "layers_of"]

Layer = tuple[str, int, int]
"""Name, outputs n and inputs k of a linear layer."""


def layers_of(shape: ModelShape) -> list[Layer]:
    """Return the linear layers of a model, fused and not, each product once.

    Parameters
    ----------
    shape : ModelShape
        The model.

    Returns
    -------
    list of (str, int, int)
        Name, outputs n and inputs k.

    Examples
    --------
    >>> from ..models.shapes import load_shape
    >>> layers_of(load_shape("llama-3-8b"))[:3]
    [('qkv_proj', 6144, 4096), ('o_proj', 4096, 4096), ('gate_up_proj', 28672, 4096)]
    """
    found = list(_decoder(shape.decoder))
    if shape.vision is not None:
        found += [*_vision(shape.vision), *_projector(shape)]
    once: dict[tuple[int, int], Layer] = {}
    for name, n, k in found:
        once.setdefault((n, k), (name, n, k))
    return list(once.values())


def _decoder(shape: DecoderShape) -> Iterator[Layer]:
    d = shape.width
    yield "qkv_proj", shape.q_width + 2 * shape.kv_width, d
    yield "o_proj", d, shape.q_width
    yield "gate_up_proj", 2 * shape.mlp_width, d
    yield "down_proj", d, shape.mlp_width
    yield "lm_head", shape.vocab, d
    yield "q_proj", shape.q_width, d
    yield "k_proj", shape.kv_width, d
    yield "gate_proj", shape.mlp_width, d


def _vision(shape: VisionShape) -> Iterator[Layer]:
    d = shape.width
    yield "vision_qkv_proj", 3 * d, d
    yield "vision_o_proj", d, d
    yield "vision_fc1", shape.mlp_width, d
    yield "vision_fc2", d, shape.mlp_width
    yield "vision_patch_embed", d, 3 * shape.patch_size**2


def _projector(shape: ModelShape) -> Iterator[Layer]:
    inputs = shape.vision.width if shape.vision is not None else 0
    for index, outputs in enumerate(shape.projector, start=1):
        yield f"projector_{index}", outputs, inputs
        inputs = outputs


def _cases(options: Options) -> list[Case]:
    made = [
        _case(shape, layer, dtype, m)
        for dtype in options.dtypes
        for shape in models_of(options)
        for layer in layers_of(shape)
        for m in tokens_of(options)
    ]
    # The key names the layer, so that two models would measure what they share twice.
    once = {(c.dtype, c.key["m"], c.key["n"], c.key["k"]): c for c in reversed(made)}
    return sorted(once.values(), key=lambda c: int(c.key["m"]) * int(c.key["n"]) * int(c.key["k"]))


def _case(shape: ModelShape, layer: Layer, dtype: str, m: int) -> Case:
    name, n, k = layer
    key: dict[str, Value] = {
        "dtype": dtype,
        "op": name,
        "model": shape.name,
        "m": m,
        "n": n,
        "k": k,
    }
    return Case("gemm", "gemm", key, partial(_prepare, m=m, n=n, k=k))


def _prepare(inputs: Inputs, m: int, n: int, k: int) -> Runnable:
    import torch

    return rotating(
        inputs,
        lambda some: (some.normal(m, k), some.normal(n, k).t(), some.scratch(m, n)),
        lambda x, w, y: torch.mm(x, w, out=y),
    )


SUITE = Suite("gemm", "Matrix products of a model's layers over token counts.", _cases)
