"""No compression: every visual token enters the language model."""

from __future__ import annotations

from typing import Any

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount

__all__ = ["METHOD"]


class NoCompression(Method):
    """The baseline."""

    name = "none"
    title = "No compression"
    summary = "Every visual token enters the language model: the baseline."
    where = "nowhere"
    reference = "H. Liu et al., Improved Baselines with Visual Instruction Tuning, CVPR 2024"
    url = "https://arxiv.org/abs/2310.03744"

    def plan(self, params: Any, context: Context) -> CompressionPlan:
        """Return a plan that changes nothing."""
        tokens = context.features + context.markers
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("none"),
            kept=TokenCount.static(tokens),
            decoder_groups=context.uniform(tokens),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return no parameters: all tokens are kept whatever the budget."""
        return {}


METHOD = NoCompression()
