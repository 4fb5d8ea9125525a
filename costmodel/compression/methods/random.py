"""Random sampling: a random subset of the visual tokens."""

from __future__ import annotations

from typing import Any

from sympy import Integer

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import KeepParams, select
from costmodel.ops import copy, elementwise
from costmodel.symbols import sym

__all__ = ["METHOD"]

_SCORE_BYTES = Integer(4)


class RandomSampling(Method):
    """Random numbers, their k largest and a gather: three kernels, no parameters."""

    name = "random"
    title = "Random sampling"
    summary = "Keeps k random tokens of each image: random numbers, top-k, gather."
    where = "after the projector (or before it)"
    reference = "Y. Omri et al., Token Sequence Compression for Efficient Multimodal Computing"
    url = "https://arxiv.org/abs/2504.17892"

    Params = KeepParams

    def plan(self, params: KeepParams, context: Context) -> CompressionPlan:
        """Return a plan with a draw and a gather per kind of image."""
        chosen = select(params, context, self.name)
        ops = []
        for image in chosen.images:
            problems = sym("b") * image.units
            ops += [
                elementwise(
                    f"{image.label}.draw", "compression", rows=problems * image.tokens,
                    cols=Integer(1), read=_SCORE_BYTES, write=_SCORE_BYTES,
                    flops_per_element=Integer(1), launches=Integer(2), primitive="topk",
                    note="random numbers and top-k",
                ),
                copy(f"{image.label}.gather", "compression", rows=problems * image.kept,
                     cols=chosen.width, gather=True),
            ]  # fmt: skip
        return chosen.plan(context, self.name, ops=tuple(ops))

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


METHOD = RandomSampling()
