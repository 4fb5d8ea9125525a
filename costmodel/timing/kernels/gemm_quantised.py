r"""Matrix product with 8- or 4-bit weights and 16-bit activations (w8a16, w4a16).

The weights are read in few bytes and converted before they are multiplied: little
memory traffic where weights dominate it, extra work where computing does.
"""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.timing.kernels.base import FloatArray, Parameter
from costmodel.timing.kernels.gemm import GemmModel

__all__ = ["BENCHMARK_W4A16", "BENCHMARK_W8A16", "W4A16", "W8A16", "GemmQuantisedModel"]

_SCALE_BYTES = 2.0


class GemmQuantisedModel(GemmModel):
    r"""The plain product with narrow weights, row tiles down to 16 and a conversion cost.

    A weight takes :math:`q/8 + 2/g` bytes for q bits and one 16-bit scale per g
    weights along k, and a tile takes :math:`t_n k_s / d` seconds more to convert
    its weights, each of them once per tile of rows.

    Parameters
    ----------
    bits : int
        Bits of a stored weight.
    group : int, optional
        Weights that share a scale; the whole column without it.
    cold_weights : bool
        As in `GemmModel`.
    """

    parameters = (
        *GemmModel.parameters,
        Parameter("dq", 1e9, 3000e9, 50e9, "1/s", "weights one multiprocessor converts per second"),
    )
    tiles = (*GemmModel.tiles, (32, 128), (16, 128), (32, 64), (16, 64))

    def __init__(self, bits: int, group: int | None = None, *, cold_weights: bool = True) -> None:
        super().__init__(cold_weights=cold_weights)
        self.bits = bits
        self.group = group
        self.name = f"tile_wave_w{bits}a16"

    def weight_bytes(self, k: FloatArray) -> float | FloatArray:
        """Return bytes per weight with its share of the scales [B]."""
        return self.bits / 8 + _SCALE_BYTES / (k if self.group is None else self.group)

    def tile_extra_s(
        self, values: Mapping[str, float], tile: tuple[int, int], depth: FloatArray
    ) -> float | FloatArray:
        """Return seconds to convert the weights of a tile [s]."""
        return depth * (tile[1] / values["dq"])


W8A16 = GemmQuantisedModel(8)
W4A16 = GemmQuantisedModel(4, 128)
BENCHMARK_W8A16 = GemmQuantisedModel(8, cold_weights=False)
BENCHMARK_W4A16 = GemmQuantisedModel(4, 128, cold_weights=False)
