r"""VisionZip: the patches the class token attends to most, and means of similar ones for the rest.

Of N = 1 + n tokens after one layer of the tower, the class token and the ``D - 1`` patches with the
largest class attention, summed over heads, stay (dominant tokens).  Among the others, C at equal
distances are targets; each of the remaining ``R = N - D - C`` joins the target with the most
similar key (cosine of keys averaged over heads), and

.. math:: y_j = x_j + \frac{1}{\max(1, |G_j|)} \sum_{i \in G_j} x_i

- Tokens: ``D + C``, the class token among them: 54 + 10, 108 + 20, 162 + 30.  Static.
- Parameters: none.
- FLOPs: ``2 R C h + 2 R C c`` per image, for keys of width h and tokens of width c.
- Temporaries: keys averaged over heads (N h), dominant and other tokens apart (N c), normalised
  keys (``(R + C) h``), similarities and one-hot assignment (``2 R C``), merged tokens (R c).
- In the tower, not in `run`: the attention weights of the layer, ``heads * N**2`` per image, must
  be written, so no fused attention there; the released code asks for those of all layers and keeps
  them, ``layers * heads * N**2`` (256 MB per image in fp16 for CLIP ViT-L/14-336).
- Launches, measured: 35 operators as released, 25 in the variant ``fused``.
- Host waits, measured: 5 as released (selections by a boolean mask, whose size the host must
  read), and 4 more from ``C = 10 (R + C)**0.145`` on (about 24, of 577 tokens):
  torch's ``isin`` then looks for unique values.  None in ``fused``, which selects by one sort and
  fixed indices and fits a CUDA graph.

`zip_tokens` follows the released code as public copies of it have it: contextual tokens are target
plus mean, not the mean of both.  With C = 0, which that code cannot do, only dominant tokens stay.

References
----------
.. [1] S. Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models",
   arXiv:2412.04467, section 3. https://arxiv.org/abs/2412.04467
.. [2] https://github.com/dvlab-research/VisionZip, ``visionzip/clip_encoder.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .method import MethodCase, Prepared, ReferenceMethod
from .modules import random_values

__all__ = ["METHOD", "Budget", "FusedZip", "class_saliency", "zip_tokens"]


@dataclass(frozen=True)
class Budget:
    """Tokens that remain of each image.

    Attributes
    ----------
    dominant : int
        Tokens chosen by class attention, the class token among them.
    contextual : int
        Means of the others.
    """

    dominant: int
    contextual: int

    @classmethod
    def of(cls, kept: int) -> Budget:
        """Split a number of tokens as the paper does, 10 in 64 contextual.

        Examples
        --------
        >>> [Budget.of(kept) for kept in (64, 192)]
        [Budget(dominant=54, contextual=10), Budget(dominant=162, contextual=30)]
        """
        contextual = round(kept * 10 / 64)
        return cls(kept - contextual, contextual)

    def targets(self, tokens: int) -> list[int]:
        """Positions of the targets among the tokens that are not dominant, of `tokens` in all.

        Raises
        ------
        ValueError
            If there are too few tokens, or nothing to keep.
        """
        rest = tokens - self.dominant
        if self.dominant < 1 or self.contextual < 0 or self.contextual > rest:
            raise ValueError(
                f"kept: {self.dominant} dominant and {self.contextual} contextual tokens"
                f" do not fit into {tokens}"
            )
        if not self.contextual:
            return []
        return list(range(0, rest, max(1, rest // self.contextual)))[: self.contextual]


def class_saliency(attention: Tensor) -> Tensor:
    """Attention of the class token to each patch, summed over heads.

    Parameters
    ----------
    attention : Tensor
        Weights of one layer, shape (images, heads, N, N), class token first.

    Returns
    -------
    Tensor
        Shape (images, N - 1).
    """
    return attention[:, :, 0, 1:].sum(1)


def zip_tokens(hidden: Tensor, attention: Tensor, keys: Tensor, budget: Budget) -> Tensor:
    """Compress the tokens of each image, step by step as released.

    Parameters
    ----------
    hidden : Tensor
        Output of the layer, shape (images, N, c), class token first.
    attention : Tensor
        Its attention weights, shape (images, heads, N, N).
    keys : Tensor
        Its keys, shape (images, heads, N, h).
    budget : Budget
        Tokens to keep.

    Returns
    -------
    Tensor
        Shape (images, D + C, c): dominant tokens by position, then contextual ones.

    Raises
    ------
    ValueError
        If the budget does not fit.
    """
    images, count, width = hidden.shape
    budget.targets(count)
    metric = keys.mean(1)
    chosen = class_saliency(attention).topk(budget.dominant - 1, dim=1).indices + 1
    chosen = torch.cat([chosen.new_zeros(images, 1), chosen], dim=1)
    other = torch.ones_like(hidden[:, :, 0], dtype=torch.bool).scatter_(1, chosen, False)
    dominant = hidden.masked_select(~other[..., None]).view(images, budget.dominant, width)
    if not budget.contextual:
        return dominant
    rest = count - budget.dominant
    metric = metric[other].view(images, rest, -1)
    hidden = hidden.masked_select(other[..., None]).view(images, rest, width)
    unit = metric / metric.norm(dim=-1, keepdim=True)
    step = max(1, rest // budget.contextual)
    targets = torch.arange(0, rest, step, device=hidden.device)[: budget.contextual]
    target_unit = unit[:, targets]
    moving_unit = unit[:, ~torch.isin(torch.arange(rest, device=hidden.device), targets)]
    assigned = _assign(moving_unit, target_unit, hidden.dtype)
    moving = hidden[:, ~torch.isin(torch.arange(rest, device=hidden.device), targets)]
    return torch.cat([dominant, _add_means(hidden[:, targets], assigned, moving)], dim=1)


def _assign(moving: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """One-hot of the most similar target of each moving token, shape (images, R, C)."""
    similarity = torch.bmm(moving, targets.transpose(1, 2))
    assigned = torch.zeros_like(similarity, dtype=dtype)
    return assigned.scatter_(2, similarity.argmax(dim=2)[..., None], 1)


def _add_means(targets: Tensor, assigned: Tensor, moving: Tensor) -> Tensor:
    counts = assigned.sum(dim=1).clamp(min=1)[..., None]
    return targets + torch.bmm(assigned.transpose(1, 2), moving) / counts


class FusedZip:
    """The same compression without host waits.

    One stable sort puts the tokens that are not dominant first and the dominant ones last, both by
    position; where targets stand among the former is known beforehand.

    Parameters
    ----------
    tokens : int
        Tokens of an image, with the class token (N).
    budget : Budget
        Tokens to keep.
    device : str
        Where indices live.

    Raises
    ------
    ValueError
        If the budget does not fit.
    """

    def __init__(self, tokens: int, budget: Budget, device: str = "cpu") -> None:
        targets = budget.targets(tokens)
        moving = sorted(set(range(tokens - budget.dominant)) - set(targets))
        self.budget = budget
        self.places = torch.arange(tokens, device=device)
        self.places[0] = tokens
        self.targets = torch.tensor(targets, dtype=torch.long, device=device)
        self.moving = torch.tensor(moving, dtype=torch.long, device=device)

    def __call__(self, hidden: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
        """Compress tokens; arguments and result as in `zip_tokens`."""
        images, count, width = hidden.shape
        chosen = class_saliency(attention).topk(self.budget.dominant - 1, dim=1).indices + 1
        places = self.places.expand(images, -1).scatter(1, chosen, count)
        order = places.argsort(dim=1, stable=True)[..., None]
        rest = count - self.budget.dominant
        dominant = hidden.gather(1, order[:, rest:].expand(-1, -1, width))
        if not self.budget.contextual:
            return dominant
        metric = keys.mean(1)
        unit = metric / metric.norm(dim=-1, keepdim=True)
        targets, moving = order[:, self.targets], order[:, self.moving]

        def pick(values: Tensor, which: Tensor) -> Tensor:
            return values.gather(1, which.expand(-1, -1, values.shape[2]))

        assigned = _assign(pick(unit, moving), pick(unit, targets), hidden.dtype)
        merged = _add_means(pick(hidden, targets), assigned, pick(hidden, moving))
        return torch.cat([dominant, merged], dim=1)


def _build(case: MethodCase) -> Prepared:
    contextual = case.params["contextual"]
    budget = Budget.of(case.kept)
    if contextual is not None:
        budget = Budget(case.kept - int(contextual), int(contextual))
    heads, count = int(case.params["heads"]), case.tokens + 1
    if case.width % heads:
        raise ValueError(f"heads: {heads} do not divide the width {case.width}")
    budget.targets(count)
    hidden = random_values(case, count, case.width)
    keys = random_values(case, heads, count, case.width // heads, stream=1)
    attention = random_values(case, heads, count, count, stream=2).softmax(-1)
    if case.variant == "fused":
        fused = FusedZip(count, budget, case.device)
        return Prepared(lambda: fused(hidden, attention, keys), case.kept, graph_safe=True)
    return Prepared(lambda: zip_tokens(hidden, attention, keys, budget), case.kept)


METHOD = ReferenceMethod(
    name="visionzip",
    summary="Keeps the patches with most class attention and merges the rest by similar keys.",
    variants=("released", "fused"),
    build=_build,
    params={"heads": 16, "contextual": None},
)
