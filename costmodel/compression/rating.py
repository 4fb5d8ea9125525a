"""Operators of a choice of visual tokens by the text tokens that rate them."""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Integer, Max

from costmodel.compression.dropping import Drops
from costmodel.compression.method import Context
from costmodel.ops import ONE, Op, Stage, Traffic, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["choose", "raters", "weights_beside"]

_STAGE: Stage = "compression"
_FP32_BYTES = Integer(4)
_INDEX_BYTES = Integer(8)


def _questions(system_tokens: int) -> Expr:
    """Text tokens behind the image, of which the raters are some."""
    return Max(sym("T") - system_tokens, 1)


def raters(label: str, found: Drops, system_tokens: int) -> list[Op]:
    r"""Return similarity of all visual and text embeddings, and which text is above average.

    .. math:: F = 2 b V T' d

    Parameters
    ----------
    label : str
        Prefix of operator names.
    found : Drops
        Visual tokens before the first layer.
    system_tokens : int
        Text tokens before the image, which do not rate (T' = T - these).

    Returns
    -------
    list of Op
        The host waits for the number of raters.
    """
    b, d, ba = sym("b"), sym("d"), sym("ba")
    text, visual = _questions(system_tokens), found.visual(0)
    return [
        matmul(f"{label}.similarity", _STAGE, batch=b, m=visual, n=text, k=d,
               a_bytes=b * visual * d * ba, b_bytes=b * text * d * ba),
        replace(
            elementwise(f"{label}.raters", _STAGE, rows=b * visual, cols=text, read=2 * ba,
                        write=ba, flops_per_element=Integer(6), launches=Integer(5),
                        primitive="softmax", note="softmax, two means, above average, indices"),
            host_syncs=ONE,
        ),
    ]  # fmt: skip


def weights_beside(label: str, context: Context, tokens: Expr) -> list[Op]:
    r"""Return the whole attention map of a layer computed beside its attention.

    .. math:: F = 2 b H s^2 D

    The mask is made on the host and copied.

    Parameters
    ----------
    label : str
        Prefix of operator names.
    context : Context
        Model and deployment.
    tokens : Expr
        Tokens of a sequence (s).

    Returns
    -------
    list of Op
    """
    b, D, ba = sym("b"), sym("D"), sym("ba")
    heads = sym("H") / (sym("N") if context.deployment.tp > 1 else ONE)
    operand = b * tokens * heads * D * ba
    size = tokens**2 * ba
    return [
        matmul(f"{label}.scores", _STAGE, batch=b * heads, m=tokens, n=tokens, k=D,
               a_bytes=operand, b_bytes=operand),
        Op(name=f"{label}.mask", stage=_STAGE, kind="host", shape=(("link_bytes", size),),
           flops=Integer(0), traffic=Traffic(act_in=size), live=size, host_syncs=ONE,
           note="mask made on the host, copied over the link"),
        elementwise(f"{label}.softmax", _STAGE, rows=b * heads * tokens, cols=tokens, read=3 * ba,
                    write=3 * ba, flops_per_element=Integer(6), launches=Integer(3),
                    live=2 * ba, primitive="softmax", note="scale, mask, softmax"),
    ]  # fmt: skip


def choose(
    label: str,
    found: Drops,
    index: int,
    heads: Expr,
    system_tokens: int,
    held: Expr,
) -> list[Op]:
    """Return the mean of the attention map, the raters' rows of it, top-k and masks.

    Parameters
    ----------
    label, found, system_tokens
        As in `raters`.
    index : int
        Stage.
    heads : Expr
        Heads averaged.
    held : Expr
        Bytes live beside, the map among them [B].

    Returns
    -------
    list of Op
        The map is averaged for the whole batch, the rest runs request by request.
    """
    b, ba = sym("b"), sym("ba")
    tokens, visual = found.tokens(index), found.symbols[index]
    text = _questions(system_tokens)
    return [
        elementwise(f"{label}.mean", _STAGE, rows=b * heads * tokens, cols=tokens, read=ba,
                    write=ba / heads, flops_per_element=ONE, held=held, primitive="reduction",
                    live=ba / heads, note="mean of the attention map over the heads"),
        elementwise(f"{label}.rate", _STAGE, rows=text, cols=visual, read=2 * ba, write=ba,
                    flops_per_element=ONE, launches=Integer(2), repeat=b, primitive="reduction",
                    note="rows of the raters and their mean"),
        replace(
            elementwise(f"{label}.select", _STAGE, rows=tokens, cols=ONE,
                        read=_FP32_BYTES + _INDEX_BYTES, write=_FP32_BYTES + _INDEX_BYTES,
                        flops_per_element=ONE, launches=Integer(12), repeat=b,
                        primitive="reduction",
                        note="top-k, masks, indices of what stays and of what goes"),
            host_syncs=Integer(4),
        ),
    ]  # fmt: skip
