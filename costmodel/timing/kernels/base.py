"""What every kernel time model shares: the chip it runs on and its fitted parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Chip", "FloatArray", "KernelModel", "Parameter", "Shapes"]

FloatArray = npt.NDArray[np.float64]

Shapes = Mapping[str, FloatArray]
"""Sizes by name (m, n, k; batch, q_len ...), broadcast against each other."""

_COUNTED_BYTES = 2.0


@dataclass(frozen=True)
class Chip:
    """Datasheet figures a kernel model scales with.

    Attributes
    ----------
    peak_flops_per_s : float
        Dense matrix peak of the format the kernel computes in [FLOP/s].
    bandwidth_bytes_per_s : float
        Device memory [B/s].
    l2_bytes : float
        Second-level cache [B].
    multiprocessors : int
        Streaming multiprocessors.
    link_bytes_per_s : float
        To another GPU, one direction [B/s].
    """

    peak_flops_per_s: float
    bandwidth_bytes_per_s: float
    l2_bytes: float
    multiprocessors: int
    link_bytes_per_s: float

    def for_elements(self, element_bytes: float) -> Chip:
        """Return the chip as models of products and attention see it.

        They count operands of 16 bits; wider ones take as much of bandwidth and cache as
        that many more of them.

        Parameters
        ----------
        element_bytes : float
            Size of an activation [B].

        Returns
        -------
        Chip

        Examples
        --------
        >>> Chip(1e12, 100e9, 4e6, 2, 1e9).for_elements(4).bandwidth_bytes_per_s
        50000000000.0
        """
        share = _COUNTED_BYTES / element_bytes
        return replace(
            self,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s * share,
            l2_bytes=self.l2_bytes * share,
        )


@dataclass(frozen=True)
class Parameter:
    """A fitted parameter with the range that is physically possible.

    Attributes
    ----------
    name : str
        Key in calibration files.
    low, high, start : float
        Bounds and starting value of a fit.
    unit : str
        SI unit, "1" for ratios.
    meaning : str
        What it stands for; effective values, not hardware measurements.
    """

    name: str
    low: float
    high: float
    start: float
    unit: str
    meaning: str


@runtime_checkable
class KernelModel(Protocol):
    """A kernel's time as a function of shapes, chip and a few parameters.

    Attributes
    ----------
    name : str
        Name in calibration files.
    kind : str
        Kind of operator it times.
    sizes : tuple of str
        Keys it reads from the shapes.
    parameters : tuple of Parameter
        What a fit determines.
    """

    name: str
    kind: str
    sizes: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one kernel execution for every point."""
        ...
