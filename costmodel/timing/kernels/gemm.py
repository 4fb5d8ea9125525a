r"""Dense matrix product: tiles, waves, split-k, cache and memory bandwidth, launch.

A library picks one of several kernels per shape.  The model prices a fixed set
of candidates (tile shape times split of k) and takes a soft minimum, so that it
depends smoothly on its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter, Shapes

__all__ = ["BENCHMARK_MODEL", "MODEL", "GemmModel"]

_TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (64, 256), (256, 64))
# Powers of four fit as well as powers of two and are fewer candidates.
_SPLITS = (1, 4, 16)
_K_STEP = 32.0
_ELEMENT_BYTES = 2.0
# A 64x64 tile reuses its operands least and reaches about nine tenths of the others' rate.
_SMALL_TILE_RATE = 0.9
# Candidates x rows that stay in a core's cache.
_CHUNK = 4096


class GemmModel:
    r"""Fourteen effective parameters for one GPU and library.

    For tile :math:`t_m \times t_n` and split s, with
    :math:`k_s = 32\lceil k/(32 s)\rceil` and
    :math:`T = b s\lceil m/t_m\rceil\lceil n/t_n\rceil` tiles of a batch of b
    products on S multiprocessors, :math:`w = T/S` waves of which a partial one costs

    .. math:: W = (1-\alpha)\lceil w\rceil + \alpha\max(w, 1)

    .. math:: t_c = \max\!\left(W\frac{2 t_m t_n (k_s + k_f)}{e P/S},
                                \frac{2 T (t_m + t_n) k_s}{B_{L2}}\right),\quad
              t_m = \frac{2b(mk + kn + w_r mn) + [s>1]\,2b\,mn(s+1)}{e_B B}

    .. math:: r_s = (t_c^p + t_m^p)^{1/p} + [s>1]\,t_s,\quad
              r = \frac{\sum r_c^{1-\beta}}{\sum r_c^{-\beta}},\quad
              t = t_0 + r\,(1 + p_w\,(1 - e^{-r/\tau}))

    A benchmark repeats one product, whose operands may then still be in the
    second-level cache of size C.  With footprint
    :math:`F = 2b(6kn + mk + mn)` it reads a share
    :math:`h = 1/(1 + (F/(\phi C))^4)` of its bytes :math:`l_h` times as fast.
    Weights of a forward pass have been displaced by the layers in between, so
    that h = 0 there.

    Parameters
    ----------
    cold_weights : bool
        Whether operands come from memory (a program) or may be left from the
        last repetition (rows of a benchmark, hence also in a fit).
    """

    name = "tile_wave"
    kind = "gemm"
    sizes: tuple[str, ...] = ("m", "n", "k")
    parameters: tuple[Parameter, ...] = (
        Parameter("e", 0.3, 1.05, 0.9, "1", "share of the matrix peak a full tile reaches"),
        Parameter("eb", 0.3, 1.0, 0.85, "1", "share of memory bandwidth reached"),
        Parameter("t0", 0.3e-6, 20e-6, 4e-6, "s", "fixed cost of a kernel"),
        Parameter("al", 0.0, 1.0, 0.5, "1", "how far a partial wave costs only its share"),
        Parameter("beta", 2.0, 400.0, 13.0, "1", "sharpness of the choice between kernels"),
        Parameter("kf", 1.0, 3000.0, 160.0, "1", "k-iterations lost to filling the pipeline"),
        Parameter("pw", 0.0, 0.4, 0.1, "1", "slow-down of long kernels"),
        Parameter("tp", 20e-6, 5000e-6, 400e-6, "s", "duration at which that sets in"),
        Parameter("l2", 0.5e12, 20e12, 4.5e12, "B/s", "second-level cache bandwidth"),
        Parameter("sk", 0.2e-6, 20e-6, 3e-6, "s", "cost of reducing the parts of a split k"),
        Parameter("wr", 1.0, 1.5, 1.1, "1", "cost of a written byte over a read one"),
        Parameter("pn", 1.5, 8.0, 4.0, "1", "how well computing and loading overlap"),
        Parameter("phi", 0.05, 3.0, 0.5, "1", "share of the cache repetitions can use"),
        Parameter("lh", 1.0, 20.0, 4.0, "1", "bandwidth of left-over operands over memory's"),
    )
    tiles: tuple[tuple[int, int], ...] = _TILES
    splits: Sequence[int] = _SPLITS

    def __init__(self, *, cold_weights: bool = True) -> None:
        self.cold_weights = cold_weights

    def weight_bytes(self, k: FloatArray) -> float | FloatArray:
        """Return bytes per weight; `k` is the depth that a scale may be shared along."""
        return _ELEMENT_BYTES

    def tile_extra_s(
        self, values: Mapping[str, float], tile: tuple[int, int], depth: FloatArray
    ) -> float | FloatArray:
        """Return seconds a tile spends beside multiplying; none for plain weights."""
        return 0.0

    def prepare(self, shapes: Shapes, chip: Chip) -> Callable[[Mapping[str, float]], FloatArray]:
        """Return a function of the parameters alone, for repeated evaluation in a fit.

        Parameters
        ----------
        shapes : mapping of str to ndarray
            One-dimensional m, n, k and optionally batch.
        chip : Chip
            The device.

        Returns
        -------
        callable
            Seconds [s] of every row for given parameters.
        """
        m, n, k = (np.asarray(shapes[name], dtype=np.float64) for name in ("m", "n", "k"))
        batch = np.asarray(shapes.get("batch", 1.0), dtype=np.float64)
        width = self.weight_bytes(k)
        read = batch * (_ELEMENT_BYTES * m * k + width * k * n)
        output = batch * _ELEMENT_BYTES * m * n
        footprint = batch * (_ELEMENT_BYTES * (m * k + m * n) + 6 * width * k * n)
        sms = chip.multiprocessors
        plan = []
        for split in self.splits:
            depth = _K_STEP * np.ceil(k / (_K_STEP * split))
            for tile in self.tiles:
                tiles = batch * split * np.ceil(m / tile[0]) * np.ceil(n / tile[1])
                cached = tiles * (_ELEMENT_BYTES * tile[0] + width * tile[1]) * depth
                waves = tiles / sms
                plan.append((tile, depth, np.ceil(waves), np.maximum(waves, 1.0), cached))
        whole, part, cache = (np.stack([entry[i] for entry in plan]) for i in (2, 3, 4))
        part -= whole
        run = np.empty_like(whole)

        def evaluate(values: Mapping[str, float]) -> FloatArray:
            per_sm = chip.peak_flops_per_s / sms * values["e"]
            for index, (tile, depth, *_) in enumerate(plan):
                rate = per_sm * (_SMALL_TILE_RATE if tile == (64, 64) else 1.0)
                np.multiply(depth + values["kf"], 2.0 * tile[0] * tile[1] / rate, out=run[index])
                run[index] += self.tile_extra_s(values, tile, depth)
            np.multiply(run, whole + values["al"] * part, out=run)
            np.maximum(run, cache / values["l2"], out=run)
            np.power(run, values["pn"], out=run)
            bandwidth = chip.bandwidth_bytes_per_s * values["eb"]
            speed_up = np.ones_like(read)
            if not self.cold_weights:
                hit = 1 / (1 + (footprint / (values["phi"] * chip.l2_bytes)) ** 4)
                speed_up = 1 - hit + hit / values["lh"]
            for index, split in enumerate(self.splits):
                parts = split + 1 if split > 1 else 0
                memory = (read + output * (values["wr"] + parts)) / bandwidth * speed_up
                rows = slice(index * len(self.tiles), (index + 1) * len(self.tiles))
                run[rows] += memory ** values["pn"]
            np.power(run, 1 / values["pn"], out=run)
            run[len(self.tiles) :] += values["sk"]
            # Relative to the best, so that large beta cannot underflow.
            best = run.min(axis=0)
            np.divide(run, best, out=run)
            weights = np.exp(-values["beta"] * np.log(run))
            chosen = best * (weights * run).sum(axis=0) / weights.sum(axis=0)
            slow = values["pw"] * -np.expm1(-chosen / values["tp"])
            result: FloatArray = values["t0"] + chosen * (1 + slow)
            return result

        return evaluate

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one product; `shapes` has m, n, k and optionally batch.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            Sizes; batch counts independent products of one launch.
        chip : Chip
            Peak, bandwidth, cache, multiprocessors.

        Returns
        -------
        ndarray
            [s].

        Examples
        --------
        >>> chip = Chip(312e12, 2039e9, 40 * 2**20, 108, 300e9)
        >>> values = {parameter.name: parameter.start for parameter in MODEL.parameters}
        >>> shapes = {"m": np.array([1.0, 2048.0]), "n": np.array(4096.0), "k": np.array(4096.0)}
        >>> (1e6 * MODEL.time_s(values, shapes, chip)).round().tolist()
        [27.0, 304.0]
        """
        names = [*self.sizes, *(["batch"] if "batch" in shapes else [])]
        columns = np.broadcast_arrays(*(np.asarray(shapes[name], float) for name in names))
        flat = [column.ravel() for column in columns]
        result = np.empty(flat[0].shape)
        for first in range(0, len(result), _CHUNK):
            rows = slice(first, first + _CHUNK)
            chunk = {name: column[rows] for name, column in zip(names, flat, strict=True)}
            result[rows] = self.prepare(chunk, chip)(values)
        return result.reshape(columns[0].shape)


MODEL = GemmModel()
BENCHMARK_MODEL = GemmModel(cold_weights=False)
