r"""Attention of one new token per sequence over cached keys and values, keys split in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter, Shapes
from costmodel.timing.kernels.flash import (
    PEAK_SHARE_LIMIT,
    SCHEDULED_BATCH,
    TILE_PARAMETERS,
    best_splits,
    cache_factor,
    dynamic_splits,
    padded_head_dim,
    tiles,
)

__all__ = ["BENCHMARK_MODEL", "MODEL", "MODELS", "DecodeModel"]

_ELEMENT_BYTES = 2.0
_REFERENCE_HEAD_DIM = 128.0
_WRITER_THREADS = 512.0

_STRUCTURE = (
    Parameter("slots", 0, 8, 2, "1", "items per multiprocessor to split up to; 0: by length"),
    Parameter("gx", 0, 128, 0, "1", "largest group that one item serves; 0: any"),
    Parameter("gs", 0, 1, 0, "1", "1: only grouped query heads are split, and copied to pack"),
    *TILE_PARAMETERS,
)


class DecodeModel:
    r"""One query of h heads against k cached tokens of :math:`h_k` key-value heads.

    Query heads of a group share one item, :math:`n = B\,h_k\lceil h/(h_k b_q)\rceil`; its
    :math:`n_k = \lceil k/b_k\rceil` key blocks are cut into s parts of at most L blocks.
    A block takes what its padded tile computes or what a multiprocessor can load, with
    :math:`c_b` times its share of bandwidth:

    .. math:: t_b = \max\!\left(\frac{4 b_q b_k \hat d}{e(\hat d/128)^{e_h} P/N},
                                \frac{4 b_k d\,u\,N}{c_b e_B B_{mem}}\right)

    .. math:: l = L t_b \min(\max(n s/N, 1), o) + t_i,\qquad
              T = \max\!\left(l,\; (1-\gamma)\frac{n n_k t_b + n s\,t_i/o}{N}
                  + \gamma (L t_b o + t_i)\left\lceil\frac{n s}{N o}\right\rceil\right)

    .. math:: T_m = u\,\frac{4 B h_k d k + 4 B h d}{e_B B_{mem}},\qquad
              t = t_0 + (T^p + T_m^p)^{1/p} + t_{combine} + t_{copy} + t_{write}

    Combining costs :math:`t_s + t_l (s-1)` and the partial outputs' bytes; packing grouped
    heads by copies costs :math:`t_c + 4 c_c B h d/(e_B B_{mem})`; per-sequence scheduling
    :math:`t_q B`; appending to the cache :math:`B\min(h_k d/512, 1)\,t_w/N`.

    A library with kernels for groups up to :math:`g_x` only serves every head of larger
    groups, and of no groups, by an item of its own without matrix units: :math:`n = B h`,
    with `cv` and `tv` in place of `cb` and `tb`.

    A benchmark repeats one operator, whose cache may still be in the second-level cache (u
    of `cache_factor`).  The layers in between displace it in a forward pass: there u = 1.

    Parameters
    ----------
    cold_cache : bool
        Whether keys and values come from memory (a program) or may be left from the last
        repetition (rows of a benchmark, hence also in a fit).

    References
    ----------
    Flash-Decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html;
    FlashAttention-2, arXiv 2307.08691.
    """

    name = "flash_decode"
    kind = "attention_decode"
    sizes: tuple[str, ...] = ("batch", "kv_len", "heads", "kv_heads", "head_dim")
    parameters: tuple[Parameter, ...] = (
        Parameter("e", 0.05, 1.05, 0.6, "1", "share of the matrix peak of a full tile"),
        Parameter("eh", -1.0, 1.0, 0.0, "1", "power with which that share grows with head dim"),
        Parameter("tb", 0.05e-6, 20e-6, 1.5e-6, "s", "start and end of a work item"),
        Parameter("cb", 0.5, 6.0, 1.5, "1", "bandwidth of one multiprocessor over its share"),
        Parameter("t0", 0.5e-6, 20e-6, 8e-6, "s", "fixed cost of the operator"),
        Parameter("eb", 0.2, 1.1, 0.85, "1", "share of memory bandwidth reached"),
        Parameter("pn", 1.0, 8.0, 2.5, "1", "how well computing and loading overlap"),
        Parameter("occ", 1.0, 4.0, 1.3, "1", "unsplit items in flight per multiprocessor"),
        Parameter("ga", 0.0, 1.0, 0.5, "1", "how far waves are quantised"),
        Parameter("wt", 0.0, 8e-6, 2e-6, "s", "time of a cache-writing block"),
        Parameter("phi", 0.1, 2.0, 0.8, "1", "share of the cache that keeps operands"),
        Parameter("lh", 1.0, 8.0, 3.0, "1", "cache bandwidth over memory bandwidth"),
        Parameter("es", 0.5, 2.0, 1.0, "1", "efficiency of the splitting kernel over the other"),
        Parameter("ts", 0.0, 30e-6, 4e-6, "s", "fixed cost of combining parts"),
        Parameter("tl", 0.0, 1e-6, 0.1e-6, "s", "combining one more part"),
        Parameter("tq", 0.0, 0.2e-6, 0.02e-6, "s", "scheduling one sequence"),
        Parameter("tc", 0.0, 20e-6, 3e-6, "s", "fixed cost of copies that pack heads"),
        Parameter("cc", 0.0, 30.0, 3.0, "1", "passes of those copies over queries and outputs"),
        Parameter("cv", 0.3, 12.0, 3.0, "1", "`cb` of items that serve one query head"),
        Parameter("tv", 0.05e-6, 20e-6, 1e-6, "s", "`tb` of items that serve one query head"),
        *_STRUCTURE,
    )

    def __init__(self, *, cold_cache: bool = True) -> None:
        self.cold_cache = cold_cache
        # Name by which all kernel models say which of two variants they are.
        self.cold_weights = cold_cache

    def prepare(self, shapes: Shapes, chip: Chip) -> Callable[[Mapping[str, float]], FloatArray]:
        """Return a function of the parameters alone, for repeated evaluation in a fit.

        Splits are kept for as long as the fixed parameters stay the same.
        """
        columns = np.broadcast_arrays(*(np.asarray(shapes[name], float) for name in self.sizes))
        kept: dict[tuple[float, ...], dict[str, FloatArray]] = {}

        def evaluate(values: Mapping[str, float]) -> FloatArray:
            key = tuple(values[parameter.name] for parameter in _STRUCTURE)
            if key not in kept:
                kept.clear()
                kept[key] = _count(values, [column.ravel() for column in columns], chip)
            return self._seconds(values, kept[key], chip).reshape(columns[0].shape)

        return evaluate

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one decode attention.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            ``batch``, ``kv_len``, ``heads``, ``kv_heads``, ``head_dim``.
        chip : Chip
            Peak, bandwidth, cache, multiprocessors.

        Returns
        -------
        ndarray
            [s].
        """
        return self.prepare(shapes, chip)(values)

    def _seconds(
        self, values: Mapping[str, float], count: Mapping[str, FloatArray], chip: Chip
    ) -> FloatArray:
        sms = chip.multiprocessors
        items, splits, taken = count["items"], count["splits"], count["taken"]
        single = count["single"] > 0
        bandwidth = chip.bandwidth_bytes_per_s * values["eb"]
        factor: FloatArray = np.ones_like(items)
        if not self.cold_cache:
            footprint = count["cache"] + count["io"]
            factor = cache_factor(footprint, values["phi"] * chip.l2_bytes, values["lh"])
        share = values["e"] * (count["padded"] / _REFERENCE_HEAD_DIM) ** values["eh"]
        # Only the length-based policy has a kernel of its own for split keys.
        slower = np.where(values["slots"] > 0, 0.0, taken * (values["es"] - 1))
        share = np.minimum(share * (1 + slower), PEAK_SHARE_LIMIT)
        compute = count["tile"] * 4.0 * count["padded"] * sms / (chip.peak_flops_per_s * share)
        loading = np.where(single, values["cv"], values["cb"]) * bandwidth
        # Vector units serve single heads at the speed of loading.
        compute = np.where(single, 0.0, compute)
        block = np.maximum(compute, count["block"] * factor * sms / loading)
        ends = np.where(single, values["tv"], values["tb"])
        resident = np.where(taken > 0, 1.0, values["occ"])
        depth = count["longest"] * block
        alone = depth * np.clip(items * splits / sms, 1.0, resident) + ends
        mean = items * (count["blocks"] * block + splits * ends / resident) / sms
        waves = np.ceil(items * splits / (sms * resident)) * (depth * resident + ends)
        busy = np.maximum(alone, (1 - values["ga"]) * mean + values["ga"] * waves)
        memory = (count["cache"] + count["io"]) * factor / bandwidth
        norm = values["pn"]
        total = values["t0"] + (busy**norm + memory**norm) ** (1 / norm)
        total = total + taken * (values["ts"] + values["tl"] * (splits - 1))
        total = total + 2 * count["io"] * (splits - 1) / (bandwidth * values["lh"])
        if values["gs"] > 0:
            copies = values["tc"] + values["cc"] * count["io"] / bandwidth
            total = total + count["copied"] * copies
        if values["slots"] <= 0:
            total = total + values["tq"] * count["scheduled"]
        result: FloatArray = total + values["wt"] * count["writers"] / sms
        return result


def _count(
    values: Mapping[str, float], columns: list[FloatArray], chip: Chip
) -> dict[str, FloatArray]:
    batch, kv_len, heads, kv_heads, head_dim = columns
    padded = padded_head_dim(head_dim, values["pow2"] > 0)
    rows, keys = tiles(values, padded)
    group = heads / kv_heads
    single = (values["gx"] > 0) & ((group == 1) | (group > values["gx"]))
    per_sequence = np.where(single, heads, kv_heads * np.ceil(group / rows))
    items, blocks = batch * per_sequence, np.ceil(kv_len / keys)
    if values["slots"] > 0:
        splits = best_splits(items, blocks, values["slots"] * chip.multiprocessors)
        if values["gs"] > 0:
            splits = np.where(group > 1, splits, 1.0)
    else:
        taken, splits = dynamic_splits(per_sequence, items, blocks, batch, chip.multiprocessors)
    longest = np.ceil(blocks / splits)
    splits = np.ceil(blocks / longest)
    if values["slots"] > 0:
        taken = splits > 1
    return {
        "padded": padded,
        "single": single.astype(np.float64),
        "tile": rows * keys,
        "items": items,
        "blocks": blocks,
        "longest": longest,
        "splits": splits,
        "taken": taken.astype(np.float64),
        "block": 2 * _ELEMENT_BYTES * np.minimum(keys, kv_len) * head_dim,
        "io": 2 * _ELEMENT_BYTES * batch * heads * head_dim,
        "cache": 2 * _ELEMENT_BYTES * batch * kv_len * kv_heads * head_dim,
        # One sequence needs no copy: its heads are already in the packed order.
        "copied": ((group > 1) & (kv_heads > 1) & (batch > 1)).astype(np.float64),
        "scheduled": np.where(batch <= SCHEDULED_BATCH, batch, 0.0),
        "writers": batch * np.minimum(kv_heads * head_dim / _WRITER_THREADS, 1.0),
    }


MODEL = DecodeModel()
BENCHMARK_MODEL = DecodeModel(cold_cache=False)
MODELS = (MODEL,)
