"""What a clustering adds to a prefill, and what its fewer tokens save, with ranges of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.evaluation import FloatArray
from costmodel.studies.prefill import Prefill, prefill

__all__ = ["ClusteringCost", "clustering_cost"]


@dataclass(frozen=True)
class ClusteringCost:
    """Overhead of a clustering against what its tokens save, at every point.

    Attributes
    ----------
    overhead_s, overhead_low_s, overhead_high_s : ndarray
        Its own operators and host time.  The range takes its kernels at their 90 % band for any
        lab and software, and a launch at the ends of what sources say of it [s].
    saved_s, saved_low_s, saved_high_s : ndarray
        What taking as many tokens by index would save.  The range scales it by the band of the
        time without compression, whose kernels it rests on [s].
    ttft_s, plain_ttft_s : ndarray
        Time to the first token with the clustering and without compression [s].
    """

    overhead_s: FloatArray
    overhead_low_s: FloatArray
    overhead_high_s: FloatArray
    saved_s: FloatArray
    saved_low_s: FloatArray
    saved_high_s: FloatArray
    ttft_s: FloatArray
    plain_ttft_s: FloatArray

    @property
    def share(self) -> FloatArray:
        """Overhead over saving; above 1, or where nothing is saved, clustering loses."""
        with np.errstate(divide="ignore"):
            return np.where(self.saved_s > 0, self.overhead_s / self.saved_s, np.inf)

    @property
    def pays(self) -> FloatArray:
        """1 where it pays over both ranges, -1 where it does not, 0 where they overlap."""
        sure = self.overhead_high_s < self.saved_low_s
        never = self.overhead_low_s > self.saved_high_s
        return np.where(sure, 1, np.where(never, -1, 0))


def clustering_cost(
    model: str,
    gpu: str,
    *,
    impl: str,
    position: str = "after_projector",
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
    kept: Any = 64,
    batch: Any = 1,
    iterations: Any = 10,
    restarts: Any = 1,
) -> ClusteringCost:
    """Evaluate Cluster & Aggregate over arrays of settings.

    The convergence test is off, so that `iterations` is what runs.

    Parameters
    ----------
    model, gpu, runtime : str
        Names.
    impl, position : str
        Of the method ``cluster``.
    text_tokens : int
        Prompt tokens that are not visual.
    kept, batch, iterations, restarts : array_like of int
        Clusters, requests, Lloyd iterations and n_init, broadcast against each other.

    Returns
    -------
    ClusteringCost

    Examples
    --------
    >>> found = clustering_cost("llava-1.5-7b", "a100-80gb-sxm", impl="eager", kept=[20, 144])
    >>> found.share[0] < 1 < found.share[1]
    np.True_
    """
    place = "" if position == "after_projector" else f",position={position}"
    asked = _Question(model, gpu, runtime, text_tokens)
    count, requests = np.asarray(kept, dtype=float), np.asarray(batch, dtype=float)
    # scikit-learn draws 2 + floor(ln k) candidates for a centre, the others one.
    trials = 2 + np.floor(np.log(count)) if impl == "sklearn" else np.ones_like(count)
    clustered = prefill(
        asked.case(f"cluster:k=64,impl={impl},check=false{place}"),
        k=count, J=trials, I=iterations, R=restarts, batch=requests,
    )  # fmt: skip
    free = _cached(asked, f"spatial:k=64{place}", _points(k=count, batch=requests))
    plain = _cached(asked, None, _points(batch=requests))
    overhead = clustered.ttft_s - free.ttft_s
    low, high = _own_range(clustered)
    before, saved = plain.ttft_s, plain.ttft_s - free.ttft_s
    ends = plain.bands.get("any_stack", (before, before))
    arrays = np.broadcast_arrays(
        overhead, overhead - low, overhead + high, saved, saved * ends[0] / before,
        saved * ends[1] / before, clustered.ttft_s, before,
    )  # fmt: skip
    return ClusteringCost(*arrays)


@dataclass(frozen=True)
class _Question:
    model: str
    gpu: str
    runtime: str
    text_tokens: int

    def case(self, compress: str | None) -> Case:
        return prepare(
            self.model, self.gpu, text_tokens=self.text_tokens, runtime=self.runtime,
            attention="flash", compress=compress,
        )  # fmt: skip


_Points = tuple[tuple[str, tuple[int, ...], tuple[float, ...]], ...]


def _points(**axes: FloatArray) -> _Points:
    return tuple((name, axis.shape, tuple(axis.ravel().tolist())) for name, axis in axes.items())


@lru_cache(maxsize=256)
def _cached(asked: _Question, compress: str | None, points: _Points) -> Prefill:
    """The same tokens without clustering, which all implementations are compared with."""
    axes = {name: np.array(values).reshape(shape) for name, shape, values in points}
    return prefill(asked.case(compress), **axes)


def _own_range(clustered: Prefill) -> tuple[FloatArray, FloatArray]:
    """How much less and how much more the method's own stage may take [s]."""
    stage = "compression"
    low, high = clustered.stage_band(stage)
    least, most = (clustered.with_launch(end)[stage] for end in ("low", "high"))
    gpu, host = clustered.gpu_s[stage], clustered.host_s[stage]
    return gpu - low + host - least, high - gpu + most - host
