"""M3: average pooling nested like matryoshka dolls, one trained model for all scales."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field
from sympy import Integer

from costmodel.compression.grid import grid_plan
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError
from costmodel.ops import elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]


class NestedParams(Spec):
    """The scale."""

    tokens: Annotated[int, Field(gt=0)] = Field(
        default=144, description="tokens of each tile's grid: 1, 9, 36, 144 or 576 of 24x24"
    )


class MatryoshkaMultimodal(Method):
    """``avg_pool2d`` behind the projector, windows of 1, 2, 4, 8 and 24 for 24x24 tokens.

    One kernel.  Read: the authors' ``llava_arch.py`` (``matryoshka_vis_token_process``).
    Scales of other grids halve the side as long as it is even; the last is one token.
    """

    name = "m3"
    title = "Matryoshka Multimodal Models (M3)"
    summary = "Pools tokens to one of the nested scales 576, 144, 36, 9 and 1 of a trained model."
    where = "after the projector"
    reference = "M. Cai et al., Matryoshka Multimodal Models, ICLR 2025"
    url = "https://arxiv.org/abs/2405.17430"
    training = "model fine-tuned on all scales"
    unknown = "Scales of grids other than 24x24."

    Params = NestedParams

    def plan(self, params: NestedParams, context: Context) -> CompressionPlan:
        """Return a plan with one pooling kernel."""
        ba = sym("ba")
        window = _window(context, params.tokens, "compress m3 tokens")
        pool = elementwise(
            "m3.pool", "compression", rows=sym("b") * sym("m"), cols=sym("c"), read=ba,
            write=Integer(1) / sym("a") ** 2 * ba, flops_per_element=Integer(1),
        )  # fmt: skip
        return grid_plan(
            context, self.name, window, context.model.text.hidden_size, before_projector=False,
            ops=(pool,), training=self.training,
        )  # fmt: skip

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``tokens``."""
        tiles = context.features // context.square_grid(self.name) ** 2
        images = sum(group.units for group in context.images)
        tokens = kept_per_image * images / tiles
        if tokens != int(tokens):
            raise InputError("visual-tokens-kept", kept_per_image, f"a multiple of {tiles} tiles")
        _window(context, int(tokens), "visual-tokens-kept")
        return {"tokens": int(tokens)}


def _window(context: Context, tokens: int, field: str) -> int:
    side = context.square_grid("m3")
    windows = [1]
    while side % (2 * windows[-1]) == 0:
        windows.append(2 * windows[-1])
    windows = sorted({*windows, side})
    window = side // math.isqrt(tokens) if tokens <= side**2 else 0
    if window not in windows or (side // window) ** 2 != tokens:
        scales = ", ".join(str((side // one) ** 2) for one in reversed(windows))
        raise InputError(field, tokens, f"a scale of m3 for a {side}x{side} grid: {scales}")
    return window


METHOD = MatryoshkaMultimodal()
