"""DART: visual tokens least like a few pivots stay, from an early layer on."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.dropping import drops, later_tokens
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.ranking import take, uncaptured
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, copy, elementwise, norm
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]


class DartParams(Spec):
    """Layer, tokens and pivots; pivots and layer are those of the public scripts."""

    layer: Annotated[int, Field(gt=0)] = Field(
        default=2, description="first layer with fewer tokens (K)"
    )
    k: Annotated[int, Field(gt=0)] = Field(default=128, description="tokens kept per image")
    pivots: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=8, description="pivots of image and text together"
    )


class Dart(Method):
    r"""For each pivot, the visual tokens with the least cosine similarity to it stay.

    Pivots are the tokens with the largest L1 norm of keys (4 of the image and 4 of the text);
    states are those after layer K-1, normed again.  A Python loop over the pivots gathers the
    candidates left, compares (about 5 c d FLOP per pivot of c candidates, no matrix product),
    takes the top and reads it back to the host, which keeps the sets.  No attention weights are
    read: flash attention stays.

    Read: copies of the authors' ``modeling_*_self.py`` and scripts in other public repositories,
    the authors' own is not stored.
    """

    name = "dart"
    title = "DART"
    summary = "Keeps the visual tokens least like a few pivots, from an early layer on."
    where = "inside the language model, before layer K"
    reference = "Z. Wen et al., Stop Looking for Important Tokens in MLLMs, EMNLP 2025"
    url = "https://arxiv.org/abs/2502.11494"
    unknown = "Exact counts: the public loop rounds tokens per pivot; k is taken as given."

    Params = DartParams

    def plan(self, params: DartParams, context: Context) -> CompressionPlan:
        """Return a plan with full layers, the choice, and layers with fewer tokens."""
        images = sum(group.units for group in context.images)
        if params.k * images > context.features:
            raise InputError(
                f"compress {self.name} k", params.k,
                f"at most the {context.features // images} visual tokens of each image",
            )  # fmt: skip
        found = drops(context, self.name, (params.layer,), (params.k * images,))
        before, visual = found.tokens(0), found.symbols[0]
        # Candidates leave the set pivot by pivot: on average half of those kept are gone.
        candidates = visual - found.symbols[1] / 2
        b = sym("b")
        ops = [
            norm(f"{self.name}.norm", "compression", rows=b * before, cols=sym("d"),
                 kind=context.model.text.norm, fused=context.deployment.fused),
            *_pivots(self.name, before, context),
            *_loop(self.name, candidates, b * params.pivots),
            *take(self.name, ranked=visual, left=found.tokens(1), positions=True, kernels=3),
        ]  # fmt: skip
        return found.plan(
            self.name,
            ops=tuple(uncaptured(ops)),
            graph_safe=False,
            notes=(f"a Python loop over {params.pivots} pivots that waits for the device",),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k`` so that the mean over all layers is the number asked for."""
        layer = DartParams().layer
        images = sum(group.units for group in context.images)
        left = later_tokens(context, self.name, kept_per_image, layer)
        return {"layer": layer, "k": max(1, round(left / images))}


def _pivots(label: str, tokens: Expr, context: Context) -> list[Op]:
    b, ba = sym("b"), sym("ba")
    width = sym("G") / (sym("N") if context.deployment.tp > 1 else ONE) * sym("D")
    chosen = elementwise(
        f"{label}.pivots", "compression", rows=b * tokens, cols=width, read=2 * ba, write=ba,
        flops_per_element=Integer(2), launches=Integer(5), primitive="reduction",
        note="keys of all heads side by side, their L1 norm, top-k of image and text",
    )  # fmt: skip
    return [replace(chosen, host_syncs=2 * b)]


def _loop(label: str, candidates: Expr, times: Expr) -> list[Op]:
    d, ba = sym("d"), sym("ba")
    compare = elementwise(
        f"{label}.similarity", "compression", rows=candidates, cols=d, read=3 * ba, write=ba,
        flops_per_element=Integer(5), launches=Integer(8), repeat=times, live=2 * ba,
        primitive="reduction", note="norms, products, sum, sign, top-k of one pivot",
    )  # fmt: skip
    return [
        copy(f"{label}.candidates", "compression", rows=candidates, cols=d, launches=Integer(2),
             repeat=times, gather=True, note="indices from the host, states of candidates"),
        replace(compare, host_syncs=ONE),
    ]  # fmt: skip


METHOD = Dart()
