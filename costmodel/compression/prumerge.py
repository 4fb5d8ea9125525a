"""What PruMerge and PruMerge+ share: class attention again, outliers, neighbours merged."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.counts import AtParams
from costmodel.compression.tower import TowerSequence
from costmodel.ops import ONE, ZERO, Op, Traffic, copy, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["NEIGHBOURS", "PruMergeParams", "class_attention", "loop_merge", "product_merge"]

NEIGHBOURS = 32
"""Fixed in the released code."""

_FP32_BYTES, _INDEX_BYTES = Integer(4), Integer(8)


class PruMergeParams(AtParams):
    """How many tokens remain on average, and how it is computed.

    Attributes
    ----------
    kept : int, optional
        Mean number of tokens that remain of each tower sequence, the one that sums up
        the dropped ones included; by default the share that the paper reports.
    spread : float
        Standard deviation as a share of the mean; the paper gives none.
    impl : {"released", "fused"}
        A Python loop over tokens, or the same by products over all tokens.
    """

    kept: Annotated[int, Field(gt=1)] | None = Field(
        default=None, description="mean tokens of each tower sequence that remain"
    )
    spread: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.3, description="standard deviation over images as a share of the mean (assumed)"
    )
    impl: Literal["released", "fused"] = Field(
        default="released", description="the released loop over tokens, or products over all"
    )


def class_attention(item: TowerSequence, casts: bool, fused: bool) -> list[Op]:
    r"""Attention of a layer again over all channels as one head, and its outliers.

    .. math:: F = 2 B n^2 d_v \quad\text{or, of the class token alone, } 2 B n d_v

    Parameters
    ----------
    item : TowerSequence
        The sequences.
    casts : bool
        Whether attention is of another format than fp32, which quartiles are found in.
    fused : bool
        Whether only the class token's row is computed, and quartiles on the device.
    """
    ba, batch, width = sym("ba"), item.batch, sym("dv")
    queries = ONE if fused else item.length
    cast = ONE if casts else ZERO
    ops = [
        matmul(
            f"{item.label}.scores", "compression", batch=batch, m=queries, n=item.length, k=width,
            a_bytes=batch * queries * width * ba, b_bytes=batch * item.length * width * ba,
        ),
        elementwise(
            f"{item.label}.softmax", "compression", rows=batch * queries, cols=item.length,
            read=2 * ba, write=2 * ba, flops_per_element=Integer(5), launches=Integer(2),
            live=2 * ba, primitive="softmax", note="scale and softmax",
        ),
    ]  # fmt: skip
    values = batch * item.patches
    if fused:
        return [
            *ops,
            replace(
                elementwise(
                    f"{item.label}.quartiles", "compression", rows=values, cols=ONE,
                    read=ba + 2 * _FP32_BYTES, write=2 * _FP32_BYTES,
                    flops_per_element=Integer(2), launches=7 + cast, primitive="reduction",
                    note="sort, quartiles, and the number of outliers, which the host reads",
                ),
                host_syncs=ONE, graph_safe=False,
            ),
        ]  # fmt: skip
    size = values * _FP32_BYTES
    return [
        *ops,
        Op(
            name=f"{item.label}.quartiles", stage="compression", kind="host",
            shape=(("link_bytes", size),), flops=8 * values, traffic=Traffic(act_in=size),
            launches=1 + cast, host_syncs=ONE, live=size, graph_safe=False,
            note="attention copied to the host, quartiles and outliers by numpy",
        ),
    ]  # fmt: skip


def _selected(item: TowerSequence) -> Op:
    return elementwise(
        f"{item.label}.select", "compression", rows=item.batch, cols=item.patches,
        read=sym("ba") + 2 * _INDEX_BYTES, write=3 * _INDEX_BYTES, flops_per_element=ONE,
        launches=Integer(4), primitive="reduction",
        note="top-k, and the complement by scatter and sort",
    )  # fmt: skip


def loop_merge(item: TowerSequence, stay: Expr) -> list[Op]:
    r"""Add to each of k tokens its nearest others, one token after the other, as released.

    .. math:: F = 2 B k (g - 1) d_v

    Eleven kernels per token and 20 per batch beside the attention, as counted on the
    runnable implementation.

    Parameters
    ----------
    item : TowerSequence
        The sequences.
    stay : Expr
        Tokens that stay (k), without the sum of those that go.
    """
    ba, batch, width, patches = sym("ba"), item.batch, sym("dv"), item.patches
    apart = batch * patches * 2 * width * ba
    near, others, loops = sym("nb"), patches - 1, batch * stay
    ops = [
        _selected(item),
        copy(
            f"{item.label}.apart", "compression", rows=batch * patches, cols=2 * width,
            launches=Integer(6), gather=True, note="tokens and keys, stayed and dropped apart",
        ),
        elementwise(
            f"{item.label}.normalise", "compression", rows=batch * patches, cols=width,
            read=2 * ba, write=ba, flops_per_element=Integer(3), launches=Integer(6), held=apart,
            primitive="reduction", note="norm, clamp and division, stayed and dropped apart",
        ),
        copy(
            f"{item.label}.others", "compression", rows=others, cols=2 * width + 1,
            launches=Integer(3), repeat=loops, held=apart,
            note="all other tokens, keys and weights joined again for each token",
        ),
        matmul(
            f"{item.label}.near", "compression", batch=ONE, m=ONE, n=others, k=width,
            a_bytes=width * ba, b_bytes=others * width * ba, repeat=loops,
            held=apart + others * width * ba,
        ),
        elementwise(
            f"{item.label}.near_sum", "compression", rows=near, cols=width, read=3 * ba,
            write=2 * ba, flops_per_element=Integer(2), launches=Integer(7), repeat=loops,
            live=2 * ba, held=apart, primitive="gather",
            note="top-k, gathers, weighted sum, added to the token, written",
        ),
        _rest(item, stay, Integer(4), apart),
    ]  # fmt: skip
    return [replace(op, graph_safe=False) for op in ops]


def _rest(item: TowerSequence, stay: Expr, launches: Expr, held: Expr) -> Op:
    ba = sym("ba")
    return elementwise(
        f"{item.label}.rest", "compression", rows=item.batch * item.patches, cols=sym("dv"),
        read=2 * ba, write=ba * (1 + stay / item.patches), flops_per_element=Integer(2),
        launches=launches, live=2 * ba, held=held, primitive="reduction",
        note="weighted sum of the dropped tokens, appended",
    )  # fmt: skip


def product_merge(item: TowerSequence, stay: Expr) -> list[Op]:
    r"""Do the same by products over all tokens at once, 16 kernels.

    .. math:: F = 2 B d_v (2 k g + g)
    """
    ba, batch, width, patches = sym("ba"), item.batch, sym("dv"), item.patches
    keys, scores = batch * patches * width * ba, batch * stay * patches * ba
    rows = batch * stay * width * ba

    def product(part: str, m: Expr, n: Expr, k: Expr, a_bytes: Expr) -> Op:
        return matmul(
            f"{item.label}.{part}",
            "compression",
            batch=batch,
            m=m,
            n=n,
            k=k,
            a_bytes=a_bytes,
            b_bytes=keys,
            held=keys,
        )

    return [
        elementwise(
            f"{item.label}.normalise", "compression", rows=batch * patches, cols=width,
            read=2 * ba, write=ba, flops_per_element=Integer(3), launches=Integer(3),
            primitive="reduction", note="norm, clamp and division",
        ),
        copy(
            f"{item.label}.chosen", "compression", rows=batch * stay, cols=2 * width,
            launches=Integer(3), gather=True, note="top-k, and tokens and keys that stay",
        ),
        product("near", stay, patches, width, rows),
        elementwise(
            f"{item.label}.weights", "compression", rows=batch * stay, cols=patches,
            read=2 * ba, write=2 * ba, flops_per_element=ONE, launches=Integer(5), live=2 * ba,
            held=keys, primitive="reduction",
            note="exclude itself, top-k, zeros, gather and scatter of the weights",
        ),
        product("near_sum", stay, width, patches, scores + rows),
        elementwise(
            f"{item.label}.dropped", "compression", rows=batch * patches, cols=ONE, read=ba,
            write=ba, flops_per_element=ZERO, note="weights of those that stay set to zero",
        ),
        product("rest", ONE, width, patches, batch * patches * ba),
        copy(f"{item.label}.append", "compression", rows=batch * (stay + 1), cols=width),
    ]  # fmt: skip
