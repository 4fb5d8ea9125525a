"""One step of Token Merging: match tokens by their keys, merge the best pairs; see `tome`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Matching", "match", "merge", "most_removable", "reduce_tokens"]


@dataclass(frozen=True)
class Matching:
    """Which tokens merge, each index of shape (images, count, 1).

    Attributes
    ----------
    stay : Tensor
        Indices within the even tokens of those that stay, rising.
    leave : Tensor
        Indices within the even tokens of those that merge.
    into : Tensor
        Indices within the odd tokens of what they merge into.
    """

    stay: Tensor
    leave: Tensor
    into: Tensor


def most_removable(tokens: int) -> int:
    """Tokens a block can merge away at most, of `tokens` with the class token.

    Examples
    --------
    >>> most_removable(577)
    288
    """
    return (tokens - 1) // 2


def match(metric: Tensor, removed: int) -> Matching:
    """Match even tokens to odd ones and choose the `removed` best pairs.

    Parameters
    ----------
    metric : Tensor
        Keys averaged over heads, shape (images, t, h); the first token is never merged away.
    removed : int
        Pairs to merge (r), between 1 and ``most_removable(t)``.
    """
    unit = metric / metric.norm(dim=-1, keepdim=True)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(-1, -2)
    scores[:, 0] = -math.inf
    best, partner = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)[..., None]
    leave = order[:, :removed]
    return Matching(
        stay=order[:, removed:].sort(dim=1).values,
        leave=leave,
        into=partner[..., None].gather(1, leave),
    )


def _summed(matching: Matching, values: Tensor) -> Tensor:
    even, odd = values[:, ::2], values[:, 1::2]
    width = values.shape[2]
    stay = even.gather(1, matching.stay.expand(-1, -1, width))
    leave = even.gather(1, matching.leave.expand(-1, -1, width))
    joined = odd.scatter_reduce(1, matching.into.expand(-1, -1, width), leave, reduce="sum")
    return torch.cat([stay, joined], dim=1)


def merge(matching: Matching, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Merge matched tokens by their sizes' weighted mean.

    Parameters
    ----------
    matching : Matching
        From `match`.
    tokens : Tensor
        Shape (images, t, c).
    sizes : Tensor or None
        Patches behind each token, shape (images, t, 1); None means one each.

    Returns
    -------
    tuple of Tensor
        Tokens (images, t - r, c) and sizes (images, t - r, 1).
    """
    if sizes is None:
        sizes = torch.ones_like(tokens[..., :1])
    total = _summed(matching, tokens * sizes)
    merged = _summed(matching, sizes)
    return total / merged, merged


def reduce_tokens(
    tokens: Tensor, keys: Tensor, sizes: Tensor | None, removed: int
) -> tuple[Tensor, Tensor | None]:
    """Merge tokens by the mean of their keys over heads.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, t, c), class token first.
    keys : Tensor
        Shape (images, heads, t, h).
    sizes : Tensor or None
        Shape (images, t, 1), as in `merge`.
    removed : int
        Tokens to merge away (r); 0 changes nothing.

    Raises
    ------
    ValueError
        If more than half of the tokens would go.
    """
    if removed == 0:
        return tokens, sizes
    if not 0 < removed <= most_removable(tokens.shape[1]):
        raise ValueError(
            f"removed: {removed} is not between 0 and {most_removable(tokens.shape[1])}"
        )
    return merge(match(keys.mean(1), removed), tokens, sizes)
