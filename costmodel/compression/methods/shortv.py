"""ShortV: visual tokens rest in the layers that change them least."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, field_validator
from sympy import Integer

from costmodel.compression.dropping import grouped, numbers
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TokenCount
from costmodel.errors import InputError
from costmodel.ops import copy
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

RELEASED = {
    32: (31, 29, 30, 28, 0, 26, 27, 25, 24, 22, 23, 21, 2, 3, 20, 18, 17, 12, 19),
    40: (39, 32, 28, 36, 27, 37, 29, 30, 1, 38, 25, 31, 2, 26, 23, 34, 0, 33, 35, 22, 24, 21,
         20, 17),
}  # fmt: skip
"""Layers of LLaVA-1.5-7B and 13B in which visual tokens rest, least important first."""


class ShortVParams(Spec):
    """Which layers, or how many."""

    layers: str | None = Field(
        default=None, description="layers in which visual tokens rest, such as 17+18+31"
    )
    n: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="how many layers instead, the first of the released order (default: all of it)",
    )

    @field_validator("layers")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            numbers(text, "layers")
        return text


class ShortV(Method):
    r"""In N of the L layers visual tokens have keys and values, but no query and no MLP.

    Such a layer computes queries, output and MLP for the text alone, which attends to all:

    .. math:: F = 2 b [T (2 H D d + 3 d f) + 2 (T + V) G D d] + 4 b T (T + V) H D

    FLOPs fall; the KV cache and the peak of memory do not.  Text before the image makes the
    mask no triangle, so that these layers attend through an explicit mask (sdpa), and text is
    cut out of the hidden state for queries and MLP and put back (six copies each layer).

    Read: ``llava_llama.py`` and README of icip-cas/ShortV, commit 9cc78e8.
    """

    name = "shortv"
    title = "ShortV"
    summary = "Freezes visual tokens in ineffective layers; keys and values are kept."
    where = "inside the language model, in N of its layers"
    reference = "Q. Yuan et al., ShortV, ICCV 2025"
    url = "https://arxiv.org/abs/2504.00502"
    unknown = "Layers of other models than LLaVA-1.5: the last layers are taken for another depth."

    Params = ShortVParams

    def plan(self, params: ShortVParams, context: Context) -> CompressionPlan:
        """Return a plan whose frozen layers compute text, with keys of all tokens."""
        frozen = set(_frozen(params, context))
        total = context.features + context.markers
        b, d, ba = sym("b"), sym("d"), sym("ba")
        visual, text = sym("vl_0") + context.markers, sym("T")
        run = context.deployment.attention
        rests = DecoderGroup(
            1, Integer(0), visual_kv=visual, attention="sdpa" if run == "flash" else None,
            held=b * visual * d * ba,
        )  # fmt: skip
        works = DecoderGroup(1, visual)
        depth = context.model.text.layers
        cuts = copy(
            f"{self.name}.cut", "compression", rows=b * text, cols=d, launches=Integer(6),
            passes=Integer(6), repeat=Integer(len(frozen)), note="text cut out and put back",
        )  # fmt: skip
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("llm", min(frozen)),
            kept=TokenCount.static(total),
            decoder_groups=grouped(rests if i in frozen else works for i in range(depth)),
            ops=(replace(cuts, live=cuts.live + b * visual * d * ba),),
            values={sym("vl_0"): float(context.features)},
            notes=(f"visual tokens rest in {len(frozen)} of {depth} layers; all stay cached",),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return the number of layers whose mean of working visual tokens is nearest."""
        depth = context.model.text.layers
        images = sum(group.units for group in context.images)
        n = round(depth * (1 - kept_per_image * images / context.features))
        most = len(_order(depth))
        if not 1 <= n <= most:
            least = context.features / images * (1 - most / depth)
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"{least:.0f} to {context.features / images * (1 - 1 / depth):.0f} tokens of each "
                f"image as the mean over layers: the released order has {most} layers",
            )  # fmt: skip
        return {"n": n}


def _order(depth: int) -> tuple[int, ...]:
    return RELEASED.get(depth, tuple(range(depth - 1, depth - 1 - round(0.6 * depth), -1)))


def _frozen(params: ShortVParams, context: Context) -> tuple[int, ...]:
    depth = context.model.text.layers
    if params.layers is not None:
        chosen = numbers(params.layers, "layers")
        if len(set(chosen)) != len(chosen) or max(chosen) >= depth:
            raise InputError(
                "compress shortv layers", params.layers, f"different layers from 0 to {depth - 1}"
            )
        return chosen
    order = _order(depth)
    if params.n is not None and params.n > len(order):
        raise InputError("compress shortv n", params.n, f"at most {len(order)}, or give layers")
    return order[: params.n]


METHOD = ShortV()
