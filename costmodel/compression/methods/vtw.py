"""VTW: all visual tokens are withdrawn in the middle of the language model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sympy import Integer

from costmodel.compression.dropping import drops
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError
from costmodel.ops import ONE, copy
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]


class VtwParams(Spec):
    """The layer; the default is the one of the public code for LLaVA-1.5-7B."""

    layer: Annotated[int, Field(gt=0)] = Field(
        default=15, description="first layer without visual tokens (K)"
    )


class VisualTokensWithdrawal(Method):
    """Layers from K on see text alone: one concatenation, no scores.

    Read: ``llava/model/language_model/VTW.py``, commit 34a4199 (k = 15).  The layer is chosen
    beforehand by the divergence of the logits on a few examples, which is not part of a request.
    Markers that an image brings along stay.  Keys and values of visual tokens exist in the first
    K layers only.
    """

    name = "vtw"
    title = "Visual Tokens Withdrawal"
    summary = "Drops all visual tokens before a layer in the middle of the language model."
    where = "inside the language model, before layer K"
    reference = "Z. Lin et al., Boosting Multimodal LLMs with Visual Tokens Withdrawal, AAAI 2025"
    url = "https://arxiv.org/abs/2405.05803"
    unknown = "The layer for other models than those of the paper, which searches it on examples."

    Params = VtwParams

    def plan(self, params: VtwParams, context: Context) -> CompressionPlan:
        """Return a plan with two decoder groups."""
        found = drops(context, self.name, (params.layer,), (0,))
        text = found.tokens(1)
        withdraw = copy(
            f"{self.name}.concat", "compression", rows=sym("b") * text, cols=sym("d"),
            note="text before and behind the image",
        )  # fmt: skip
        positions = copy(
            f"{self.name}.positions", "compression", rows=sym("b") * text, cols=ONE,
            read_bytes=Integer(8),
        )  # fmt: skip
        return found.plan(self.name, ops=(withdraw, positions))

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return the layer whose mean over all layers is nearest to the number asked for."""
        depth = context.model.text.layers
        images = sum(group.units for group in context.images)
        layer = round(kept_per_image * images * depth / context.features)
        if not 1 <= layer < depth:
            per_image = context.features / images
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"{per_image / depth:.0f} to {per_image * (depth - 1) / depth:.0f} tokens of each "
                "image as the mean over layers",
            )  # fmt: skip
        return {"layer": layer}


METHOD = VisualTokensWithdrawal()
