"""Operators of VisionZip's selection and merge."""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Integer, Max, Min, Rational, Symbol, floor

from costmodel.compression.tower import TowerSequence
from costmodel.ops import ONE, ZERO, Op, copy, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["zip_tokens"]

_INDEX_BYTES = Integer(8)
_SORTS_FROM = Rational(145, 1000)


def zip_tokens(item: TowerSequence, means: Symbol, contextual: bool, fused: bool) -> list[Op]:
    r"""Choose tokens by class attention, merge the rest into means of similar ones.

    .. math:: F = 2 B R C (D_v + d_v), \quad R = n - k

    for C means and B sequences.  Kernels as counted on the runnable implementation: 35 and
    5 waits of the host as released, 25 and none with one sort; 10 and 1, or 6, without
    means.  As released, `torch.isin` looks for C targets among R + C tokens; from
    :math:`10 (R + C)^{0.145}` targets on it sorts both, and the host waits four times more for the
    numbers of distinct values [1]_.

    Parameters
    ----------
    item : TowerSequence
        The sequences; k of each remain, class token included.
    means : Symbol
        Contextual tokens among them (C).
    contextual : bool
        Whether there are any.
    fused : bool
        Whether one sort selects instead of boolean masks.

    References
    ----------
    .. [1] PyTorch, aten/src/ATen/native/TensorCompare.cpp, ``isin_Tensor_Tensor_out``, and
       aten/src/ATen/native/cuda/UniqueCub.cu.
    """
    ba, batch, width, head = sym("ba"), item.batch, sym("dv"), sym("Dv")
    tokens, dominant = item.length, item.kept - means
    ops = [
        elementwise(
            f"{item.label}.choose", "compression", rows=batch * sym("Hv"), cols=item.patches,
            read=ba + 4 * _INDEX_BYTES / sym("Hv"), write=5 * _INDEX_BYTES / sym("Hv"),
            flops_per_element=ONE, launches=Integer(5 if fused else 8),
            primitive="reduction", note="class attention summed over heads, top-k, index or mask",
        ),
        copy(
            f"{item.label}.dominant", "compression", rows=batch * dominant, cols=width,
            gather=True, read_bytes=ba if fused else ba * tokens / dominant,
            note="tokens that stay",
        ),
    ]  # fmt: skip
    if fused and not contextual:
        return ops
    metric = elementwise(
        f"{item.label}.metric", "compression", rows=batch * tokens, cols=head,
        read=(sym("Hv") + 2) * ba, write=2 * ba, flops_per_element=sym("Hv") + 3,
        launches=Integer(3 if contextual else 1), live=(sym("Hv") + 2) * ba,
        primitive="reduction", note="mean of the keys over heads, norm, division",
    )  # fmt: skip
    if not contextual:
        # The released code makes the metric all the same.
        return [_waits(metric, 0), *_masked(ops)]
    merged = tokens - item.kept
    moving, targets = batch * merged, batch * means
    split = copy(
        f"{item.label}.split", "compression", rows=moving + targets, cols=width + head,
        launches=Integer(6 if fused else 13), gather=True,
        note="targets at equal distances and what merges into them, tokens and keys",
    )  # fmt: skip
    similarity = matmul(
        f"{item.label}.similarity", "compression", batch=batch, m=merged, n=means, k=head,
        a_bytes=moving * head * ba, b_bytes=targets * head * ba,
    )  # fmt: skip
    assign = elementwise(
        f"{item.label}.assign", "compression", rows=moving, cols=means, read=2 * ba,
        write=ba + 2 * _INDEX_BYTES / means, flops_per_element=Integer(2), launches=Integer(4),
        live=2 * ba, primitive="reduction", note="best target, one-hot, tokens per target",
    )  # fmt: skip
    mean = matmul(
        f"{item.label}.mean", "compression", batch=batch, m=means, n=width, k=merged,
        a_bytes=moving * means * ba, b_bytes=moving * width * ba,
    )  # fmt: skip
    join = copy(
        f"{item.label}.join", "compression", rows=batch * item.kept, cols=width,
        launches=Integer(4), passes=Integer(2), note="clamp, divide, add to targets, append",
    )  # fmt: skip
    rest = [metric, split, similarity, assign, mean, join]
    if fused:
        return [*ops, *rest]
    sorts = Min(ONE, Max(ZERO, floor(means - 10 * (merged + means) ** _SORTS_FROM) + 1))
    return [
        *_masked(ops),
        metric,
        _waits(split, 4 + 4 * sorts),
        *(_waits(op, 0) for op in rest[2:]),
    ]


def _waits(op: Op, times: Expr | int) -> Op:
    return replace(op, host_syncs=ZERO + times, graph_safe=False)


def _masked(ops: list[Op]) -> list[Op]:
    choose, dominant = ops
    return [_waits(choose, 0), _waits(dominant, 1)]
