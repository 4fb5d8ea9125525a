"""FastV: visual tokens that get little attention in an early layer are dropped after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sympy import Integer

from costmodel.compression.dropping import Drops, drops, later_tokens
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.compression.ranking import (
    attention_row,
    extra_layer,
    map_bytes,
    mean_over_heads,
    take,
)
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_SCORE_BYTES = Integer(4)


class FastVParams(Spec):
    """Layer, share dropped and implementation; K = 2 and R = 50 % are the paper's."""

    layer: Annotated[int, Field(ge=0)] = Field(
        default=2, description="first layer with fewer tokens (K); 0 drops at random before the LLM"
    )
    ratio: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="share of the visual tokens dropped (R; default 0.5)"
    )
    k: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="tokens kept per image after the layer, instead of the ratio"
    )
    variant: Literal["paper", "released", "last-row"] = Field(
        default="released",
        description="how layer K-1 is ranked: run with its weights in memory; run twice, as the "
        "public code does; run as it is, with one row of weights beside it",
    )

    @model_validator(mode="after")
    def _one_of(self) -> FastVParams:
        if self.ratio is not None and self.k is not None:
            raise ValueError("give one of ratio and k, for example k=144")
        return self


class FastV(Method):
    r"""From layer K on, only the visual tokens that the last token attends to most.

    The weights of layer K-1 are averaged over the heads; the last row ranks the visual tokens,
    which keep their positions.  ``paper``: layer K-1 runs once, with eager attention.
    ``released`` (``fastv_kvcache.py``, commit 49dfad7): it runs twice, first with eager
    attention for the weights, then as usual; both runs append to its cache, so that this layer
    holds every token twice, and its weights stay in memory.  ``last-row``: least that can be
    done, not in the public code.  With K = 0 tokens are drawn at random before the first layer.

    Keys and values: all tokens in layers before K, kept ones from K on.  Mean over the layers
    of the visual tokens: ``(K V + (L - K) k) / L``.
    """

    name = "fastv"
    title = "FastV"
    summary = "Drops visual tokens after an early layer by the attention of the last token."
    where = "inside the language model, before layer K"
    reference = "L. Chen et al., An Image is Worth 1/2 Tokens After Layer 2, ECCV 2024"
    url = "https://arxiv.org/abs/2403.06764"
    unknown = (
        "Which implementation the published latencies are of; code without a KV cache prunes anew "
        "in every decode step, which is not modelled."
    )

    Params = FastVParams

    def plan(self, params: FastVParams, context: Context) -> CompressionPlan:
        """Return a plan with full layers, the ranking layer, and layers with fewer tokens."""
        kept = self._kept(params, context)
        if params.layer == 0:
            return _random(self.name, kept, context)
        found = drops(context, self.name, (params.layer,), (kept,))
        before, ranked = found.tokens(0), f"{self.name}.rank"
        layers, ops = found.per_layer(), list[Op]()
        ranking = layers[params.layer - 1]
        maps = map_bytes(context, before)
        if params.variant == "paper":
            ranking = replace(ranking, attention="eager")
        elif params.variant == "released":
            ops += extra_layer(f"{self.name}.weights", context, before)
            ranking = replace(ranking, visual_cached=2 * found.visual(0) + sym("T"), held=maps)
            layers = [
                *layers[: params.layer],
                *(replace(group, held=maps) for group in layers[params.layer :]),
            ]
        layers[params.layer - 1] = ranking
        if params.variant == "last-row":
            ops += attention_row(ranked, context, before)
        else:
            mean = mean_over_heads(ranked, context, before, queries=before)
            ops.append(mean.holding(sym("b") * before * sym("d") * sym("ba")))
        ops += take(ranked, ranked=found.symbols[0], left=found.tokens(1), positions=True)
        return found.plan(
            self.name,
            layers,
            ops=tuple(ops),
            needs_attention_weights=True,
            notes=_notes(params),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k`` so that the mean over all layers is the number asked for."""
        layer = FastVParams().layer
        images = sum(group.units for group in context.images)
        left = later_tokens(context, self.name, kept_per_image, layer)
        return {"layer": layer, "k": max(1, round(left / images))}

    def _kept(self, params: FastVParams, context: Context) -> int:
        images = sum(group.units for group in context.images)
        if params.k is None:
            ratio = 0.5 if params.ratio is None else params.ratio
            return max(1, round(context.features * (1 - ratio)))
        if params.k * images > context.features:
            raise InputError(
                f"compress {self.name} k", params.k,
                f"at most the {context.features // images} visual tokens of each image",
            )  # fmt: skip
        return params.k * images


def _random(name: str, kept: int, context: Context) -> CompressionPlan:
    found = Drops((0,), (context.features, kept), (sym("vl_0"), sym("vl_1")), context.markers,
                  context.model.text.layers)  # fmt: skip
    draw = elementwise(
        f"{name}.draw", "compression", rows=sym("b") * found.symbols[0], cols=ONE,
        read=_SCORE_BYTES, write=_SCORE_BYTES, flops_per_element=ONE, primitive="reduction",
        note="random numbers",
    )  # fmt: skip
    chosen = take(f"{name}.rank", ranked=found.symbols[0], left=found.visual(1), positions=False)
    return CompressionPlan(
        method=name,
        insertion=Insertion("after_projector"),
        kept=TokenCount.static(kept + context.markers),
        decoder_groups=context.uniform(found.visual(1)),
        ops=(draw, *chosen),
        values=found.values,
        notes=("K = 0: a random choice before the language model",),
    )


def _notes(params: FastVParams) -> tuple[str, ...]:
    if params.variant == "paper":
        return (f"eager attention in layer {params.layer - 1}, whose weights are read",)
    if params.variant == "released":
        return (
            f"layer {params.layer - 1} runs twice and is cached twice, as in the public code; its "
            "attention map stays in memory",
        )
    return ("one row of weights beside the attention: not in the public code",)


METHOD = FastV()
