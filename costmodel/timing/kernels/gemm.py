r"""Dense matrix product: tiles, waves, split-k, cache and memory bandwidth, launch.

A library picks one of several kernels per shape.  The model prices a fixed set
of candidates (tile shape times split of k) and takes a soft minimum, so that it
depends smoothly on its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter, Shapes

__all__ = ["MODEL", "GemmModel"]

_TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (64, 256), (256, 64))
_SPLITS = (1, 2, 4, 8)
_ELEMENT_BYTES = 2.0
_NORM = 3.5
# A 64x64 tile reuses its operands least and reaches about nine tenths of the others' rate.
_SMALL_TILE_RATE = 0.9


class GemmModel:
    r"""Ten effective parameters for one GPU and library.

    For tile :math:`t_m \times t_n` and split s, with
    :math:`k_s = 64\lceil k/(64 s)\rceil` and
    :math:`T = s\lceil m/t_m\rceil\lceil n/t_n\rceil` tiles on S multiprocessors,
    :math:`w = T/S` waves of which a partial one costs

    .. math:: W = (1-\alpha)\lceil w\rceil + \alpha\max(w, 1)

    .. math:: t_c = W \max\!\left(\frac{2 t_m t_n (k_s + k_f)}{e P/S},
                                 \frac{2 (t_m + t_n) k_s \min(T, S)}{B_{L2}}\right),\quad
              t_m = \frac{2(mk + kn + mn) + [s>1]\,2mn(s+1)}{e_B B}

    .. math:: r_s = (t_c^{3.5} + t_m^{3.5})^{1/3.5} + [s>1]\,t_s,\quad
              r = \frac{\sum r_c^{1-\beta}}{\sum r_c^{-\beta}},\quad
              t = t_0 + r\,(1 + p\,(1 - e^{-r/\tau}))
    """

    name = "tile_wave"
    kind = "gemm"
    sizes = ("m", "n", "k")
    parameters = (
        Parameter("e", 0.3, 1.05, 0.9, "1", "share of the matrix peak a full tile reaches"),
        Parameter("eb", 0.3, 1.1, 0.85, "1", "share of memory bandwidth reached"),
        Parameter("t0", 0.3e-6, 12e-6, 4e-6, "s", "fixed cost of a kernel"),
        Parameter("al", 0.0, 1.0, 0.5, "1", "how far a partial wave costs only its share"),
        Parameter("beta", 2.0, 400.0, 13.0, "1", "sharpness of the choice between kernels"),
        Parameter("kf", 1.0, 3000.0, 160.0, "1", "k-iterations lost to filling the pipeline"),
        Parameter("pw", 0.0, 0.4, 0.1, "1", "slow-down of long kernels"),
        Parameter("tp", 20e-6, 5000e-6, 400e-6, "s", "duration at which that sets in"),
        Parameter("l2", 0.5e12, 20e12, 4.5e12, "B/s", "second-level cache bandwidth"),
        Parameter("sk", 0.2e-6, 20e-6, 3e-6, "s", "cost of reducing the parts of a split k"),
    )

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one product; `shapes` has m, n, k.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            Sizes.
        chip : Chip
            Peak, bandwidth, multiprocessors.

        Returns
        -------
        ndarray
            [s].
        """
        m, n, k = (np.asarray(shapes[name], dtype=np.float64) for name in self.sizes)
        per_sm = chip.peak_flops_per_s / chip.multiprocessors * values["e"]
        bandwidth = chip.bandwidth_bytes_per_s * values["eb"]
        moved = _ELEMENT_BYTES * (m * k + k * n + m * n)
        beta = values["beta"]
        best = None
        logs = []
        for tile_m, tile_n in _TILES:
            rate = per_sm * (_SMALL_TILE_RATE if tile_m == tile_n == 64 else 1.0)
            grid = np.ceil(m / tile_m) * np.ceil(n / tile_n)
            for split in _SPLITS:
                depth = 64.0 * np.ceil(k / (64.0 * split))
                tiles = grid * split
                waves = tiles / chip.multiprocessors
                cost = (1 - values["al"]) * np.ceil(waves) + values["al"] * np.maximum(waves, 1.0)
                product = 2.0 * tile_m * tile_n * (depth + values["kf"]) / rate
                cached = (
                    (tile_m + tile_n) * depth * _ELEMENT_BYTES
                    * np.minimum(tiles, chip.multiprocessors) / values["l2"]
                )  # fmt: skip
                compute = cost * np.maximum(product, cached)
                extra = _ELEMENT_BYTES * m * n * (split + 1) if split > 1 else 0.0
                memory = (moved + extra) / bandwidth
                total = (compute**_NORM + memory**_NORM) ** (1 / _NORM)
                if split > 1:
                    total = total + values["sk"]
                logs.append(np.log(total))
        stacked = np.stack(logs)
        best = stacked.min(axis=0)
        # Soft minimum in logarithms relative to the best, so that large beta cannot underflow.
        weights = np.exp(-beta * (stacked - best))
        run = np.exp(best) * (weights * np.exp(stacked - best)).sum(axis=0) / weights.sum(axis=0)
        slow = values["pw"] * -np.expm1(-run / values["tp"])
        result: FloatArray = values["t0"] + run * (1 + slow)
        return result


MODEL = GemmModel()
