"""Random sampling: a random subset of the visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .method import MethodCase, Prepared, ReferenceMethod, random_tokens

__all__ = ["METHOD", "keep_random", "keep_random_per_image"]


def keep_random(
    tokens: Tensor, kept: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Keep `kept` random tokens of each image: three kernels for the whole batch.

    The largest of one random key per token are a uniform subset in uniform order.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, tokens, width).
    kept : int
        Tokens kept per image.
    generator : torch.Generator, optional
        On the device of `tokens`; torch's own if left out.

    Returns
    -------
    tuple of Tensor
        Kept tokens (images, kept, width) and their indices (images, kept).

    References
    ----------
    .. [1] Y. Omri et al., "Token Sequence Compression for Efficient Multimodal Computing",
       arXiv:2504.17892 (random sampling).
    """
    keys = torch.rand(tokens.shape[:2], generator=generator, device=tokens.device)
    indices = keys.topk(kept, dim=1).indices
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[2])), indices


def keep_random_per_image(
    tokens: Tensor, kept: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Keep ``randperm(n)[:kept]`` of each image in a loop, as a first version is written.

    Parameters and results are those of `keep_random`.
    """
    orders = [
        torch.randperm(tokens.shape[1], generator=generator, device=tokens.device)[:kept]
        for _ in tokens
    ]
    chosen = [image.index_select(0, order) for image, order in zip(tokens, orders, strict=True)]
    return torch.stack(chosen), torch.stack(orders)


def _build(case: MethodCase) -> Prepared:
    tokens = random_tokens(case)
    keep = keep_random if case.variant == "batched" else keep_random_per_image
    return Prepared(
        run=lambda: keep(tokens, case.kept)[0],
        output_tokens=case.kept,
        graph_safe=case.variant == "batched",
    )


METHOD = ReferenceMethod(
    name="random",
    summary="Keeps k random tokens of each image: random keys, top-k and a gather.",
    variants=("batched", "loop"),
    build=_build,
)
