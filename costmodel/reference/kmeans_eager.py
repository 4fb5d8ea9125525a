"""k-means++ and Lloyd on one image at a time, as a loop of torch kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Clusters", "kmeans_image"]


@dataclass(frozen=True)
class Clusters:
    """Clusters of one image.

    Attributes
    ----------
    means : Tensor
        Shape (clusters, width), in the format of the points.
    iterations : int
        Lloyd iterations that ran, all restarts together.
    """

    means: Tensor
    iterations: int


def kmeans_image(
    points: Tensor,
    clusters: int,
    *,
    iterations: int,
    uniform: Tensor,
    tolerance: float | None = None,
    by_position: bool = False,
) -> Clusters:
    r"""Cluster the points of one image.

    Distances cost ``2 n d`` FLOP per point and centre: :math:`|c|^2 - 2 c \cdot x` is one matrix
    product in the format of the points; norms, minima and sums are in fp32.  A cluster that
    becomes empty keeps its centre.

    Parameters
    ----------
    points : Tensor
        Shape (n, d).
    clusters : int
        Number of clusters, at most n.
    iterations : int
        Lloyd iterations, at most; with 0 the means are the points that k-means++ chose.
    uniform : Tensor
        Random numbers in [0, 1), shape (restarts, clusters, candidates per centre), fp32.  The
        restart whose last assignment had the least inertia wins.
    tolerance : float, optional
        Stop once the centres' squared movement is at most this share of the points' mean variance;
        the host waits for the device in every iteration.  Left out, all iterations run.
    by_position : bool
        Order clusters by the mean position of their points instead of as they were chosen.

    Returns
    -------
    Clusters

    References
    ----------
    .. [1] D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
    .. [2] S. Lloyd, "Least squares quantization in PCM", 1982.
    .. [3] scikit-learn, ``KMeans``: greedy seeding and the meaning of `tolerance`.
    """
    norms = _square_norms(points)
    wide = points.float()
    ones = torch.ones_like(norms)
    limit = None if tolerance is None else _movement_limit(wide, tolerance)
    runs, total = [], 0
    for draws in uniform:
        chosen, nearest = _seed(points, norms, clusters, draws)
        centres, places = points.index_select(0, chosen), chosen
        for _ in range(iterations):
            means, counts, nearest, labels = _lloyd(points, wide, ones, centres)
            total += 1
            settled = limit is not None and float(_distance(means, centres)) <= limit
            centres = means
            if settled:
                break
        if by_position:
            if iterations:
                places = _positions(labels, counts)
            centres = centres.index_select(0, places.argsort())
        runs.append((centres, nearest))
    return Clusters(_best(runs), total)


def _square_norms(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float32).square()


def _distance(first: Tensor, second: Tensor) -> Tensor:
    return torch.linalg.vector_norm(first - second, dtype=torch.float32)


def _movement_limit(wide: Tensor, tolerance: float) -> float:
    # A variance along tokens is a strided loop on processors; a mean and a norm are not.
    spread = torch.linalg.vector_norm(wide - wide.mean(0))
    return math.sqrt(tolerance / wide.numel()) * float(spread)


def _seed(points: Tensor, norms: Tensor, clusters: int, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Choose centres by k-means++; returns their indices and each point's distance to them."""
    drawn = (uniform[0, :1] * len(points)).long()
    chosen = [drawn]
    nearest = _distances(points, norms, drawn)[0]
    for number in range(1, clusters):
        cumulative = nearest.cumsum(0)
        drawn = torch.searchsorted(cumulative, uniform[number] * cumulative[-1])
        closer = torch.minimum(nearest, _distances(points, norms, drawn))
        if len(drawn) > 1:
            best = closer.sum(1).argmin(0, keepdim=True)
            closer, drawn = closer.index_select(0, best), drawn.index_select(0, best)
        nearest = closer[0]
        chosen.append(drawn)
    return torch.cat(chosen), nearest


def _distances(points: Tensor, norms: Tensor, drawn: Tensor) -> Tensor:
    """Squared distances of all points to those drawn, shape (drawn, n)."""
    products = points.index_select(0, drawn) @ points.T
    found = torch.sub(norms.index_select(0, drawn)[:, None], products, alpha=2)
    found = found.add_(norms).clamp_(min=0)
    # Rounding must not leave a chosen point a chance to be chosen again.
    return found.scatter_(1, drawn[:, None], 0)


def _lloyd(
    points: Tensor, wide: Tensor, ones: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One iteration.

    Returns means, points per cluster, and each point's distance less its norm and its cluster.
    """
    scores = torch.sub(_square_norms(centres)[:, None], centres @ points.T, alpha=2)
    least, labels = scores.min(0)
    sums = torch.zeros_like(centres, dtype=torch.float32).index_add_(0, labels, wide)
    counts = ones.new_zeros(len(centres)).index_add_(0, labels, ones)[:, None]
    means = torch.where(counts > 0, sums / counts, centres).to(points.dtype)
    return means, counts[:, 0], least, labels


def _positions(labels: Tensor, counts: Tensor) -> Tensor:
    """Mean position of each cluster's points; NaN, which sorts last, for an empty cluster."""
    places = torch.arange(len(labels), dtype=counts.dtype, device=counts.device)
    return torch.zeros_like(counts).index_add_(0, labels, places) / counts


def _best(runs: list[tuple[Tensor, Tensor]]) -> Tensor:
    if len(runs) == 1:
        return runs[0][0]
    inertia = torch.stack([nearest for _, nearest in runs]).sum(1)
    best = inertia.argmin(0, keepdim=True)
    return torch.stack([means for means, _ in runs]).index_select(0, best)[0]
