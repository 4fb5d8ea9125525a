"""Cross-modal saliency: the visual tokens that the text attends to most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .method import MethodCase, Prepared, ReferenceMethod, random_tokens
from .modules import random_values

__all__ = ["METHOD", "attention_saliency", "embedding_saliency", "keep_salient"]


def embedding_saliency(text: Tensor, visual: Tensor) -> Tensor:
    r"""Saliency before the language model, from the embeddings alone.

    .. math:: s = \mathrm{mean}_t\, \mathrm{softmax}_n(X_t X_v^T / \sqrt d)

    The product costs ``2 t n d`` FLOP.

    Parameters
    ----------
    text : Tensor
        Shape (images, text tokens, width); for one layer's view of both, its queries.
    visual : Tensor
        Shape (images, visual tokens, width); its keys.

    Returns
    -------
    Tensor
        Shape (images, visual tokens), fp32; each row sums to 1.

    References
    ----------
    .. [1] Y. Omri et al., "Token Sequence Compression for Efficient Multimodal Computing",
       arXiv:2504.17892 (cross-modal saliency; its exact definition is not public).
    """
    scores = (text @ visual.transpose(1, 2)) / math.sqrt(visual.shape[2])
    return scores.softmax(-1, dtype=torch.float32).mean(1)


def attention_saliency(
    queries: Tensor, keys: Tensor, columns: slice, rows: slice = slice(-1, None)
) -> Tensor:
    """Saliency from the attention of one layer of the language model, written out in full.

    The product costs ``2 s**2 d`` FLOP and ``heads * s**2`` scores are written, which is what
    reading the attention weights of a layer takes: fused attention never writes them.

    Parameters
    ----------
    queries : Tensor
        Shape (images, heads, s, head width).
    keys : Tensor
        Shape (images, key heads, s, head width); key heads divide heads.
    columns : slice
        Visual tokens within the s tokens of the prompt.
    rows : slice
        Queries that vote; the last token by default.

    Returns
    -------
    Tensor
        Shape (images, visual tokens), fp32: mean over heads and voting queries.

    References
    ----------
    .. [1] L. Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", arXiv:2403.06764
       (attention of the last token, averaged over heads).
    """
    group = queries.shape[1] // keys.shape[1]
    if group > 1:
        keys = keys.repeat_interleave(group, dim=1)
    scores = (queries @ keys.transpose(2, 3)) / math.sqrt(queries.shape[3])
    length = queries.shape[2]
    hidden = torch.full((length, length), -torch.inf, dtype=scores.dtype, device=scores.device)
    weights = (scores + hidden.triu(1)).softmax(-1, dtype=torch.float32).to(queries.dtype)
    return weights.mean(1)[:, rows, columns].mean(1, dtype=torch.float32)


def keep_salient(
    tokens: Tensor, saliency: Tensor, kept: int, *, by_position: bool = True
) -> tuple[Tensor, Tensor]:
    """Keep the `kept` most salient tokens of each image.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, tokens, width).
    saliency : Tensor
        Shape (images, tokens).
    kept : int
        Tokens kept per image.
    by_position : bool
        Whether they keep their order in the prompt, otherwise by falling saliency.

    Returns
    -------
    tuple of Tensor
        Kept tokens (images, kept, width) and their indices (images, kept).
    """
    indices = saliency.topk(kept, dim=1).indices
    if by_position:
        indices = indices.sort(dim=1).values
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[2])), indices


# Each input is of a stream of its own: text that equals the first visual tokens would attend to
# nothing else.


def _embedding(case: MethodCase, visual: Tensor, text_tokens: int) -> Callable[[], Tensor]:
    text = random_values(case, text_tokens, case.width, stream=1)
    return lambda: embedding_saliency(text, visual)


def _projected(case: MethodCase, visual: Tensor, text_tokens: int) -> Callable[[], Tensor]:
    text = random_values(case, text_tokens, case.width, stream=1)
    # Query and key weights of a layer that the model has anyway: no parameters are added.
    pair = random_values(replace(case, batch=2), case.width, case.width, stream=2)
    query, key = pair / math.sqrt(case.width)
    return lambda: embedding_saliency(text @ query, visual @ key)


def _attention(case: MethodCase, visual: Tensor, text_tokens: int) -> Callable[[], Tensor]:
    heads, key_heads, before = (
        int(case.params[name]) for name in ("heads", "key_heads", "text_before")
    )
    if heads < 1 or case.width % heads:
        raise ValueError(f"heads: {heads} does not divide the width {case.width}")
    if key_heads < 1 or heads % key_heads:
        raise ValueError(f"key_heads: {key_heads} does not divide the {heads} heads")
    if not 0 <= before < text_tokens:
        raise ValueError(f"text_before: {before} is not below the {text_tokens} text tokens")
    length, head_width = text_tokens + case.tokens, case.width // heads
    queries = random_values(case, heads, length, head_width, stream=1)
    keys = random_values(case, key_heads, length, head_width, stream=2)
    columns = slice(before, before + case.tokens)
    return lambda: attention_saliency(queries, keys, columns)


_SCORES = {"embedding": _embedding, "projected": _projected, "attention": _attention}


def _build(case: MethodCase) -> Prepared:
    text_tokens = int(case.params["text_tokens"])
    if text_tokens < 1:
        raise ValueError(f"text_tokens: {text_tokens} is not at least 1")
    visual = random_tokens(case)
    score = _SCORES[case.variant](case, visual, text_tokens)
    return Prepared(
        run=lambda: keep_salient(visual, score(), case.kept)[0],
        output_tokens=case.kept,
        graph_safe=True,
    )


METHOD = ReferenceMethod(
    name="saliency",
    summary="Keeps the k visual tokens that the text attends to most: scores, top-k and a gather.",
    variants=tuple(_SCORES),
    build=_build,
    params={"text_tokens": 64, "text_before": 35, "heads": 32, "key_heads": 32},
)
