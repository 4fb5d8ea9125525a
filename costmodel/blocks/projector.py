"""The projector between vision tower and language model."""

from __future__ import annotations

from itertools import pairwise

from sympy import Expr

from costmodel.blocks.style import Style
from costmodel.ops import ZERO, Op, Weights, activation, copy, gemm, norm
from costmodel.specs.model import ProjectorSpec
from costmodel.symbols import indexed, sym

__all__ = ["projector", "projector_weights"]


def _widths(spec: ProjectorSpec) -> list[Expr]:
    layers = len(spec.widths)
    first = sym("q") ** 2 * sym("di") if spec.merge > 1 else sym("di")
    return [first, *(indexed("w", i, layers) for i in range(layers))]


def projector(spec: ProjectorSpec, rows: Expr, style: Style, newlines: bool) -> list[Op]:
    r"""Norm, merge of q x q neighbours, linear layers with an activation between.

    .. math:: F = 2 b r \sum_j w_{j-1} w_j,\quad w_{-1} = q^2 d_i

    Parameters
    ----------
    spec : ProjectorSpec
        Which parts exist.
    rows : Expr
        Rows per request after merging (r).
    style : Style
        Fusion.
    newlines : bool
        Whether features are rearranged with newline embeddings afterwards.

    Returns
    -------
    list of Op
    """
    widths = _widths(spec)
    rows = sym("b") * rows
    ops: list[Op] = []

    def norm_op(op_rows: Expr, cols: Expr) -> Op:
        return norm(
            "projector.norm", "projector", rows=op_rows, cols=cols,
            kind=spec.norm or "layernorm", fused=style.fused,
        )  # fmt: skip

    if spec.norm and not spec.norm_after_merge:
        ops.append(norm_op(rows * (sym("q") ** 2 if spec.merge > 1 else 1), sym("di")))
    if spec.merge > 1:
        ops.append(copy("projector.merge", "projector", rows=rows, cols=widths[0]))
    if spec.norm and spec.norm_after_merge:
        ops.append(norm_op(rows, widths[0]))
    last = len(widths) - 1
    for layer, (into, out) in enumerate(pairwise(widths), start=1):
        ops.append(
            gemm(f"projector.linear_{layer}", "projector", m=rows, n=out, k=into, bias=spec.bias)
        )
        if layer < last:
            ops.append(
                activation(
                    f"projector.activation_{layer}", "projector", rows=rows, cols=out,
                    function=spec.activation, gated=False, fused=style.fused,
                )
            )  # fmt: skip
    if newlines:
        ops.append(
            copy(
                "projector.newlines", "projector", rows=rows, cols=widths[-1],
                note="unpad, insert newline embeddings, concatenate with the base image",
            )
        )  # fmt: skip
    return ops


def projector_weights(spec: ProjectorSpec) -> list[Weights]:
    """Parameters of the projector."""
    widths = _widths(spec)
    linear = sum((into * out for into, out in pairwise(widths)), start=ZERO)
    small: Expr = sum(widths[1:], start=ZERO) if spec.bias else ZERO
    if spec.norm:
        vectors = 2 if spec.norm == "layernorm" else 1
        small += vectors * (widths[0] if spec.norm_after_merge else sym("di"))
    if spec.newline:
        small += widths[-1]
    weights = [Weights("projector.linear", "projector", linear)]
    if small != ZERO:
        weights.append(Weights("projector.norms_and_biases", "projector", small, linear=False))
    return weights
