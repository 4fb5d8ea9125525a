"""What tiled attention kernels share: tiles, visible key blocks, splits, cache residency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from costmodel.timing.kernels.base import FloatArray, Parameter

__all__ = [
    "PEAK_SHARE_LIMIT",
    "SCHEDULED_BATCH",
    "TILE_PARAMETERS",
    "best_splits",
    "cache_factor",
    "causal_blocks",
    "dynamic_splits",
    "padded_head_dim",
    "tiles",
]

PEAK_SHARE_LIMIT = 1.05
"""Largest share of the datasheet peak, which boost clocks can exceed a little."""

_CLASSES = (64, 128, 256)
_RESIDENCY_POWER = 12.0
# FlashAttention fills at least this share of the slots before it splits, and accepts a number
# of splits that fills 85 % as well as the best one.
_BUSY = 0.8
_NEARLY_BEST = 0.85
_MOST_SPLITS = 128
_UNSPLIT_BLOCKS = 4.0
_IMBALANCE = 1.1
SCHEDULED_BATCH = 992.0
"""Largest batch of which FlashAttention-3 chooses splits per sequence."""

TILE_PARAMETERS = (
    *(
        Parameter(f"bq{size}", 16, 256, 64, "1", f"query rows of a tile, head dim to {size}")
        for size in _CLASSES
    ),
    *(
        Parameter(f"bk{size}", 16, 256, 64, "1", f"keys of a tile, head dim to {size}")
        for size in _CLASSES
    ),
    Parameter("pow2", 0, 1, 0, "1", "1: head dim padded to a power of two, 0: to 32"),
)
"""Properties of a software generation: fixed, never fitted."""


def padded_head_dim(head_dim: FloatArray, power_of_two: bool) -> FloatArray:
    """Return the head dim a kernel computes with.

    Examples
    --------
    >>> padded_head_dim(np.array([64.0, 72.0, 80.0, 192.0]), False).tolist()
    [64.0, 96.0, 96.0, 192.0]
    """
    padded = 2 ** np.ceil(np.log2(head_dim)) if power_of_two else 32 * np.ceil(head_dim / 32)
    return np.asarray(padded, dtype=np.float64)


def tiles(values: Mapping[str, float], padded: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return query rows and keys of a tile for each padded head dim."""
    index = np.minimum(np.searchsorted(_CLASSES, padded), len(_CLASSES) - 1)
    rows, keys = (
        np.array([values[f"{name}{size}"] for size in _CLASSES])[index] for name in ("bq", "bk")
    )
    return rows, keys


def causal_blocks(
    q_len: FloatArray, kv_len: FloatArray, rows: FloatArray, keys: FloatArray, group: FloatArray
) -> tuple[FloatArray, FloatArray]:
    r"""Count row blocks and the key blocks that a causal mask leaves them, exactly.

    Row block i ends with packed row :math:`\min((i+1) b_q, q g)`, so that it sees

    .. math:: n_i = \left\lceil \frac{(k - q) g + \min((i + 1) b_q, q g)}{g\,b_k}\right\rceil

    key blocks.  These grow by a constant from one block to that a period later, so that
    the sum is one arithmetic series for each phase of the period.

    Parameters
    ----------
    q_len, kv_len : ndarray
        Queries q and keys k of a sequence, of which the last q are the queries' own.
    rows, keys : ndarray
        Tile :math:`b_q \times b_k`.
    group : ndarray
        Query heads g whose rows share a tile; 1 unless packed.

    Returns
    -------
    row_blocks, key_blocks : ndarray
        Per sequence and packed head.

    Examples
    --------
    >>> one = np.ones(1)
    >>> [x.item() for x in causal_blocks(256 * one, 256 * one, 64 * one, 64 * one, one)]
    [4.0, 10.0]
    """
    packed, width = q_len * group, keys * group
    before = np.maximum(kv_len - q_len, 0.0) * group
    row_blocks = np.ceil(packed / rows)
    period = width / np.gcd(width.astype(np.int64), rows.astype(np.int64))
    growth = period * rows / width
    total = np.ceil((before + packed) / width)
    # All but the last block are whole; beyond their number no phase has a member.
    whole = row_blocks - 1
    for phase in range(int(np.minimum(period, whole).max(initial=0.0))):
        count = np.where(phase < period, np.maximum(np.ceil((whole - phase) / period), 0.0), 0.0)
        first = np.ceil((before + (phase + 1) * rows) / width)
        total = total + count * first + growth * count * (count - 1) / 2
    return row_blocks, total


def best_splits(work_items: FloatArray, key_blocks: FloatArray, slots: float) -> FloatArray:
    r"""Return in how many parts FlashAttention-2 cuts the keys.

    Of the eligible counts the smallest whose last wave is nearly as full as the best one's:
    efficiency :math:`\eta = w/\lceil w\rceil` with :math:`w = n s / slots`.  An eligible
    count gives shorter parts than the one before.

    References
    ----------
    Flash-Decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html;
    ``num_splits_heuristic`` of FlashAttention-2 (arXiv 2307.08691).

    Examples
    --------
    >>> best_splits(np.array([200.0, 54.0]), np.array([64.0, 64.0]), 216).tolist()
    [1.0, 4.0]
    """
    pairs, inverse = np.unique(
        np.stack([work_items, key_blocks], axis=1), axis=0, return_inverse=True
    )
    items, blocks = pairs.T
    splits = np.arange(1.0, _MOST_SPLITS + 1)[:, None]
    waves = items * splits / slots
    shorter = np.ceil(blocks / splits) != np.ceil(blocks / np.maximum(splits - 1, 1))
    eligible = (splits <= np.minimum(slots, blocks)) & (shorter | (splits == 1))
    efficiency = np.where(eligible, waves / np.ceil(waves), 0.0)
    good = eligible & (efficiency >= _NEARLY_BEST * efficiency.max(axis=0))
    chosen = np.where(items >= _BUSY * slots, 1.0, good.argmax(axis=0) + 1.0)
    result: FloatArray = chosen[inverse.ravel()]
    return result


def dynamic_splits(
    per_sequence: FloatArray,
    work_items: FloatArray,
    key_blocks: FloatArray,
    batch: FloatArray,
    processors: float,
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    r"""Return whether FlashAttention-3 takes its splitting kernel, and the number of parts.

    It decides by one sequence's work items and cuts keys into parts of at most
    :math:`\lceil 1.1\,n\,n_k / S\rceil` blocks.
    """
    taken = (
        (per_sequence < _BUSY * processors)
        & (key_blocks > _UNSPLIT_BLOCKS)
        & (batch <= SCHEDULED_BATCH)
    )
    part = np.ceil(_IMBALANCE * work_items * key_blocks / processors)
    return taken, np.where(taken, np.ceil(key_blocks / part), 1.0)


def cache_factor(footprint: FloatArray, cache_bytes: float, speed_up: float) -> FloatArray:
    r"""Return time per byte relative to memory when part of the data may be in cache.

    .. math:: h = \frac{1}{1 + (F/C)^{12}},\qquad u = 1 - h + h/l

    The transition is sharp: a cyclic pass over slightly more than the cache hits nothing.

    Parameters
    ----------
    footprint : ndarray
        Bytes touched F.
    cache_bytes : float
        Usable cache C [B].
    speed_up : float
        Cache bandwidth over memory bandwidth l.

    Examples
    --------
    >>> cache_factor(np.array([1e6, 1e9]), 4e7, 4.0).round(3).tolist()
    [0.25, 1.0]
    """
    # The power overflows for footprints far beyond the cache, where nothing hits anyway.
    ratio = np.minimum(footprint / cache_bytes, 100.0)
    hit = 1 / (1 + ratio**_RESIDENCY_POWER)
    return 1 - hit + hit / speed_up
