"""Device memory: weights, KV cache, peak activations; what fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sympy import Expr

from costmodel.evaluation import FloatArray, evaluate, evaluate_expressions, resolve
from costmodel.ops import ZERO
from costmodel.program import PHASES, Program
from costmodel.specs.workload import MAX_BATCH
from costmodel.symbols import sym

__all__ = ["Memory", "largest_batch", "memory"]


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, as arrays over points.

    Attributes
    ----------
    weights, kv_cache, activations_peak : ndarray
        Parts, each at its largest [B].  The CUDA context, workspaces of libraries,
        allocator slack and a serving engine's reserves are not counted.
    beside_weights : ndarray
        Most of cache and activations at once [B]; less than their sum where activations are most
        before there is a cache.
    kv_cache_groups : tuple of (int, ndarray)
        Layers and bytes of each decoder group.
    peak_op : str
        Operator at which activations peak at the first point.
    """

    weights: FloatArray
    kv_cache: FloatArray
    activations_peak: FloatArray
    beside_weights: FloatArray
    kv_cache_groups: tuple[tuple[int, FloatArray], ...]
    peak_op: str

    @property
    def total(self) -> FloatArray:
        """Weights, and the most that exists beside them [B]."""
        return self.weights + self.beside_weights


def weight_bytes(program: Program) -> Expr:
    """Return the bytes of all parameters on one device as an expression [B]."""
    return sum(
        (
            item.count / item.shards * (sym("bw") if item.linear else sym("bo"))
            for item in program.weights
        ),
        start=ZERO,
    )


def memory(program: Program, **overrides: Any) -> Memory:
    r"""Evaluate the memory of a program.

    Activations count beside the full KV cache, over all operators of prefill and of decode, but for
    stages that are done before there is one:

    .. math:: M = W + \max\Bigl(C + \max_\mathrm{others} \mathrm{live},\;
              \max_\mathrm{before} \mathrm{live}\Bigr)

    Parameters
    ----------
    program : Program
        The program.
    **overrides : float or array_like
        Symbol values, as in `costmodel.evaluation.evaluate`.

    Returns
    -------
    Memory
    """
    passes = [evaluate(program, phase, **overrides) for phase in PHASES]
    live = np.concatenate([evaluation.live for evaluation in passes])
    points = np.broadcast_shapes(*(evaluation.points for evaluation in passes))
    groups = [group.bytes for group in program.cache]
    results = evaluate_expressions(
        [weight_bytes(program), *groups], resolve(program, "prefill", overrides)
    )
    weights, *per_group = (np.broadcast_to(row, points) for row in results)
    cache: FloatArray = np.sum(per_group, axis=0)
    ops = [op for evaluation in passes for op in evaluation.ops]
    early = np.array([op.stage in program.before_cache for op in ops])
    beside: FloatArray = cache + live[~early].max(axis=0)
    if early.any():
        beside = np.maximum(beside, live[early].max(axis=0))
    return Memory(
        weights=weights,
        kv_cache=cache,
        activations_peak=live.max(axis=0),
        beside_weights=beside,
        kv_cache_groups=tuple(
            (group.layers, row) for group, row in zip(program.cache, per_group, strict=True)
        ),
        peak_op=ops[int(live.reshape(len(ops), -1)[:, 0].argmax())].name,
    )


def largest_batch(program: Program, capacity_bytes: float) -> int:
    """Return the largest batch whose weights, cache and activations fit.

    Parameters
    ----------
    program : Program
        The program; its own batch does not matter.
    capacity_bytes : float
        Memory of one device [B].

    Returns
    -------
    int
        0 if not even one request fits; at most `MAX_BATCH`.
    """
    low, high = 0, MAX_BATCH
    while low < high:
        # Memory grows with the batch: each round narrows the bracket a thousandfold.
        tried = np.unique(np.linspace(low + 1, high, 1001).astype(np.int64))
        fits = memory(program, b=tried).total <= capacity_bytes
        best = int(tried[fits][-1]) if fits.any() else low
        following = tried[tried > best]
        low, high = best, int(following[0]) - 1 if following.size else best
    return low
