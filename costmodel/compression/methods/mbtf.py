"""MBTF: multi-block token fusion, features of several tower layers fused into one map."""

from __future__ import annotations

from typing import Any

from costmodel.compression.fusion import mbtf_module
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.compression.taps import TapParams, tap_values
from costmodel.errors import InputError

__all__ = ["METHOD"]


class MultiBlockTokenFusion(Method):
    """Concatenates `blocks` tower layers and fuses them back to the tower's width."""

    name = "mbtf"
    title = "Multi-Block Token Fusion"
    summary = "Fuses the outputs of several tower layers before the projector; keeps every token."
    where = "after the vision tower, before the projector"
    reference = (
        "H. Tang, C. Shen, Learning Compact Vision Tokens for Efficient Large Multimodal Models"
    )
    url = "https://arxiv.org/abs/2506.07138"
    training = "two stages: fusion modules, then language model and fusion modules"
    unknown = "Hidden width for other towers or numbers of blocks (4 times the tower's is assumed)."

    Params = TapParams

    def plan(self, params: TapParams, context: Context) -> CompressionPlan:
        """Return a plan with the fusion module before the projector."""
        ops, weights = mbtf_module(context.deployment.fused)
        tokens = context.features + context.markers
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder"),
            kept=TokenCount.static(tokens),
            decoder_groups=context.uniform(tokens),
            tower_layers=context.vision.layers - 1,
            ops=tuple(ops),
            weights=tuple(weights),
            values=tap_values(params, context, self.name),
            training=self.training,
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Refuse any budget below all tokens: the method keeps every token."""
        if kept_per_image * sum(group.units for group in context.images) != context.features:
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"{context.features}: {self.name} fuses layers and keeps every token",
            )  # fmt: skip
        return {}


METHOD = MultiBlockTokenFusion()
