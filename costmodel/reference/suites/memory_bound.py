"""Operators that move more than they compute: norms, activations, rotary, copies, selection.

Rows are tokens.  What torch has as one kernel is timed as that; the gated activation and the
rotary embedding are what eager code runs, several kernels, which the column ``implementation``
says.  ``rows`` and ``cols`` are those of the output, or of the input of a reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..harness.case import Case, Options, Runnable, Suite, Value, rotating
from ..harness.inputs import Inputs
from ..harness.order import coarse_first
from ..models.shapes import ModelShape
from ._shapes import models_of, tokens_of

__all__ = ["OPS", "SUITE", "Op"]

_EPSILON = 1e-6
_SHORTEST = 8
"""Columns of the shortest rows that are reduced or selected from."""


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes
    ----------
    make : callable
        Makes one input set of ``rows`` and ``cols``.
    call : callable
        Runs on it.
    implementation : str
        What runs.
    """

    make: Callable[[Inputs, int, int], tuple[Any, ...]]
    call: Callable[..., Any]
    implementation: str


def _one(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    return (inputs.normal(rows, cols),)


def _weighted(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    return inputs.normal(rows, cols), inputs.normal(cols)


def _two_and_out(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    return inputs.normal(rows, cols), inputs.normal(rows, cols), inputs.scratch(rows, cols)


def _pair(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    return inputs.normal(rows, cols), inputs.normal(rows, cols)


def _in_and_out(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    return inputs.normal(rows, cols), inputs.scratch(rows, cols)


def _selection(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    """Half of the tokens are kept."""
    chosen = inputs.below(2 * rows, rows)
    return inputs.normal(2 * rows, cols), chosen, inputs.scratch(rows, cols)


def _groups(inputs: Inputs, rows: int, cols: int) -> tuple[Any, ...]:
    """Tokens are added up in an eighth as many groups."""
    groups = max(1, rows // 8)
    return inputs.scratch(groups, cols), inputs.below(groups, rows), inputs.normal(rows, cols)


def _rms_norm(x: Any, weight: Any) -> Any:
    import torch

    return torch.nn.functional.rms_norm(x, weight.shape, weight, _EPSILON)


def _layer_norm(x: Any, weight: Any) -> Any:
    import torch

    return torch.nn.functional.layer_norm(x, weight.shape, weight, weight, _EPSILON)


def _silu_mul(gate: Any, up: Any) -> Any:
    import torch

    return torch.nn.functional.silu(gate) * up


def _gelu(x: Any) -> Any:
    import torch

    return torch.nn.functional.gelu(x)


def _rotary(x: Any, cos: Any, sin: Any) -> Any:
    import torch

    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def _add(x: Any, y: Any, out: Any) -> Any:
    import torch

    return torch.add(x, y, out=out)


def _gather(x: Any, chosen: Any, out: Any) -> Any:
    import torch

    return torch.index_select(x, 0, chosen, out=out)


OPS: dict[str, Op] = {
    "rmsnorm": Op(_weighted, _rms_norm, "torch rms_norm"),
    "layernorm": Op(_weighted, _layer_norm, "torch layer_norm"),
    "silu_mul": Op(_pair, _silu_mul, "torch silu, mul"),
    "gelu": Op(_one, _gelu, "torch gelu"),
    "add": Op(_two_and_out, _add, "torch add"),
    "copy": Op(_in_and_out, lambda x, out: out.copy_(x), "torch copy_"),
    "gather": Op(_selection, _gather, "torch index_select"),
    "softmax": Op(_one, lambda x: x.softmax(-1), "torch softmax"),
    "topk": Op(_one, lambda x: x.topk(max(1, x.shape[-1] // 4)), "torch topk, a quarter"),
    "argmin": Op(_one, lambda x: x.argmin(-1), "torch argmin"),
    "sum": Op(_one, lambda x: x.sum(-1), "torch sum"),
    "scatter_add": Op(_groups, lambda out, to, x: out.index_add_(0, to, x), "torch index_add_"),
}
"""Operators but the rotary embedding, whose columns are heads."""


def _sizes(model: ModelShape, options: Options) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of the operators of a model."""
    decoder, vision = model.decoder, model.vision
    widths = [decoder.width, *([vision.width] if vision is not None else [])]
    inner = [decoder.mlp_width, *([vision.mlp_width] if vision is not None else [])]
    for tokens in tokens_of(options):
        for width in widths:
            for name in ("rmsnorm", "layernorm", "add", "copy", "gather", "scatter_add"):
                yield name, tokens, width
        for width in inner:
            yield "silu_mul", tokens, width
            yield "gelu", tokens, width
        yield "softmax", decoder.heads * tokens, tokens
        for name in ("argmin", "sum", "topk"):
            yield name, tokens, max(_SHORTEST, tokens // 8)
    # Rows and bytes cannot be told apart at one width, nor by the few that a model has, nor where
    # rows get longer as they get more.
    for tokens in _spread(tokens_of(options), 3):
        for length in _spread(tokens_of(options), 5):
            for name in ("softmax", "argmin", "sum", "topk"):
                yield name, tokens, max(_SHORTEST, length)
        # Rows shorter than a vector, which a processor computes element by element.
        for length in (4, 12):
            yield "softmax", tokens, length
        for quarters in (1, 2, 6, 8, 16):
            width = decoder.width * quarters // 4
            for name in ("rmsnorm", "layernorm", "add", "copy", "gather", "scatter_add"):
                yield name, tokens, width
            yield "silu_mul", tokens, width
            yield "gelu", tokens, width
    # Bandwidth shows only beyond every cache.
    for tokens in (4096,) if options.quick else (16384, 65536):
        yield "copy", tokens, decoder.width
        yield "add", tokens, decoder.width


def _spread(tokens: Sequence[int], count: int) -> list[int]:
    """Return so many of the token counts, from the smallest to the largest.

    Examples
    --------
    >>> _spread([1, 16, 64, 256, 1024], 3), _spread([1, 16], 3)
    ([1, 64, 1024], [1, 16])
    """
    last = len(tokens) - 1
    return sorted({tokens[round(last * part / (count - 1))] for part in range(count)})


def _cases(options: Options) -> list[Case]:
    found: dict[tuple[str, str, int, int], Case] = {}
    for dtype in options.dtypes:
        for model in models_of(options):
            for name, rows, cols in _sizes(model, options):
                prepare = partial(_prepare, op=OPS[name], rows=rows, cols=cols)
                note = OPS[name].implementation
                _keep(found, _case(name, dtype, model, rows, cols, prepare, note))
            for tokens in tokens_of(options):
                decoder = model.decoder
                cols = decoder.q_width + decoder.kv_width
                rotary = partial(_prepare_rotary, rows=tokens, cols=cols, width=decoder.head_dim)
                note = "torch mul, neg, cat, mul, add"
                _keep(found, _case("rotary", dtype, model, tokens, cols, rotary, note))
    return _shape_by_shape(list(found.values()))


def _shape_by_shape(cases: Sequence[Case]) -> list[Case]:
    """Return cases so that those of one shape follow each other and any beginning covers all sizes.

    A run that ends early then has times of all operators of a kind at the shapes it has, instead
    of one operator's at some and another's at others.
    """
    together: dict[tuple[int, int], list[Case]] = {}
    for case in cases:
        together.setdefault((int(case.key["rows"]), int(case.key["cols"])), []).append(case)
    shapes = sorted(together, key=lambda shape: (shape[0] * shape[1], shape))
    return [case for shape in coarse_first(shapes) for case in together[shape]]


def _keep(found: dict[tuple[str, str, int, int], Case], case: Case) -> None:
    place = (case.dtype, str(case.key["op"]), int(case.key["rows"]), int(case.key["cols"]))
    found.setdefault(place, case)


def _case(
    name: str,
    dtype: str,
    model: ModelShape,
    rows: int,
    cols: int,
    prepare: Callable[[Inputs], Runnable],
    implementation: str,
) -> Case:
    key: dict[str, Value] = {
        "dtype": dtype,
        "op": name,
        "model": model.name,
        "gated": name == "silu_mul",
        "rows": rows,
        "cols": cols,
    }
    return Case(
        "memory_bound", "memory_bound", key, prepare, notes={"implementation": implementation}
    )


def _prepare(inputs: Inputs, op: Op, rows: int, cols: int) -> Runnable:
    return rotating(inputs, lambda some: op.make(some, rows, cols), op.call)


def _prepare_rotary(inputs: Inputs, rows: int, cols: int, width: int) -> Runnable:
    # One table serves all layers, so it does not rotate.
    cos, sin = inputs.normal(rows, 1, width), inputs.normal(rows, 1, width)
    return rotating(
        inputs,
        lambda some: (some.normal(rows, cols // width, width),),
        lambda x: _rotary(x, cos, sin),
    )


SUITE = Suite(
    "memory_bound", "Norms, activations, rotary, add, copy, selection.", _cases, ordered=True
)
