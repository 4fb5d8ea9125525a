"""k-means++ and Lloyd on all images and restarts at once, without waiting for the device.

Shapes follow from sizes alone and nothing is read back, so that a CUDA graph can capture the
whole and ``torch.compile`` sees one graph.  b images, r restarts, n points, k clusters, j
candidates per centre, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .compiling import compile_each_shape

__all__ = ["kmeans_images"]


def kmeans_images(
    points: Tensor,
    clusters: int,
    *,
    iterations: int,
    uniform: Tensor,
    by_position: bool = False,
    compiled: bool = False,
) -> Tensor:
    """Cluster the points of every image; the algorithm is that of `kmeans_eager.kmeans_image`.

    Parameters
    ----------
    points : Tensor
        Shape (b, n, d).
    clusters : int
        Clusters of each image (k), at most n.
    iterations : int
        Lloyd iterations; with 0 the means are the points that k-means++ chose.
    uniform : Tensor
        Random numbers in [0, 1), shape (b, r, k, j), fp32.
    by_position : bool
        Order clusters by the mean position of their points instead of as they were chosen.
    compiled : bool
        Whether ``torch.compile`` fuses the kernels of a seeding step and of an iteration.  Whole,
        the loop over centres would unroll into thousands of nodes.

    Returns
    -------
    Tensor
        Means, shape (b, k, d), in the format of the points.
    """
    norms = _square_norms(points)
    problems = points.shape[0] * uniform.shape[1]
    wide = points.float()[:, None].expand(-1, uniform.shape[1], -1, -1).flatten(0, 2)
    ones = wide.new_ones(len(wide))
    first = torch.arange(0, problems * clusters, clusters, device=points.device)
    first = first.view(points.shape[0], uniform.shape[1], 1)
    seed_step = _compiled(_seed_step) if compiled else _seed_step
    lloyd_step = _compiled(_lloyd_step) if compiled else _lloyd_step
    drawn = (uniform[:, :, 0, :1] * points.shape[1]).long()
    nearest = _distances(points, norms, drawn)[:, :, 0]
    steps = [drawn]
    for number in range(1, clusters):
        nearest, drawn = seed_step(points, norms, nearest, uniform[:, :, number])
        steps.append(drawn)
    chosen = torch.cat(steps, 2)
    centres, places = _pick(points, chosen), chosen
    for _ in range(iterations):
        centres, counts, nearest, labels = lloyd_step(points, wide, ones, first, centres)
    if by_position:
        if iterations:
            places = _positions(labels, counts)
        order = places.argsort(2)[..., None]
        centres = centres.gather(2, order.expand_as(centres))
    if centres.shape[1] == 1:
        return centres[:, 0]
    best = nearest.sum(2).argmin(1)[:, None, None, None]
    return centres.gather(1, best.expand(-1, 1, *centres.shape[2:]))[:, 0]


@cache
def _compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    return compile_each_shape(step, fullgraph=True)


def _square_norms(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32).square()


def _pick(points: Tensor, chosen: Tensor) -> Tensor:
    """Points (b, n, d) at indices (b, r, j): shape (b, r, j, d)."""
    indices = chosen.flatten(1)[..., None].expand(-1, -1, points.shape[2])
    return points.gather(1, indices).unflatten(1, chosen.shape[1:])


def _products(points: Tensor, centres: Tensor) -> Tensor:
    """Scalar products of centres (b, r, k, d) and points (b, n, d): shape (b, r, k, n)."""
    found = torch.bmm(centres.flatten(1, 2), points.transpose(1, 2))
    return found.unflatten(1, centres.shape[1:3])


def _distances(points: Tensor, norms: Tensor, drawn: Tensor) -> Tensor:
    """Squared distances of all points to those drawn (b, r, j): shape (b, r, j, n)."""
    products = _products(points, _pick(points, drawn))
    drawn_norms = norms.gather(1, drawn.flatten(1)).view_as(drawn)[..., None]
    found = torch.sub(drawn_norms, products, alpha=2).add_(norms[:, None, None]).clamp_(min=0)
    # Rounding must not leave a chosen point a chance to be chosen again.
    return found.scatter_(3, drawn[..., None], 0)


def _seed_step(
    points: Tensor, norms: Tensor, nearest: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose one more centre of every problem; `nearest` is (b, r, n), `uniform` (b, r, j)."""
    cumulative = nearest.cumsum(2)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[..., -1:])
    closer = torch.minimum(nearest[:, :, None], _distances(points, norms, drawn))
    if drawn.shape[2] > 1:
        best = closer.sum(3).argmin(2, keepdim=True)
        drawn = drawn.gather(2, best)
        closer = closer.gather(2, best[..., None].expand(-1, -1, -1, closer.shape[3]))
    return closer[:, :, 0], drawn


def _lloyd_step(
    points: Tensor, wide: Tensor, ones: Tensor, first: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One iteration; `wide` (b r n, d) and `first` (b, r, 1), each problem's first cluster of all.

    Returns means, points per cluster, and each point's distance less its norm and its cluster.
    """
    scores = torch.sub(_square_norms(centres)[..., None], _products(points, centres), alpha=2)
    least, labels = scores.min(2)
    # Whole rows are added, which is ten times as fast on a processor as a scatter of numbers.
    rows = (labels + first).flatten()
    sums = torch.zeros_like(centres, dtype=torch.float32)
    sums = sums.flatten(0, 2).index_add_(0, rows, wide).view_as(centres)
    counts = ones.new_zeros(centres.shape[:3])
    counts = counts.flatten().index_add_(0, rows, ones).view_as(counts)
    means = torch.where(counts[..., None] > 0, sums / counts[..., None], centres)
    return means.to(points.dtype), counts, least, labels


def _positions(labels: Tensor, counts: Tensor) -> Tensor:
    """Mean position of each cluster's points; NaN, which sorts last, for an empty cluster."""
    places = torch.arange(labels.shape[2], dtype=counts.dtype, device=counts.device)
    return torch.zeros_like(counts).scatter_add_(2, labels, places.expand_as(labels)) / counts
