"""Average pooling of neighbouring visual tokens."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from .method import MethodCase, Prepared, ReferenceMethod, random_tokens

__all__ = ["METHOD", "average_windows", "average_windows_by_mean"]


def _side(tokens: int, window: int) -> int:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"tokens: {tokens} form no square grid")
    if side % window:
        raise ValueError(f"window: {window} does not divide the {side} x {side} grid")
    return side


def average_windows(tokens: Tensor, window: int) -> Tensor:
    """Average window x window neighbours with ``avg_pool2d``: one kernel, no copy.

    Width comes last in memory, which is torch's channels-last layout of the grid: the
    permutations around the pooling move nothing.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, side**2, width), row by row.
    window : int
        Side of the pooled neighbourhood; it divides the grid.

    Returns
    -------
    Tensor
        Shape (images, (side / window)**2, width).

    Raises
    ------
    ValueError
        If tokens form no square grid or the window does not divide it.

    References
    ----------
    .. [1] H. Tang, C. Shen, "Learning Compact Vision Tokens for Efficient Large Multimodal
       Models", arXiv:2506.07138 (baseline of its tables).
    """
    side = _side(tokens.shape[1], window)
    grid = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return functional.avg_pool2d(grid, window).permute(0, 2, 3, 1).flatten(1, 2)


def average_windows_by_mean(tokens: Tensor, window: int) -> Tensor:
    """Average window x window neighbours with ``mean`` over two axes of a view.

    Parameters, result and errors are those of `average_windows`.
    """
    kept = _side(tokens.shape[1], window) // window
    return tokens.unflatten(1, (kept, window, kept, window)).mean((2, 4)).flatten(1, 2)


def _window(case: MethodCase) -> int:
    window = math.isqrt(case.tokens // case.kept)
    if window * window * case.kept != case.tokens:
        raise ValueError(
            f"kept: {case.kept} is not {case.tokens} divided by the square of a whole window"
        )
    _side(case.tokens, window)
    return window


def _build(case: MethodCase) -> Prepared:
    window = _window(case)
    tokens = random_tokens(case)
    pool = average_windows if case.variant == "pool" else average_windows_by_mean
    return Prepared(run=lambda: pool(tokens, window), output_tokens=case.kept, graph_safe=True)


METHOD = ReferenceMethod(
    name="avgpool",
    summary="Averages window x window neighbouring tokens; one kernel, no parameters.",
    variants=("pool", "mean"),
    build=_build,
)
