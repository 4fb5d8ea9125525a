"""MBTF followed by STF: the full method of its paper."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from costmodel.compression.fusion import mbtf_module, stf_module
from costmodel.compression.grid import grid_plan, window_for
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.taps import TapParams, tap_values

__all__ = ["METHOD"]


class CompactParams(TapParams):
    """Parameters of both modules."""

    window: Annotated[int, Field(gt=0)] = Field(
        default=2, description="side of the fused neighbourhood"
    )


class CompactVisionTokens(Method):
    """Layers fused by MBTF, then neighbours fused by STF in place of the projector."""

    name = "mbtf+stf"
    title = "Multi-Block and Spatial Token Fusion"
    summary = "MBTF, then STF in place of the projector: 24x24 tokens become 12x12."
    where = "after the vision tower, in place of the projector"
    reference = (
        "H. Tang, C. Shen, Learning Compact Vision Tokens for Efficient Large Multimodal Models"
    )
    url = "https://arxiv.org/abs/2506.07138"
    training = "two stages: fusion modules, then language model and fusion modules"
    unknown = "Hidden widths for other towers, windows or numbers of blocks."

    Params = CompactParams

    def plan(self, params: CompactParams, context: Context) -> CompressionPlan:
        """Return a plan with both modules and without the projector."""
        fused = context.deployment.fused
        first, first_weights = mbtf_module(fused)
        second, second_weights = stf_module(fused)
        return grid_plan(
            context, self.name, params.window, context.projector.in_features,
            before_projector=True, replaces_projector=True,
            tower_layers=context.vision.layers - 1, ops=(*first, *second),
            weights=(*first_weights, *second_weights),
            values=tap_values(params, context, self.name), training=self.training,
        )  # fmt: skip

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``window``."""
        return {"window": window_for(context, self.name, kept_per_image)}


METHOD = CompactVisionTokens()
