"""TokenPacker: a trained projector whose coarse queries attend to fine regions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sympy import Symbol

from costmodel.compression.grid import grid_plan, window_for
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.resampling import region_resampler
from costmodel.errors import UnsupportedError
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_TAPS, _HEAD = 4, 128


class PackerParams(Spec):
    """How coarse the queries are."""

    window: Annotated[int, Field(gt=0)] = Field(
        default=2, description="side of the region each query attends to (released: 2, 3, 4)"
    )


class TokenPacker(Method):
    """Queries are the tower's tokens interpolated, keys and values four layers joined.

    In place of the projector; of CLIP's states 12, 16, 22 and 23 are joined, so that 23 layers
    must run. A window of 2 leaves 144 of 576 tokens, 3 leaves 64, 4 leaves 36. The attention
    returns weights, so that no fused kernel runs it. 36,722,688 parameters for LLaVA-1.5-7B,
    whose projector has 20,979,712. Read: the authors' ``multimodal_projector/builder.py`` and
    ``multimodal_encoder/clip_encoder.py`` (CircleRadon/TokenPacker, commits c38f140 and
    298305f), where the tower's width, 1024, and 4 x 1024 joined are fixed.
    """

    name = "tokenpacker"
    title = "TokenPacker"
    summary = "A trained projector: each token of a coarse grid attends to its region of layers."
    where = "after the vision tower, in place of the projector"
    reference = "W. Li et al., TokenPacker: Efficient Visual Projector for Multimodal LLM"
    url = "https://arxiv.org/abs/2407.02392"
    training = "two stages: projector, then language model and projector"
    unknown = (
        "Widths, heads of 128 and layers for other towers than CLIP ViT-L; the version for tiles "
        "of a large image (TokenPacker-HD) is not modelled."
    )

    Params = PackerParams

    def plan(self, params: PackerParams, context: Context) -> CompressionPlan:
        """Return a plan with the resampler and without the projector."""
        width = context.vision.hidden_size
        if width % _HEAD:
            raise UnsupportedError(
                "compress", self.name,
                f"a tower whose width is a multiple of {_HEAD}; {context.model.name}'s is {width}",
            )  # fmt: skip
        ops, weights = region_resampler(context.deployment.fused)
        values: dict[Symbol, float] = {sym("B"): _TAPS, sym("hq"): width // _HEAD}
        return grid_plan(
            context, self.name, params.window, width, before_projector=True,
            replaces_projector=True, tower_layers=context.vision.layers - 1, ops=tuple(ops),
            weights=tuple(weights), values=values, training=self.training,
        )  # fmt: skip

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``window``."""
        return {"window": window_for(context, self.name, kept_per_image)}


METHOD = TokenPacker()
