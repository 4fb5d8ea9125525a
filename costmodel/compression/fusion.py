"""Operators and parameters of the two learned fusion modules, STF and MBTF."""

from __future__ import annotations

from sympy import Expr

from costmodel.ops import ZERO, Op, Weights, activation, copy, gemm
from costmodel.symbols import sym

__all__ = ["mbtf_module", "stf_module"]


def _two_linears(
    label: str, rows: Expr, into: Expr, hidden: Expr, out: Expr, fused: bool
) -> tuple[list[Op], list[Weights]]:
    joined = ZERO if fused else rows * into * sym("ba")
    ops = [
        gemm(f"{label}.linear_1", "compression", m=rows, n=hidden, k=into, bias=True),
        activation(f"{label}.gelu", "compression", rows=rows, cols=hidden, function="gelu",
                   gated=False, fused=fused, held=joined),
        gemm(f"{label}.linear_2", "compression", m=rows, n=out, k=hidden, bias=True, held=joined),
    ]  # fmt: skip
    weights = [
        Weights(f"{label}.linear", "compression", into * hidden + hidden * out),
        Weights(f"{label}.biases", "compression", hidden + out, linear=False),
    ]
    return ops, weights


def stf_module(fused: bool) -> tuple[list[Op], list[Weights]]:
    r"""Spatial token fusion: unfold a x a, then two linear layers.

    .. math:: F = 2 b \frac{m}{a^2} (a^2 c \cdot 16c + 16 c \cdot d)

    Equal to a convolution of kernel and stride a from c to 16 c channels
    followed by a 1x1 convolution to the model's width [1]_.

    Returns
    -------
    list of Op, list of Weights

    References
    ----------
    .. [1] H. Tang, C. Shen, "Learning Compact Vision Tokens for Efficient Large
       Multimodal Models", arXiv:2506.07138, section 3, and its public code.
    """
    a, c = sym("a"), sym("c")
    rows = sym("b") * sym("m") / a**2
    unfold = copy("stf.unfold", "compression", rows=rows, cols=a**2 * c,
                  note="permute and copy a x a neighbours into one row")  # fmt: skip
    ops, weights = _two_linears("stf", rows, a**2 * c, 16 * c, sym("d"), fused)
    features = sym("b") * sym("m") * c * sym("ba")
    return [unfold, *(op.holding(features) for op in ops)], weights


def mbtf_module(fused: bool) -> tuple[list[Op], list[Weights]]:
    r"""Multi-block token fusion: concatenate B tower layers, then two linear layers.

    .. math:: F = 2 b m (B c \cdot h + h \cdot c)

    Returns
    -------
    list of Op, list of Weights

    References
    ----------
    .. [1] H. Tang, C. Shen, arXiv:2506.07138, and its public code: no activation
       follows the second linear layer, although the figure draws one.
    """
    c, blocks, hidden = sym("c"), sym("B"), sym("h")
    rows = sym("b") * sym("m")
    # Leaving the class token out makes views, and tower and images share a format, so that
    # casts do nothing: one kernel, as counted on the runnable module.
    concat = copy("mbtf.concat", "compression", rows=rows, cols=blocks * c,
                  note="concatenate the tapped layers without their class tokens")  # fmt: skip
    ops, weights = _two_linears("mbtf", rows, blocks * c, hidden, c, fused)
    maps = rows * blocks * c * sym("ba")
    return [concat, *(op.holding(maps) for op in ops)], weights
