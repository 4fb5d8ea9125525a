"""Random inputs of PruMerge whose class attention has as many outliers as a case asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .method import MethodCase
from .modules import random_values

__all__ = ["LayerOutputs", "check_outliers", "most_outliers", "planted_outputs"]

PROMINENCE = 4.0
"""Scores of outliers above those of the others, which spread over one unit."""


@dataclass(frozen=True)
class LayerOutputs:
    """What the vision tower gives to the method.

    Attributes
    ----------
    features : Tensor
        Patches, shape (images, n, c).
    queries, keys : Tensor
        Of the layer whose attention is computed again, all heads joined, shape
        (images, 1 + n, c), class token first.
    """

    features: Tensor
    queries: Tensor
    keys: Tensor


def most_outliers(tokens: int) -> int:
    """Return how many tokens can stand out: those of the upper quarter would be its bound.

    Examples
    --------
    >>> most_outliers(576)
    142
    """
    return (tokens - 1) // 4 - 1


def check_outliers(tokens: int, stay: int) -> None:
    """Check that the rule of outliers can keep `stay` of `tokens`.

    Raises
    ------
    ValueError
        If they would reach into the upper quarter, or if ``int(tokens * (stay / tokens))``, as the
        released code rounds, is one less.

    Examples
    --------
    >>> check_outliers(729, 16)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: kept: 16 of 729 tokens cannot be outliers: ...
    """
    if stay > most_outliers(tokens) or int(tokens * (stay / tokens)) != stay:
        raise ValueError(
            f"kept: {stay} of {tokens} tokens cannot be outliers: they are at most"
            f" {most_outliers(tokens)}, and some numbers are rounded down"
        )


def planted_outputs(case: MethodCase, outliers: Sequence[int] | NDArray[np.int64]) -> LayerOutputs:
    """Return random outputs of a layer in which exactly the given patches are outliers.

    The keys of all patches are moved along the class token's query until their scores are evenly
    spaced over one unit, in random order, and those of the outliers four units higher.

    Parameters
    ----------
    case : MethodCase
        Sizes, format and seed.
    outliers : sequence of int
        Patches, the same in every image.
    """
    count, width = case.tokens, case.width
    queries = random_values(case, count + 1, width, stream=1).float()
    keys = random_values(case, count + 1, width, stream=2).float()
    scores = random_values(case, count, stream=3).float().argsort(dim=1).float() / count
    scores[:, torch.as_tensor(np.asarray(outliers, dtype=np.int64), device=case.device)] += (
        PROMINENCE
    )
    query, patches = queries[:, :1], keys[:, 1:]
    found = (patches * query).sum(-1) * width**-0.5
    step = (scores - found) * width**0.5 / query.square().sum(-1)
    keys[:, 1:] = patches + step[..., None] * query
    features = random_values(case, count, width)
    return LayerOutputs(features, queries.to(case.torch_dtype), keys.to(case.torch_dtype))
