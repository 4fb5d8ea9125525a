"""Cluster & Aggregate: k-means over the visual tokens, each cluster replaced by its mean."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..kmeans_eager import kmeans_image
from ..kmeans_fused import kmeans_images
from .method import MethodCase, Prepared, ReferenceMethod, random_tokens

__all__ = ["METHOD", "VARIANTS", "cluster_means", "default_trials"]

VARIANTS = ("eager", "fused", "compiled", "sklearn")
"""``eager``: image by image, a loop of torch kernels; ``fused``: all images at once, no host
synchronisation; ``compiled``: the same with its steps compiled; ``sklearn``: on the CPU."""

_DEFAULTS: dict[str, Any] = {
    "iterations": 10,
    "n_init": 1,
    "init_trials": None,
    "order": "insertion",
    "check": None,
    "tolerance": 1e-4,
    "distances": "input",
}


def default_trials(variant: str, kept: int) -> int:
    """Candidates per k-means++ centre: scikit-learn's rule for ``sklearn``, otherwise one."""
    return 2 + math.floor(math.log(kept)) if variant == "sklearn" else 1


def cluster_means(
    tokens: Tensor,
    kept: int,
    *,
    variant: str = "eager",
    iterations: int = 10,
    n_init: int = 1,
    init_trials: int | None = None,
    order: str = "insertion",
    check: bool | None = None,
    tolerance: float = 1e-4,
    distances: str = "input",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cluster the tokens of each image and return the mean of every cluster.

    Parameters
    ----------
    tokens : Tensor
        Shape (images, tokens, width).
    kept : int
        Clusters per image.
    variant : {"eager", "fused", "compiled", "sklearn"}
        Implementation.
    iterations : int
        Lloyd iterations, at most.
    n_init : int
        Restarts; the best is kept.
    init_trials : int, optional
        Candidates per k-means++ centre (`default_trials` if left out).
    order : {"insertion", "position"}
        Clusters as they were chosen, or by the mean position of their tokens.
    check : bool, optional
        Whether each iteration tests convergence, for which the host waits; by default ``eager``
        does.  scikit-learn always stops once no token changes its cluster.
    tolerance : float
        Squared movement of all centres, as a share of the tokens' mean variance, that counts as
        converged.
    distances : {"input", "fp32"}
        Format of the distance products; with ``"fp32"`` tokens are cast first.  In fp16 the
        product of two tokens must not exceed 65504.
    generator : torch.Generator, optional
        On the device of `tokens`; torch's own if left out.

    Returns
    -------
    Tensor
        Shape (images, kept, width), in the format of `tokens`; sums are accumulated in fp32.

    Raises
    ------
    ValueError
        If a parameter has none of its values, or `check` is asked of a variant that never waits.

    References
    ----------
    .. [1] Y. Omri et al., "Token Sequence Compression for Efficient Multimodal Computing",
       arXiv:2504.17892 (iterations, restarts, format and library are not published).
    """
    trials = default_trials(variant, kept) if init_trials is None else init_trials
    check = variant in {"eager", "sklearn"} if check is None else check
    _validate(variant, iterations, n_init, trials, order, check, distances)
    if tolerance < 0:
        raise ValueError(f"tolerance: {tolerance} is negative")
    by_position = order == "position"
    if variant == "sklearn":
        return _on_host(
            tokens, kept, iterations, n_init, trials, tolerance if check else 0.0, by_position,
            generator,
        )  # fmt: skip
    points = tokens.float() if distances == "fp32" else tokens
    uniform = torch.rand(
        (len(tokens), n_init, kept, trials), generator=generator, device=tokens.device
    )
    if variant == "eager":
        found = [
            kmeans_image(
                image, kept, iterations=iterations, uniform=draws,
                tolerance=tolerance if check else None, by_position=by_position,
            ).means
            for image, draws in zip(points, uniform, strict=True)
        ]  # fmt: skip
        return torch.stack(found).to(tokens.dtype)
    means = kmeans_images(
        points, kept, iterations=iterations, uniform=uniform, by_position=by_position,
        compiled=variant == "compiled",
    )  # fmt: skip
    return means.to(tokens.dtype)


def _validate(
    variant: str, iterations: int, n_init: int, trials: int, order: str, check: bool, distances: str
) -> None:
    choices = {
        "variant": (variant, VARIANTS),
        "order": (order, ("insertion", "position")),
        "distances": (distances, ("input", "fp32")),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(known)}")
    least = {
        "iterations": (iterations, int(variant == "sklearn")),
        "n_init": (n_init, 1),
        "init_trials": (trials, 1),
    }
    for name, (number, bound) in least.items():
        if number < bound:
            raise ValueError(f"{name}: {number} is not at least {bound}")
    if check and variant in {"fused", "compiled"}:
        raise ValueError(f"check: variant {variant!r} never waits for the device, only eager does")


def _on_host(
    tokens: Tensor, kept: int, iterations: int, n_init: int, trials: int, tolerance: float,
    by_position: bool, generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """Cluster with scikit-learn: tokens are copied to the host, means back."""
    import numpy as np
    from sklearn.cluster import KMeans, kmeans_plusplus

    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=tokens.device))
    random = np.random.RandomState(seed)

    def init(points: Any, clusters: int, random_state: Any) -> Any:
        return kmeans_plusplus(
            points, clusters, random_state=random_state, n_local_trials=trials
        )[0]  # fmt: skip

    found = []
    for points in tokens.float().cpu().numpy():
        fitted = KMeans(
            kept, init=init, n_init=n_init, max_iter=iterations, tol=tolerance,
            random_state=random, algorithm="lloyd",
        ).fit(points)  # fmt: skip
        means = fitted.cluster_centers_
        if by_position:
            sums = np.bincount(fitted.labels_, weights=np.arange(len(points)), minlength=kept)
            counts = np.bincount(fitted.labels_, minlength=kept)
            means = means[np.argsort(sums / np.maximum(counts, 1))]
        found.append(torch.from_numpy(means))
    return torch.stack(found).to(device=tokens.device, dtype=tokens.dtype)


def _build(case: MethodCase) -> Prepared:
    tokens = random_tokens(case)
    params = dict(case.params)

    def run() -> Tensor:
        return cluster_means(tokens, case.kept, variant=case.variant, **params)

    return Prepared(
        run=run,
        output_tokens=case.kept,
        graph_safe=case.variant in {"fused", "compiled"},
    )


METHOD = ReferenceMethod(
    name="cluster",
    summary="k-means++ and Lloyd over the visual tokens; k cluster means enter the model.",
    variants=VARIANTS,
    build=_build,
    params=_DEFAULTS,
)
