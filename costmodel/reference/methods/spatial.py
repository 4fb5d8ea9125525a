"""Spatial sampling: evenly spaced visual tokens, by an index made once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .method import MethodCase, Prepared, ReferenceMethod, random_tokens

__all__ = ["METHOD", "even_indices", "grid_indices", "keep_spatial"]


def even_indices(tokens: int, kept: int) -> Tensor:
    """Middles of `kept` equal stretches of a sequence, as indices in rising order.

    Examples
    --------
    >>> even_indices(9, 3).tolist()
    [1, 4, 7]
    """
    return (2 * torch.arange(kept) + 1) * tokens // (2 * kept)


def grid_indices(side: int, kept_side: int) -> Tensor:
    """Indices of an evenly spaced square within a side x side grid, row by row.

    Examples
    --------
    >>> grid_indices(6, 2).tolist()
    [7, 10, 25, 28]
    """
    line = even_indices(side, kept_side)
    return (line[:, None] * side + line).flatten()


def keep_spatial(tokens: Tensor, indices: Tensor) -> Tensor:
    """Keep the same tokens of every image: one kernel.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, tokens, width).
    indices : Tensor
        Shape (kept,), from `even_indices` or `grid_indices`.

    Returns
    -------
    Tensor
        Shape (images, kept, width).

    References
    ----------
    .. [1] Y. Omri et al., "Token Sequence Compression for Efficient Multimodal Computing",
       arXiv:2504.17892 (spatial sampling).
    """
    return tokens.index_select(1, indices)


def _square_root(name: str, count: int) -> int:
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{name}: {count} is no square, as variant 'grid' needs")
    return side


def _build(case: MethodCase) -> Prepared:
    tokens = random_tokens(case)
    if case.variant == "grid":
        sides = _square_root("tokens", case.tokens), _square_root("kept", case.kept)
        indices = grid_indices(*sides)
    else:
        indices = even_indices(case.tokens, case.kept)
    indices = indices.to(case.device)
    return Prepared(
        run=lambda: keep_spatial(tokens, indices), output_tokens=case.kept, graph_safe=True
    )


METHOD = ReferenceMethod(
    name="spatial",
    summary="Keeps k evenly spaced tokens of each image: one gather with a fixed index.",
    variants=("even", "grid"),
    build=_build,
)
