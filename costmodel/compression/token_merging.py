"""One step of token merging inside a vision layer, as operators."""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Integer, ceiling, floor

from costmodel.ops import ONE, AttentionImpl, Op, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["masked_bias", "merge_step", "size_bias", "threshold_step"]

_INDEX_BYTES = Integer(8)


def merge_step(label: str, batch: Expr, before: Expr, after: Expr, first: bool) -> list[Op]:
    r"""Match tokens at even places to those at odd ones by their keys, merge the best pairs.

    .. math:: F = 2 B \lceil t/2 \rceil \lfloor t/2 \rfloor D_v

    for B sequences of t tokens; norms, maxima, sorts and sums are listed beside it.

    Parameters
    ----------
    label : str
        Prefix of operator names.
    batch : Expr
        Sequences (B).
    before, after : Expr
        Tokens of one sequence before (t) and after the step, class token included.
    first : bool
        Whether nothing was merged before: sizes of ones are made.

    Returns
    -------
    list of Op
        19 kernels, 20 in the first step, as counted on the runnable implementation; sorts
        count as one.

    References
    ----------
    .. [1] D. Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3, and
       its public code, ``tome/merge.py``.
    """
    ba, width, head = sym("ba"), sym("dv"), sym("Dv")
    even, odd, removed = ceiling(before / 2), floor(before / 2), before - after
    # Product with the sizes, gather of the even tokens, copy of the odd ones and those added
    # to them, concatenation and division.
    moved = batch * (2 * before + removed + 2 * after)
    return [
        elementwise(
            f"{label}.metric", "compression", rows=batch * before, cols=head,
            read=(sym("Hv") + 2) * ba, write=2 * ba, flops_per_element=sym("Hv") + 3,
            launches=Integer(3), live=(sym("Hv") + 2) * ba, primitive="reduction",
            note="mean of the keys over heads, norm, division",
        ),
        matmul(
            f"{label}.similarity", "compression", batch=batch, m=even, n=odd, k=head,
            a_bytes=batch * even * head * ba, b_bytes=batch * odd * head * ba,
        ),
        elementwise(
            f"{label}.match", "compression", rows=batch * even, cols=odd, read=ba,
            write=(ba + 4 * _INDEX_BYTES) / odd, flops_per_element=ONE, launches=Integer(5),
            live=ba + (ba + 4 * _INDEX_BYTES) / odd, primitive="reduction",
            note="protect the class token, best partner, two sorts, gather of the partners",
        ),
        elementwise(
            f"{label}.merge", "compression", rows=moved, cols=width, read=ba, write=ba,
            flops_per_element=Integer(1), launches=Integer(11 if first else 10),
            live=3 * batch * before / moved * ba, primitive="gather",
            note="means weighted by size: product, gathers, scatters, joins, division",
        ),
    ]  # fmt: skip


def size_bias(label: str, batch: Expr, tokens: Expr, impl: AttentionImpl) -> Op:
    """Attention in proportion to the sizes of tokens: their logarithm, added to the scores.

    Parameters
    ----------
    label : str
        Prefix of the operator's name.
    batch, tokens : Expr
        Sequences, and tokens of one, class token included.
    impl : {"flash", "sdpa", "eager"}
        How attention runs: where a fused kernel takes the bias only the logarithm is made.
    """
    ba = sym("ba")
    if impl != "eager":
        return elementwise(
            f"{label}.size_bias", "compression", rows=batch, cols=tokens, read=ba, write=ba,
            flops_per_element=ONE, note="logarithm of the sizes",
        )  # fmt: skip
    return elementwise(
        f"{label}.size_bias", "compression", rows=batch * sym("Hv") * tokens, cols=tokens,
        read=ba, write=ba, flops_per_element=ONE, launches=Integer(2),
        note="logarithm of the sizes, added to all scores",
    )  # fmt: skip


def threshold_step(
    label: str, batch: Expr, before: Expr, whole: Expr, first: bool, looped: bool
) -> list[Op]:
    r"""Merge every pair more similar than a threshold, of all sequences of a batch together.

    FLOPs as `merge_step`.  Kernels are counted by reading the code, about 77 plus one per
    token at an even place: their number above the threshold is summed by Python's ``sum``, one
    addition after the other.  The host waits four times: twice for that number, for the
    longest sequence and for the statistics.

    Parameters
    ----------
    label, batch, before, first
        As in `merge_step`; `before` is the padded length.
    whole : Expr
        Tokens of a sequence before the first block: which of them each token stands for is kept.
    looped : bool
        Whether the pairs are counted by Python's ``sum``, not by one kernel.

    Returns
    -------
    list of Op

    References
    ----------
    .. [1] Z. Wang et al., "DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs",
       arXiv:2504.17040, and its public code, ``open_clip/tome.py``.
    """
    ba, width, int32 = sym("ba"), sym("dv"), Integer(4)
    metric, similarity, match, _ = merge_step(label, batch, before, before - 1, first)
    even = ceiling(before / 2)
    pairs = batch * even if looped else ONE
    rows = batch * before
    return [
        metric,
        similarity,
        # Beside what token merging does: the threshold, and from the second block on a mask.
        replace(match, launches=Integer(6 if first else 10)),
        elementwise(
            f"{label}.count", "compression", rows=batch * even / pairs, cols=ONE, read=int32,
            write=int32, flops_per_element=ONE, repeat=pairs, primitive="reduction",
            note="pairs above the threshold, counted by Python's sum",
        ),
        replace(
            elementwise(
                f"{label}.merge", "compression", rows=rows, cols=width, read=6 * ba, write=6 * ba,
                flops_per_element=Integer(2), launches=Integer(49 if first else 48), live=4 * ba,
                primitive="gather",
                note="tokens, sizes and padding mask: merged, padding moved to the end, cut",
            ),
            host_syncs=Integer(4),
        ),
        elementwise(
            f"{label}.positions", "compression", rows=rows, cols=whole, read=5 * int32,
            write=5 * int32, flops_per_element=ONE, launches=Integer(18), live=3 * int32,
            primitive="gather", note="which patches each token stands for, merged likewise",
        ),
    ]  # fmt: skip


def masked_bias(label: str, batch: Expr, tokens: Expr) -> Op:
    """Logarithm of sizes and padding mask, added up for every head, query and key."""
    ba = sym("ba")
    return elementwise(
        f"{label}.bias", "compression", rows=batch * sym("Hv") * tokens, cols=tokens,
        read=ba / sym("Hv"), write=ba, flops_per_element=ONE, launches=Integer(3),
        live=ba, note="logarithm, mask, and their sum in memory, which fused attention reads",
    )  # fmt: skip
