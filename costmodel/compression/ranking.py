"""Operators of methods that rank visual tokens inside the language model and drop some.

Kernel counts are those of plain torch code, as counted on the runnable methods.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Integer

from costmodel.blocks import LayerTokens, Style, decoder_layers
from costmodel.compression.method import Context
from costmodel.ops import ONE, ZERO, Op, Stage, copy, elementwise, matmul, norm
from costmodel.symbols import sym

__all__ = [
    "attention_row",
    "extra_layer",
    "map_bytes",
    "mean_over_heads",
    "projections",
    "take",
    "uncaptured",
]

_FP32_BYTES = Integer(4)
_INDEX_BYTES = Integer(8)
_STAGE: Stage = "compression"


def _style(context: Context) -> Style:
    run = context.deployment
    return Style(run.fused, run.attention, run.tp)


def _heads(context: Context) -> Expr:
    return sym("H") / _style(context).devices


def map_bytes(context: Context, tokens: Expr) -> Expr:
    r"""Bytes of the attention map of a layer: :math:`b H s^2 \beta_a` [B]."""
    return sym("b") * _heads(context) * tokens**2 * sym("ba")


def extra_layer(label: str, context: Context, tokens: Expr) -> list[Op]:
    """Return a whole decoder layer with its attention map in memory, run once more.

    Parameters
    ----------
    label : str
        Prefix of operator names.
    context : Context
        Model and deployment.
    tokens : Expr
        Tokens of a sequence.

    Returns
    -------
    list of Op
        Counted as the method's own.
    """
    style = replace(_style(context), attention="eager")
    layer = LayerTokens("", ONE, tokens, tokens, tokens, tokens, ZERO)
    ops = decoder_layers(context.model.text, layer, style)
    return [
        replace(op, name=op.name.replace("decoder", f"{label}.layer", 1), stage=_STAGE)
        for op in ops
    ]


def projections(
    label: str, context: Context, tokens: Expr, *, of: tuple[str, ...] | None = None
) -> list[Op]:
    """Return input norm, queries, keys and values of a layer with rotary positions, again.

    Parameters
    ----------
    label, context, tokens
        As in `extra_layer`.
    of : tuple of str, optional
        Only these of the projections, as separate products.

    Returns
    -------
    list of Op
        No output of the layer is computed.
    """
    style, spec = _style(context), context.model.text
    if of is not None:
        style = replace(style, fused=False)
    layer = LayerTokens("", ONE, tokens, tokens, tokens, tokens, ZERO)
    wanted = of or ("qkv_proj", "q_proj", "k_proj", "v_proj")
    ops = [
        norm(f"{label}.input_norm", _STAGE, rows=sym("b") * tokens, cols=sym("d"), kind=spec.norm,
             fused=context.deployment.fused),
    ]  # fmt: skip
    for op in decoder_layers(spec, layer, style):
        part = op.name.partition(".")[2]
        if part in (*wanted, "qk_norm", "rotary"):
            ops.append(replace(op, name=f"{label}.{part}", stage=_STAGE))
    return ops


def attention_row(
    label: str,
    context: Context,
    tokens: Expr,
    *,
    batch: Expr | None = None,
    repeat: Expr = ONE,
    queries: Expr = ONE,
) -> list[Op]:
    r"""Return the attention weights of the last `queries` tokens to all, mean over the heads.

    .. math:: F = 2 b H q s D

    Parameters
    ----------
    label, context, tokens
        As in `extra_layer`.
    batch : Expr, optional
        Sequences computed together (default: all of the batch).
    repeat : Expr
        Times this is done.
    queries : Expr
        Tokens that ask.

    Returns
    -------
    list of Op
        Product, scale, softmax and mean; where several query heads share a key head, keys
        are first copied to each.
    """
    b = sym("b") if batch is None else batch
    heads, D, ba = _heads(context), sym("D"), sym("ba")
    spec = context.model.text
    ops = []
    if spec.kv_heads < spec.heads:
        ops.append(
            copy(f"{label}.repeat_keys", _STAGE, rows=b * tokens, cols=heads * D, repeat=repeat,
                 note="keys copied to every query head")
        )  # fmt: skip
    ops += [
        matmul(
            f"{label}.scores", _STAGE, batch=b * heads, m=queries, n=tokens, k=D,
            a_bytes=b * heads * queries * D * ba, b_bytes=b * tokens * heads * D * ba,
            repeat=repeat,
        ),
        elementwise(
            f"{label}.softmax", _STAGE, rows=b * heads * queries, cols=tokens, read=2 * ba,
            write=2 * ba, flops_per_element=Integer(6), launches=Integer(2), repeat=repeat,
            live=2 * ba + _FP32_BYTES, primitive="softmax", note="scale and softmax",
        ),
        mean_over_heads(label, context, tokens, batch=b, repeat=repeat, queries=queries),
    ]  # fmt: skip
    return ops


def mean_over_heads(
    label: str,
    context: Context,
    tokens: Expr,
    *,
    queries: Expr,
    batch: Expr | None = None,
    repeat: Expr = ONE,
) -> Op:
    """Return the mean over heads of attention weights of shape (batch, H, queries, tokens)."""
    b = sym("b") if batch is None else batch
    heads, ba = _heads(context), sym("ba")
    return elementwise(
        f"{label}.mean", _STAGE, rows=b * heads * queries, cols=tokens, read=ba, write=ba / heads,
        flops_per_element=ONE, repeat=repeat, primitive="reduction",
        note="mean of the weights over the heads",
    )  # fmt: skip


def take(
    label: str,
    *,
    ranked: Expr,
    left: Expr,
    positions: bool,
    kernels: int = 5,
) -> list[Op]:
    """Return top-k, columns in order, the gather of hidden states, and positions anew.

    Parameters
    ----------
    label : str
        Prefix of operator names.
    ranked : Expr
        Visual tokens of a sequence that are ranked.
    left : Expr
        Tokens of a sequence that stay, text included.
    positions : bool
        Whether cosines and sines are computed again, as tokens keep the positions they had.
    kernels : int
        Kernels that make the columns out of scores.

    Returns
    -------
    list of Op
    """
    b, d = sym("b"), sym("d")
    ops = [
        elementwise(
            f"{label}.select", _STAGE, rows=b * ranked, cols=ONE, read=_FP32_BYTES + _INDEX_BYTES,
            write=_FP32_BYTES + _INDEX_BYTES, flops_per_element=ONE, launches=Integer(kernels),
            primitive="reduction", note="top-k, sort, columns of the rest of the prompt",
        ),
        copy(f"{label}.gather", _STAGE, rows=b * left, cols=d, gather=True,
             note="hidden states of the tokens that stay"),
    ]  # fmt: skip
    if positions:
        ops.append(
            elementwise(
                f"{label}.positions", _STAGE, rows=b * left, cols=sym("D"),
                read=4 * _FP32_BYTES, write=4 * _FP32_BYTES, flops_per_element=Integer(4),
                launches=Integer(9), note="cosines and sines at the old positions",
            )
        )  # fmt: skip
    return ops


def uncaptured(ops: list[Op]) -> list[Op]:
    """Return operators that no CUDA graph can hold."""
    return [replace(op, graph_safe=False) for op in ops]
