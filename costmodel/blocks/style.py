"""How a block is executed: what is fused, which attention runs, how it is sharded."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Integer

from costmodel.ops import AttentionImpl
from costmodel.symbols import sym

__all__ = ["Style"]


@dataclass(frozen=True)
class Style:
    """Execution style of a block.

    Attributes
    ----------
    fused : bool
        Serving-style fused projections and elementwise kernels.
    attention : {"flash", "sdpa", "eager"}
        Attention implementation.
    tp : int
        Tensor-parallel devices.
    """

    fused: bool
    attention: AttentionImpl
    tp: int = 1

    @property
    def residuals(self) -> int:
        """Arrays of the hidden state's size that make up the residual at most.

        A compiler adds branches to the residual where it is read: PyTorch's Inductor keeps an
        unevaluated sum of up to four arrays (``realize_reads_threshold``).
        """
        return 4 if self.fused else 1

    @property
    def devices(self) -> Expr:
        """Number of devices: the symbol N, or 1 so that formulas of one device stay plain."""
        return sym("N") if self.tp > 1 else Integer(1)
