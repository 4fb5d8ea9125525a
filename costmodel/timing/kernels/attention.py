r"""Tiled attention over whole sequences: causal prefill and encoders without a mask.

A work item is one row block of one head; it walks over the key blocks it may see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter, Shapes
from costmodel.timing.kernels.flash import (
    PEAK_SHARE_LIMIT,
    TILE_PARAMETERS,
    cache_factor,
    causal_blocks,
    dynamic_splits,
    padded_head_dim,
    tiles,
)

__all__ = ["CAUSAL", "ENCODER", "MODELS", "FlashModel"]

_ELEMENT_BYTES = 2.0
_REFERENCE_HEAD_DIM = 128.0
# Head dims that matrix instructions take without padding.
_ALIGNMENT = 16
# Threads of a vLLM cache-writing block: one per element, at most this many.
_WRITER_THREADS = 512.0

_COMMON = (
    Parameter("e", 0.1, 1.05, 0.75, "1", "share of the matrix peak of a full tile"),
    Parameter("cx", 0.0, 600.0, 80.0, "FLOP", "softmax of one score, as matrix operations"),
    Parameter("eh", -1.0, 1.0, 0.0, "1", "power with which that share grows with head dim"),
    Parameter("tb", 0.05e-6, 20e-6, 1e-6, "s", "start and end of a work item"),
    Parameter("mk", 0.0, 2.0, 0.3, "1", "masking and filling per work item, in key blocks"),
    Parameter("t0", 0.5e-6, 20e-6, 6e-6, "s", "fixed cost of the operator"),
    Parameter("eb", 0.2, 1.1, 0.8, "1", "share of memory bandwidth reached"),
    Parameter("ck", 0.1, 4.0, 0.8, "1", "passes over keys and values"),
    Parameter("pn", 1.0, 6.0, 1.4, "1", "how well computing and loading overlap"),
    Parameter("occ", 1.0, 4.0, 1.3, "1", "work items in flight per multiprocessor"),
    Parameter("lo", 0.3, 4.0, 1.0, "1", "time of a lone item's block over that of a full chip"),
    Parameter("phi", 0.1, 2.0, 0.9, "1", "share of the cache that keeps operands"),
    Parameter("lh", 1.0, 8.0, 3.0, "1", "cache bandwidth over memory bandwidth"),
    Parameter("pw", 0.0, 0.4, 0.1, "1", "slow-down of long kernels"),
    Parameter("tp", 50e-6, 50e-3, 10e-3, "s", "duration at which that sets in"),
    Parameter("es", 0.5, 1.2, 0.9, "1", "efficiency of the splitting kernel over the other"),
    Parameter("ts", 0.0, 30e-6, 5e-6, "s", "fixed cost of combining parts"),
)
_CAUSAL = (
    Parameter("ga", 0.0, 1.0, 0.6, "1", "share of the longest item left at the end"),
    Parameter("cw", 0.0, 6.0, 2.0, "1", "passes of writing new keys and values to the cache"),
    Parameter("wt", 0.0, 8e-6, 0.5e-6, "s", "time of a cache-writing block"),
)
_ENCODER = (
    Parameter("al", 0.0, 1.0, 0.5, "1", "how far a partial wave costs only its share"),
    Parameter("un", 0.0, 0.6, 0.05, "1", "slow-down of head dims that are no multiple of 16"),
)
_STRUCTURE = (
    Parameter("pack", 0, 1, 0, "1", "1: rows of grouped query heads share tiles"),
    Parameter("split", 0, 1, 0, "1", "1: keys are split when few rows leave a chip idle"),
    Parameter("slots", 0, 4, 0, "1", "items per multiprocessor to split up to; 0: by length"),
    *TILE_PARAMETERS,
)


class FlashModel:
    r"""Attention of B sequences with q queries, k keys, h heads of width d.

    Each of :math:`n = B\,h\,\lceil q/b_q\rceil` items takes :math:`s_i` of S key blocks in
    all (exact sums, `causal_blocks`).  On a chip with N multiprocessors and peak P

    .. math:: t_b = \frac{b_q b_k (4 \hat d + c_x)}{e\,(\hat d/128)^{e_h} P/N},\qquad
              w = \frac{(S + m n)\,t_b + n\,t_i/o}{N}

    .. math:: l = (s_{max} + m)\,t_b\,\min(\max(n/N, l_o), o) + t_i,\qquad
              \hat l = (s_{max} + m)\,t_b\,o + t_i

    with causal mask, where short items fill the gaps, and without, in waves:

    .. math:: T_{causal} = \max(l,\; w + \gamma\min(1, n/(N o))\,\hat l),\qquad
              T_{full} = l\,((1-\alpha)\lceil n/(N o)\rceil + \alpha\max(n/(N o), 1))

    Memory moves queries and outputs once, keys and values :math:`c_k` times, from cache
    where they fit (`cache_factor` u):

    .. math:: T_m = u\,\frac{4 B q h d + 4 c_k B k h_k d}{e_B B_{mem}},\qquad
              r = (T^p + T_m^p)^{1/p}

    .. math:: t = t_0 + r\,(1 + p_w (1 - e^{-r/\tau})) + t_{split} + t_{write}

    Prefill timings include writing new keys and values into the paged cache: bytes, and
    blocks of up to 512 threads, one per token,
    :math:`t_{write} = c_w u\,4 B q h_k d/(e_B B_{mem}) + B q \min(h_k d/512, 1)\,t_w/N`.

    Parameters
    ----------
    causal : bool
        Whether a query sees only keys up to its own.

    References
    ----------
    Dao, FlashAttention-2, arXiv 2307.08691, section 3; Shah et al., FlashAttention-3,
    arXiv 2407.08608.
    """

    sizes: tuple[str, ...] = ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")

    def __init__(self, *, causal: bool) -> None:
        self.causal = causal
        self.name = "flash_causal" if causal else "flash_encoder"
        self.kind = "attention_prefill" if causal else "attention_encoder"
        self.parameters: tuple[Parameter, ...] = (
            _COMMON + (_CAUSAL if causal else _ENCODER) + _STRUCTURE
        )

    def prepare(self, shapes: Shapes, chip: Chip) -> Callable[[Mapping[str, float]], FloatArray]:
        """Return a function of the parameters alone, for repeated evaluation in a fit.

        Block counts are kept for as long as the fixed parameters stay the same.
        """
        columns = np.broadcast_arrays(*(np.asarray(shapes[name], float) for name in self.sizes))
        kept: dict[tuple[float, ...], dict[str, FloatArray]] = {}

        def evaluate(values: Mapping[str, float]) -> FloatArray:
            key = tuple(values[parameter.name] for parameter in _STRUCTURE)
            if key not in kept:
                kept.clear()
                kept[key] = self._count(values, [column.ravel() for column in columns], chip)
            seconds = self._seconds(values, kept[key], chip)
            return seconds.reshape(columns[0].shape)

        return evaluate

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one attention operator.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            ``batch``, ``q_len``, ``kv_len``, ``heads``, ``kv_heads``, ``head_dim``; keys
            beyond the queries' own are a cached prefix.
        chip : Chip
            Peak, bandwidth, cache, multiprocessors.

        Returns
        -------
        ndarray
            [s].
        """
        return self.prepare(shapes, chip)(values)

    def _count(
        self, values: Mapping[str, float], columns: list[FloatArray], chip: Chip
    ) -> dict[str, FloatArray]:
        batch, q_len, kv_len, heads, kv_heads, head_dim = columns
        padded = padded_head_dim(head_dim, values["pow2"] > 0)
        rows, keys = tiles(values, padded)
        # A single query of grouped heads is packed by every library.
        group = np.where((values["pack"] > 0) | (q_len == 1), heads / kv_heads, 1.0)
        longest = np.ceil(np.maximum(kv_len, q_len) / keys)
        if self.causal:
            row_blocks, blocks = causal_blocks(q_len, kv_len, rows, keys, group)
        else:
            longest = np.ceil(kv_len / keys)
            row_blocks = np.ceil(q_len * group / rows)
            blocks = row_blocks * longest
        per_sequence = heads / group * row_blocks
        items = batch * per_sequence
        taken, splits = np.zeros(items.shape, dtype=bool), np.ones(items.shape)
        if values["split"] > 0 and values["slots"] > 0:
            free = np.floor(values["slots"] * chip.multiprocessors / items)
            splits = np.clip(free, 1.0, longest)
            taken = splits > 1
        elif values["split"] > 0:
            taken, splits = dynamic_splits(
                per_sequence, items, longest, batch, chip.multiprocessors
            )
        return {
            "padded": padded,
            "tile": rows * keys,
            "blocks": batch * heads / group * blocks,
            "items": items,
            "longest": np.ceil(longest / splits),
            "splits": splits,
            "taken": taken.astype(np.float64),
            "odd": (head_dim % _ALIGNMENT > 0).astype(np.float64),
            "io": 2 * _ELEMENT_BYTES * batch * q_len * heads * head_dim,
            "cache": 2 * _ELEMENT_BYTES * batch * kv_len * kv_heads * head_dim,
            "new": 2 * _ELEMENT_BYTES * batch * q_len * kv_heads * head_dim,
            "writers": batch * q_len * np.minimum(kv_heads * head_dim / _WRITER_THREADS, 1.0),
        }

    def _seconds(
        self, values: Mapping[str, float], count: Mapping[str, FloatArray], chip: Chip
    ) -> FloatArray:
        sms = chip.multiprocessors
        taken, items, splits = count["taken"], count["items"], count["splits"]
        share = values["e"] * (count["padded"] / _REFERENCE_HEAD_DIM) ** values["eh"]
        if not self.causal:
            share = share / (1 + values["un"] * count["odd"])
        share = np.minimum(share * (1 + taken * (values["es"] - 1)), PEAK_SHARE_LIMIT)
        work = count["tile"] * (4.0 * count["padded"] + values["cx"])
        block = work * sms / (chip.peak_flops_per_s * share)
        # Splitting kernels use larger blocks of threads, of which a multiprocessor holds one.
        resident = np.where(taken > 0, 1.0, values["occ"])
        waves = items * splits / (sms * resident)
        depth = (count["longest"] + values["mk"]) * block
        crowd = np.clip(items * splits / sms, values["lo"], np.maximum(resident, values["lo"]))
        alone = depth * crowd + values["tb"]
        if self.causal:
            mean = (count["blocks"] + values["mk"] * items) * block + items * values[
                "tb"
            ] / resident
            tail = np.minimum(1.0, waves) * (depth * resident + values["tb"])
            compute = np.maximum(alone, mean / sms + values["ga"] * tail)
        else:
            partial = values["al"] * np.maximum(waves, 1.0)
            compute = alone * ((1 - values["al"]) * np.ceil(waves) + partial)
        bandwidth = chip.bandwidth_bytes_per_s * values["eb"]
        footprint = count["io"] + count["cache"] + (count["new"] if self.causal else 0.0)
        factor = cache_factor(footprint, values["phi"] * chip.l2_bytes, values["lh"])
        memory = (count["io"] + values["ck"] * count["cache"]) * factor / bandwidth
        norm = values["pn"]
        run = (compute**norm + memory**norm) ** (1 / norm)
        run = run * (1 - values["pw"] * np.expm1(-run / values["tp"]))
        parts = 2 * count["io"] * (splits - 1) / (bandwidth * values["lh"])
        total = values["t0"] + run + taken * values["ts"] + parts
        if self.causal:
            total = total + values["cw"] * count["new"] * factor / bandwidth
            total = total + values["wt"] * count["writers"] / sms
        result: FloatArray = total
        return result


CAUSAL = FlashModel(causal=True)
ENCODER = FlashModel(causal=False)
MODELS = (CAUSAL, ENCODER)
