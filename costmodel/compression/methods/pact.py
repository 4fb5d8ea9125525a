"""PACT: unimportant visual tokens pruned by their keys, the others clustered, in one layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.dropping import Drops, drops, later_tokens
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.ranking import projections, uncaptured
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, copy, elementwise, matmul
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_FP32_BYTES = Integer(4)


class PactParams(Spec):
    """Layer, share that is not pruned, and clusters; layer and share are the paper's."""

    layer: Annotated[int, Field(gt=0)] = Field(
        default=4, description="first layer with fewer tokens"
    )
    pruned_to: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.55, description="share of the visual tokens that is clustered; others are pruned"
    )
    k: Annotated[int, Field(gt=0)] = Field(
        default=128, description="clusters per image: an average, as a distance decides"
    )
    rounds: Annotated[int, Field(gt=0, le=1000)] = Field(
        default=3, description="rounds in which cluster centres are found"
    )


class Pact(Method):
    r"""Keys rank tokens, density-peak clustering bounded by a distance merges the important ones.

    Importance is the norm of a token's hidden state times the mean similarity of its key to the
    queries.  Of the n tokens left, distances are 1 - cosine of keys, and pruned tokens near a
    centre join its mean:

    .. math:: F = 2 b (n^2 + (V - n) k) G D

    Centres are found in rounds on the distances between those not yet assigned, each with
    masks of n x n and results read by the host; the last ones one by one in a Python loop, not
    counted.  Labels and means pass through NumPy.  The norm and the projections of the layer are
    computed for all tokens first, and again for those that stay.

    Read: ``transformers/PACT/utils.py`` of orailix/PACT, commit 423c799.  Its code weighs
    clusters by size in later layers (proportional attention), which is not modelled.
    """

    name = "pact"
    title = "PACT"
    summary = "Prunes visual tokens by their keys and clusters the others in an early layer."
    where = "inside the language model, before layer 4"
    reference = "M. Dhouib et al., PACT, CVPR 2025"
    url = "https://arxiv.org/abs/2504.08966"
    unknown = (
        "How many clusters a cutoff gives depends on the image; no distribution is published, so "
        "k is an average treated as fixed."
    )

    Params = PactParams

    def plan(self, params: PactParams, context: Context) -> CompressionPlan:
        """Return a plan with full layers, pruning and clustering, and layers with clusters."""
        images = sum(group.units for group in context.images)
        important = max(1, round(params.pruned_to * context.features))
        kept = params.k * images
        if kept > important:
            raise InputError(
                f"compress {self.name} k", params.k,
                f"at most the {important // images} tokens of each image that pruning leaves",
            )  # fmt: skip
        found = drops(context, self.name, (params.layer,), (kept,))
        ops = [
            *projections(self.name, context, found.tokens(0)),
            *_prune(self.name, found),
            *_cluster(self.name, found, context, params.rounds, important < context.features),
        ]
        return found.plan(
            self.name,
            ops=tuple(uncaptured(ops)),
            values={sym("vr"): float(important)},
            graph_safe=False,
            notes=(
                "the number of clusters depends on the image; k is taken as their average",
                "cluster centres are found in rounds that the host waits for",
            ),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k`` so that the mean over all layers is the number asked for."""
        layer = PactParams().layer
        images = sum(group.units for group in context.images)
        left = later_tokens(context, self.name, kept_per_image, layer)
        share = PactParams().pruned_to
        more = {} if left <= share * context.features else {"pruned_to": 1.0}
        return {"layer": layer, "k": max(1, left // images), **more}


def _width(context: Context) -> Expr:
    return sym("G") / (sym("N") if context.deployment.tp > 1 else ONE) * sym("D")


def _prune(label: str, found: Drops) -> list[Op]:
    b, d, ba = sym("b"), sym("d"), sym("ba")
    rows = b * found.symbols[0]
    return [
        elementwise(f"{label}.importance", "compression", rows=rows, cols=d, read=3 * ba, write=ba,
                    flops_per_element=Integer(4), launches=Integer(8), primitive="reduction",
                    note="norm of states, mean query, similarity of keys, softmax, product"),
        copy(f"{label}.important", "compression", rows=rows, cols=2 * d, launches=Integer(6),
             gather=True, note="top share; states and keys of important and of pruned tokens"),
    ]  # fmt: skip


def _cluster(
    label: str, found: Drops, context: Context, rounds_run: int, some_pruned: bool
) -> list[Op]:
    b, d, ba = sym("b"), sym("d"), sym("ba")
    n, k, width = sym("vr"), found.symbols[1], _width(context)
    pruned = found.symbols[0] - n
    keys = n * width * ba
    rounds = elementwise(
        f"{label}.centres", "compression", rows=n, cols=n, read=6 * ba, write=4 * ba,
        flops_per_element=Integer(4), launches=Integer(24), repeat=b * rounds_run,
        live=4 * ba, primitive="reduction", note="denser neighbours, centres, tokens near them",
    )  # fmt: skip
    labels = elementwise(
        f"{label}.labels", "compression", rows=found.symbols[0], cols=k, read=3 * ba,
        write=2 * ba, flops_per_element=Integer(3), launches=Integer(14), repeat=b,
        primitive="reduction", note="nearest centre, cutoff, labels to the host and back",
    )  # fmt: skip
    nearby = matmul(
        f"{label}.pruned", "compression", batch=ONE, m=pruned, n=k, k=width,
        a_bytes=pruned * width * ba, b_bytes=k * width * ba, repeat=b,
    )  # fmt: skip
    return [
        matmul(f"{label}.distances", "compression", batch=ONE, m=n, n=n, k=width, a_bytes=keys,
               b_bytes=keys, repeat=b),
        elementwise(f"{label}.density", "compression", rows=n, cols=n, read=5 * ba, write=4 * ba,
                    flops_per_element=Integer(5), launches=Integer(13), repeat=b, live=3 * ba,
                    primitive="reduction", note="1 - cosine, clamp, density and its ranks"),
        replace(rounds, host_syncs=Integer(4)),
        *([nearby] if some_pruned else []),
        replace(labels, host_syncs=Integer(3)),
        elementwise(f"{label}.means", "compression", rows=found.symbols[0] + k, cols=d,
                    read=ba + _FP32_BYTES, write=ba + _FP32_BYTES, flops_per_element=Integer(2),
                    launches=Integer(8), repeat=b, primitive="reduction",
                    note="sum of each cluster, division"),
        copy(f"{label}.gather", "compression", rows=b * found.tokens(1), cols=d,
             launches=Integer(3), gather=True, note="text and cluster means"),
    ]  # fmt: skip


METHOD = Pact()
