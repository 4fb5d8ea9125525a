r"""PruMerge: patches that stand out in the class token's attention, with their neighbours added.

The attention of one layer is computed again from its queries and keys, over all channels as one
head.  Patches whose class attention a exceeds ``Q3 + 1.5 (Q3 - Q1)`` stay; each is joined by its 32
nearest others (cosine of keys), and one more token sums up all that went:

.. math:: y_i = x_i + \sum_{j \in \mathrm{near}(i)} a_j x_j, \qquad
    y_0 = \sum_{j \,\mathrm{dropped}} a_j x_j

Let n be the patches of an image, c their width and k the tokens that stay.

- Tokens: ``k + 1``, k by the data (about 6 % of n on natural images), one k for a whole batch.
- Parameters: none.
- FLOPs per image, as released: ``2 c ((n + 1)**2 + k (n - 1))``; in the variant ``fused``:
  ``2 c (2 n + 1 + 2 k n)``, since only the class token's row of the attention is needed and
  neighbours, like the extra token, are summed by products.
- Temporaries, as released: ``(n + 1)**2`` scores and again attention; keys and tokens apart for
  stayed and dropped (4 n c), and for each of k tokens copies of all other tokens and keys, 2 n c
  each time.  Fused: normalised keys (n c), ``4 k n`` for similarities and weights.
- Launches, measured per batch of b images: ``23 + 11 b k`` operators as released and, off the CPU,
  a copy to the host; 26 in ``fused``, 19 of them left without ``adaptive``.  Formats other than
  fp32 add a cast before the quartiles; in fp32 several images add a copy in ``fused``.
- Host waits: 1.  As released the attention is copied to the host, where numpy finds the quartiles;
  in ``fused`` only the count of outliers crosses.  It decides all shapes.  With ``adaptive`` off k
  is given and nothing waits.
- A loop over tokens on the host, and no CUDA graph; ``fused`` without ``adaptive`` can be captured.

`merge_by_loop` follows the released code at inference, quirks included: ``int(n * ratio)`` can lose
one token by rounding (for 729 tokens, never for 576), weights are not normalised, and all images of
a batch share one ratio.  Keeping all tokens is no identity: neighbours are still added, and the
extra token is zero.

References
----------
.. [1] Y. Shang et al., "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal
   Models", arXiv:2403.15388, section 3. https://arxiv.org/abs/2403.15388
.. [2] https://github.com/42Shawn/LLaVA-PruMerge,
   ``llava/model/multimodal_encoder/clip_encoder.py`` (``token_prune_merge_advanced``).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .method import MethodCase, Prepared, ReferenceMethod
from .prumerge_inputs import LayerOutputs, check_outliers, planted_outputs

__all__ = [
    "METHOD",
    "NEIGHBOURS",
    "class_attention",
    "class_attention_row",
    "merge_at_once",
    "merge_by_loop",
    "outlier_ratio",
    "outlier_ratio_on_device",
    "prune_and_merge",
    "prune_and_merge_fused",
]

NEIGHBOURS = 32
"""Nearest tokens added to each, fixed in the released code."""


def class_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention of the class token to each patch, from the scores of all tokens, as released.

    Parameters
    ----------
    queries, keys : Tensor
        Of one layer, all heads joined, shape (images, 1 + n, c), class token first.

    Returns
    -------
    Tensor
        Shape (images, n).
    """
    scores = (queries @ keys.transpose(-2, -1)) * keys.shape[2] ** -0.5
    return scores.softmax(dim=-1)[:, 0, 1:]


def class_attention_row(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the same as `class_attention`, from the scores of the class token alone."""
    scores = (queries[:, :1] @ keys.transpose(-2, -1)) * keys.shape[2] ** -0.5
    return scores.softmax(dim=-1)[:, 0, 1:]


def outlier_ratio(attention: Tensor) -> float:
    """Share of outliers in the attention of all images, found by numpy on the host, as released."""
    values = attention.to(torch.float32).cpu().numpy().flatten()
    low, high = np.percentile(values, 25), np.percentile(values, 75)
    return len(np.where(values > high + 1.5 * (high - low))[0]) / len(values)


def outlier_ratio_on_device(attention: Tensor) -> float:
    """Return the same as `outlier_ratio`; only the count of outliers crosses to the host."""
    values = attention.float().flatten()
    ordered = values.sort().values

    def quartile(share: float) -> Tensor:
        below, weight = divmod(share * (len(values) - 1), 1)
        above = min(int(below) + 1, len(values) - 1)
        return torch.lerp(ordered[int(below)], ordered[above], weight)

    bound = torch.lerp(quartile(0.25), quartile(0.75), 2.5)
    return int((values > bound).sum()) / len(values)


def merge_by_loop(
    features: Tensor, keys: Tensor, attention: Tensor, chosen: Tensor, neighbours: int = NEIGHBOURS
) -> Tensor:
    """Add to each chosen token its nearest others, one token after the other, as released.

    Parameters
    ----------
    features : Tensor
        Tokens, shape (images, n, c).
    keys : Tensor
        Their keys, shape (images, n, c).
    attention : Tensor
        Their class attention, shape (images, n).
    chosen : Tensor
        Indices of the tokens that stay, shape (images, k).
    neighbours : int
        Nearest tokens added to each, of those that stay and those that go alike.

    Returns
    -------
    Tensor
        Shape (images, k + 1, c), the sum over dropped tokens last.
    """
    images, count, width = features.shape

    def pick(values: Tensor, which: Tensor) -> Tensor:
        return values.gather(1, which[..., None].expand(-1, -1, width))

    # The complement: chosen places become 0 and sort to the front, where they are cut off.
    places = torch.arange(count, device=chosen.device).expand(images, -1).scatter(1, chosen, 0)
    dropped = places.sort(dim=1).values[:, chosen.shape[1] :]
    stay, gone = pick(features, chosen), pick(features, dropped)
    stay_attention, gone_attention = attention.gather(1, chosen), attention.gather(1, dropped)
    stay_unit = functional.normalize(pick(keys, chosen), dim=-1)
    gone_unit = functional.normalize(pick(keys, dropped), dim=-1)
    updated = torch.zeros_like(stay)
    for image in range(images):
        for index in range(chosen.shape[1]):
            tokens = _others(stay[image], gone[image], index)
            weights = _others(stay_attention[image], gone_attention[image], index)
            units = _others(stay_unit[image], gone_unit[image], index)
            similarity = torch.bmm(stay_unit[image, index][None, None], units.transpose(1, 2))
            near = similarity.topk(neighbours, dim=2).indices.view(-1)
            total = (tokens[:, near] * weights[:, near][..., None]).sum(dim=1)
            updated[image, index] = total[0] + stay[image, index]
    extra = (gone * gone_attention[..., None]).sum(dim=1, keepdim=True)
    return torch.cat([updated, extra], dim=1)


def _others(stay: Tensor, gone: Tensor, index: int) -> Tensor:
    return torch.cat([stay[:index], stay[index + 1 :], gone])[None]


def merge_at_once(
    features: Tensor, keys: Tensor, attention: Tensor, chosen: Tensor, neighbours: int = NEIGHBOURS
) -> Tensor:
    """Return the same as `merge_by_loop` up to rounding, by products over all tokens at once."""
    width, kept = features.shape[2], chosen.shape[1]
    index = chosen[..., None].expand(-1, -1, width)
    unit = functional.normalize(keys, dim=-1)
    similarity = torch.bmm(unit.gather(1, index), unit.transpose(1, 2))
    near = similarity.scatter_(2, chosen[..., None], -torch.inf).topk(neighbours, dim=2).indices
    shared = attention[:, None]
    weights = torch.zeros_like(similarity)
    weights.scatter_(2, near, shared.expand(-1, kept, -1).gather(2, near))
    stay = torch.baddbmm(features.gather(1, index), weights, features)
    extra = torch.bmm(shared.scatter(2, chosen[:, None], 0), features)
    return torch.cat([stay, extra], dim=1)


def prune_and_merge(outputs: LayerOutputs, kept: int | None = None) -> Tensor:
    """Compress the tokens of each image, step by step as released.

    Parameters
    ----------
    outputs : LayerOutputs
        What the tower gives.
    kept : int, optional
        Tokens that stay; by default the rule of outliers decides.

    Returns
    -------
    Tensor
        Shape (images, k + 1, c).
    """
    attention = class_attention(outputs.queries, outputs.keys)
    if kept is None:
        kept = int(attention.shape[1] * outlier_ratio(attention))
    chosen = attention.topk(kept, dim=1).indices
    return merge_by_loop(outputs.features, outputs.keys[:, 1:], attention, chosen)


def prune_and_merge_fused(outputs: LayerOutputs, kept: int | None = None) -> Tensor:
    """Return the same as `prune_and_merge` up to rounding, without loops."""
    attention = class_attention_row(outputs.queries, outputs.keys)
    if kept is None:
        kept = int(attention.shape[1] * outlier_ratio_on_device(attention))
    chosen = attention.topk(kept, dim=1).indices
    return merge_at_once(outputs.features, outputs.keys[:, 1:], attention, chosen)


def _build(case: MethodCase) -> Prepared:
    run = prune_and_merge_fused if case.variant == "fused" else prune_and_merge
    if case.tokens <= NEIGHBOURS or case.kept < 2:
        raise ValueError(
            f"kept: prumerge keeps at least 2 tokens of more than {NEIGHBOURS},"
            f" not {case.kept} of {case.tokens}"
        )
    if not case.params["adaptive"]:
        outputs = planted_outputs(case, ())
        graph_safe = case.variant == "fused"
        return Prepared(lambda: run(outputs, case.kept - 1), case.kept, graph_safe=graph_safe)
    check_outliers(case.tokens, case.kept - 1)
    random = np.random.default_rng(case.seed)
    outliers = random.choice(case.tokens, case.kept - 1, replace=False)
    outputs = planted_outputs(case, outliers)
    return Prepared(lambda: run(outputs), output_tokens=None)


METHOD = ReferenceMethod(
    name="prumerge",
    summary="Keeps outliers of the class attention and adds to each its nearest neighbours.",
    variants=("released", "fused"),
    build=_build,
    params={"adaptive": True},
)
