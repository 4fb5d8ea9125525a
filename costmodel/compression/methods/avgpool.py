"""Average pooling of neighbouring visual tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from sympy import Integer

from costmodel.compression.grid import grid_plan, window_for
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.ops import elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]


class PoolParams(Spec):
    """Parameters of the pooling."""

    window: Annotated[int, Field(gt=0)] = Field(
        default=2, description="side of the pooled neighbourhood"
    )
    position: Literal["after_projector", "before_projector"] = Field(
        default="after_projector", description="where the method acts"
    )


class AveragePooling(Method):
    """``avg_pool2d`` over window x window tokens of each tile's grid: one kernel."""

    name = "avgpool"
    title = "Average pooling"
    summary = "Averages window x window neighbouring tokens; one kernel, no parameters."
    where = "after the projector (or before it)"
    reference = "H. Tang, C. Shen, Learning Compact Vision Tokens (baseline of its tables)"
    url = "https://arxiv.org/abs/2506.07138"
    training = "model fine-tuned with pooled tokens"
    unknown = "Whether the published baseline pools before or after the projector."

    Params = PoolParams

    def plan(self, params: PoolParams, context: Context) -> CompressionPlan:
        """Return a plan with one pooling kernel."""
        before = params.position == "before_projector"
        width = context.projector.in_features if before else context.model.text.hidden_size
        ba, share = sym("ba"), Integer(1) / sym("a") ** 2
        pool = elementwise(
            "avgpool.pool", "compression", rows=sym("b") * sym("m"), cols=sym("c"), read=ba,
            write=share * ba, flops_per_element=Integer(1),
        )  # fmt: skip
        return grid_plan(
            context, self.name, params.window, width, before_projector=before, ops=(pool,),
            training=self.training,
        )  # fmt: skip

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``window``."""
        return {"window": window_for(context, self.name, kept_per_image)}


METHOD = AveragePooling()
