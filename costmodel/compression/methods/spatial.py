"""Spatial sampling: every so-many-th visual token."""

from __future__ import annotations

from typing import Any

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import KeepParams, select
from costmodel.ops import copy
from costmodel.symbols import sym

__all__ = ["METHOD"]


class SpatialSampling(Method):
    """Strided or grid index, computed once and for all, and a gather per image."""

    name = "spatial"
    title = "Spatial sampling"
    summary = "Keeps k evenly spaced tokens of each image: one gather with a fixed index."
    where = "after the projector (or before it)"
    reference = "Y. Omri et al., Token Sequence Compression for Efficient Multimodal Computing"
    url = "https://arxiv.org/abs/2504.17892"

    Params = KeepParams

    def plan(self, params: KeepParams, context: Context) -> CompressionPlan:
        """Return a plan with one gather per image."""
        chosen = select(params, context, self.name)
        ops = tuple(
            copy(f"{image.label}.gather", "compression",
                 rows=sym("b") * image.units * image.kept, cols=chosen.width, gather=True)
            for image in chosen.images
        )  # fmt: skip
        return chosen.plan(context, self.name, ops=ops)

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


METHOD = SpatialSampling()
