"""STF: spatial token fusion, a learned module in place of the projector."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from costmodel.compression.fusion import stf_module
from costmodel.compression.grid import grid_plan, window_for
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.specs.base import Spec

__all__ = ["METHOD"]


class FusionParams(Spec):
    """Parameters of spatial fusion."""

    window: Annotated[int, Field(gt=0)] = Field(
        default=2, description="side of the fused neighbourhood"
    )


class SpatialTokenFusion(Method):
    """window x window tower tokens become one; the module replaces the projector."""

    name = "stf"
    title = "Spatial Token Fusion"
    summary = (
        "Fuses window x window tower tokens with two linear layers that replace the projector."
    )
    where = "after the vision tower, in place of the projector"
    reference = (
        "H. Tang, C. Shen, Learning Compact Vision Tokens for Efficient Large Multimodal Models"
    )
    url = "https://arxiv.org/abs/2506.07138"
    training = "two stages: fusion modules, then language model and fusion modules"
    unknown = "Hidden width for windows other than 2 (16 times the tower's width is assumed)."

    Params = FusionParams

    def plan(self, params: FusionParams, context: Context) -> CompressionPlan:
        """Return a plan with the fusion module and without the projector."""
        ops, weights = stf_module(context.deployment.fused)
        return grid_plan(
            context, self.name, params.window, context.projector.in_features,
            before_projector=True, replaces_projector=True, ops=tuple(ops),
            weights=tuple(weights), training=self.training,
        )  # fmt: skip

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``window``."""
        return {"window": window_for(context, self.name, kept_per_image)}


METHOD = SpatialTokenFusion()
