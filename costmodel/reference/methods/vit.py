"""A CLIP vision tower whose blocks merge tokens between attention and MLP.

The weights live in transformers' ``CLIPVisionModel``; the forward pass is written out here, because
token merging needs what the library's does not give: keys per head, a bias by token size in the
attention, and fewer tokens after each block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

__all__ = ["PATCH", "Encoded", "Reduce", "attend", "clip_tower", "embed", "encode"]

PATCH = 14
"""Side of a patch of CLIP ViT-L/14, in pixels."""

Reduce = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""Takes tokens (images, t, c), keys (images, heads, t, head width) and sizes, returns fewer."""


@dataclass(frozen=True)
class Encoded:
    """What a tower returns.

    Attributes
    ----------
    tokens : Tensor
        Shape (images, t, c), class token first.
    sizes : Tensor or None
        Patches behind each token, shape (images, t, 1); None if nothing was merged.
    counts : tuple of int
        Tokens of each image that enter each block, and last those that leave the tower.
    """

    tokens: Tensor
    sizes: Tensor | None
    counts: tuple[int, ...]


def clip_tower(
    *, side: int, width: int, layers: int, heads: int, mlp_width: int, patch: int = PATCH
) -> Any:
    """Build transformers' ``CLIPVisionModel`` with random weights, for side x side patches.

    Raises
    ------
    ValueError
        If heads do not divide the width.
    """
    # transformers takes seconds to import, and only towers need it.
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if width % heads:
        raise ValueError(f"heads: {heads} do not divide the width {width}")
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp_width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=side * patch,
        patch_size=patch,
    )
    tower = CLIPVisionModel._from_config(config, attn_implementation="eager")
    return tower.eval().requires_grad_(False)


def embed(tower: Any, pixels: Tensor) -> Tensor:
    """Turn pixels (images, 3, height, width) into tokens (images, 1 + patches, c)."""
    tokens: Tensor = tower.pre_layrnorm(tower.embeddings(pixels))
    return tokens


def attend(
    attention: Any, normed: Tensor, sizes: Tensor | None, *, fused: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Attention in proportion to the sizes of tokens, ``softmax(Q K^T / sqrt(d) + log s) V``.

    Parameters
    ----------
    attention : CLIPAttention
        Projections of the block.
    normed : Tensor
        Shape (images, t, c).
    sizes : Tensor or None
        Shape (images, t, 1); None adds no bias.
    fused : bool
        Whether one fused kernel attends, otherwise scores are written out, as released.

    Returns
    -------
    tuple of Tensor
        Output (images, t, c) and keys (images, heads, t, head width).

    References
    ----------
    .. [1] D. Bolya et al., "Token Merging: Your ViT But Faster", arXiv:2210.09461, equation 1.
    """
    images, count, _ = normed.shape
    shape = (images, count, -1, attention.head_dim)
    queries = attention.q_proj(normed).view(shape).transpose(1, 2)
    keys = attention.k_proj(normed).view(shape).transpose(1, 2)
    values = attention.v_proj(normed).view(shape).transpose(1, 2)
    bias = None if sizes is None else sizes.log()[:, None, None, :, 0]
    if fused:
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    else:
        scores = (queries @ keys.transpose(-2, -1)) * attention.scale
        if bias is not None:
            scores = scores + bias
        mixed = scores.softmax(dim=-1) @ values
    return attention.out_proj(mixed.transpose(1, 2).reshape(images, count, -1)), keys


def encode(
    blocks: Sequence[Any], tokens: Tensor, reduce: Sequence[Reduce | None], *, fused: bool = False
) -> Encoded:
    """Run blocks, each of which may reduce its tokens between attention and MLP.

    Parameters
    ----------
    blocks : sequence of CLIPEncoderLayer
        The blocks to run.
    tokens : Tensor
        Shape (images, t, c).
    reduce : sequence of Reduce or None
        One per block; None leaves the tokens alone.
    fused : bool
        Whether attention is one fused kernel.
    """
    sizes: Tensor | None = None
    counts = [tokens.shape[1]]
    for block, step in zip(blocks, reduce, strict=True):
        mixed, keys = attend(block.self_attn, block.layer_norm1(tokens), sizes, fused=fused)
        tokens = tokens + mixed
        if step is not None:
            tokens, sizes = step(tokens, keys, sizes)
        tokens = tokens + block.mlp(block.layer_norm2(tokens))
        counts.append(tokens.shape[1])
    return Encoded(tokens, sizes, tuple(counts))
