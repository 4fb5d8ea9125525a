r"""Memory-bound kernels: bytes through memory or cache, rows in flight, launch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter, Shapes

__all__ = ["MODEL", "MODELS", "MemoryBoundModel"]

_NORM = 4.0
_HIT_POWER = 4.0
# Widest block of the row kernels in vLLM and PyTorch: 1024 threads, one column each.
_PASS_COLS = 1024.0


class MemoryBoundModel:
    r"""Eight effective parameters for one GPU and kernel family.

    With :math:`Q` bytes read and written, of which a share h is found in the
    second-level cache of :math:`L` bytes,

    .. math:: h = \frac{1}{1 + (Q / \phi L)^4},\qquad
              t_m = \frac{Q}{e_B B}\left(1 - h + \frac{h}{l}\right)

    A row of c columns occupies a block that covers 1024 of them at once; o
    full blocks run on each of S multiprocessors, and data that come from
    memory lengthen a row by up to :math:`\lambda`:

    .. math:: u = \frac{c}{1024},\quad
              W = \max\!\left(\frac{r \min(u, 1)}{o\,S}, 1\right),\quad
              t_r = W\,(t_a + t_c \max(u, 1))\,(1 + \lambda (1 - h))

    .. math:: t = t_0 + (t_m^4 + t_r^4)^{1/4}

    Bytes decide for wide copies and additions, rows for norms and for
    activations that load two bytes per instruction, latency for few rows.
    """

    name = "rows_and_bytes"
    kind = "memory_bound"
    sizes: tuple[str, ...] = ("read_bytes", "write_bytes", "rows", "cols")
    parameters: tuple[Parameter, ...] = (
        Parameter("t0", 0.2e-6, 10e-6, 1.5e-6, "s", "fixed cost of a kernel"),
        Parameter("eb", 0.1, 1.1, 0.85, "1", "share of memory bandwidth reached"),
        Parameter("ph", 0.05, 2.0, 0.5, "1", "share of the cache that keeps a kernel's data"),
        Parameter("lx", 1.0, 6.0, 2.0, "1", "cache bandwidth over memory bandwidth"),
        Parameter("oc", 0.5, 40.0, 2.0, "1", "full blocks in flight per multiprocessor"),
        Parameter("ta", 0.01e-6, 10e-6, 0.8e-6, "s", "time of a row whatever its width"),
        Parameter("tc", 0.005e-6, 5e-6, 0.4e-6, "s", "time of 1024 columns of a row"),
        Parameter("lm", 0.0, 2.0, 0.4, "1", "slow-down of rows that come from memory"),
    )

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one kernel.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            ``read_bytes``, ``write_bytes`` [B], ``rows``, ``cols``.
        chip : Chip
            Bandwidth, cache, multiprocessors.

        Returns
        -------
        ndarray
            [s].

        Examples
        --------
        >>> chip = Chip(312e12, 2.0e12, 40e6, 108, 300e9)
        >>> values = {p.name: p.start for p in MODEL.parameters}
        >>> size = 2.0 * 32768 * 4096
        >>> shapes = {"read_bytes": size, "write_bytes": size, "rows": 32768.0, "cols": 4096.0}
        >>> round(float(MODEL.time_s(values, shapes, chip)) * 1e6)
        529
        """
        read, write, rows, cols = (
            np.asarray(shapes[name], dtype=np.float64) for name in self.sizes
        )
        moved = read + write
        # Inverted, so that no bytes at all mean a full hit and not a division by zero.
        missed = _share_missed(moved / (values["ph"] * chip.l2_bytes))
        memory = moved / (chip.bandwidth_bytes_per_s * values["eb"])
        memory = memory * (missed + (1.0 - missed) / values["lx"])
        passes = cols / _PASS_COLS
        waves = rows * np.minimum(passes, 1.0) / (values["oc"] * chip.multiprocessors)
        row = values["ta"] + values["tc"] * np.maximum(passes, 1.0)
        latency = np.maximum(waves, 1.0) * row * (1.0 + values["lm"] * missed)
        larger, smaller = np.maximum(memory, latency), np.minimum(memory, latency)
        # Relative to the larger, so that microseconds to the fourth power cannot underflow.
        ratio = np.divide(smaller, larger, out=np.zeros_like(larger + smaller), where=larger > 0)
        result: FloatArray = values["t0"] + larger * (1.0 + ratio**_NORM) ** (1.0 / _NORM)
        return result


def _share_missed(footprint: FloatArray) -> FloatArray:
    power = np.minimum(footprint, 1e9) ** _HIT_POWER
    result: FloatArray = power / (1.0 + power)
    return result


MODEL = MemoryBoundModel()
MODELS = (MODEL,)
