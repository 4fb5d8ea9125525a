"""Saliency and clustering together: which tokens matter, and which say the same."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field
from sympy import Expr, Integer, Symbol

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.saliency import (
    SaliencyParams,
    gathers_later,
    saliency_plan,
    score_ops,
)
from costmodel.compression.selection import SelectedImages, rank_and_gather, select
from costmodel.ops import Op, copy, elementwise
from costmodel.ops.kmeans import KMeansImpl, KMeansProblem, kmeans
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]

_FP32_BYTES = Integer(4)
_INDEX_BYTES = Integer(8)


class SaliencyClusterParams(SaliencyParams):
    """Where the saliency comes from, how it is combined with clusters, and the clustering."""

    rule: Literal["top-k", "pick", "rest"] = Field(
        default="pick",
        description="top-k: by score alone; pick: k clusters, the most salient token of each; "
        "rest: some by score, the others clustered",
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="with rule=rest: share of the k tokens kept by score"
    )
    iterations: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=10, description="Lloyd iterations that run"
    )
    impl: KMeansImpl = Field(
        default="eager",
        description="torch kernels by image, batched without syncs, that compiled, or the CPU",
    )


class SaliencyAndClustering(Method):
    """Scores as in cross-modal saliency, k-means as in Cluster & Aggregate; costs add up.

    ``rule=pick``: k clusters of all m tokens, of each the most salient token.  ``rule=rest``:
    the ``share * k`` most salient tokens stay, the others become ``(1 - share) k`` cluster
    means.  ``rule=top-k`` is the saliency alone.
    """

    name = "saliency-cluster"
    title = "Saliency and clustering"
    summary = "Saliency picks the token of each cluster, or keeps some and clusters the others."
    where = "before the language model, or after one of its layers"
    reference = "Y. Omri et al., Token Sequence Compression for Efficient Multimodal Computing"
    url = "https://arxiv.org/abs/2504.17892"
    unknown = (
        "The definitions of the paper's combinations, the share kept by score, and all "
        "settings of the clustering: composed here from their parts."
    )

    Params = SaliencyClusterParams

    def plan(self, params: SaliencyClusterParams, context: Context) -> CompressionPlan:
        """Return a plan with scores, clusters and what joins them."""
        chosen = select(params, context, self.name)
        later = gathers_later(params)
        values: dict[Symbol, float] = {}
        found: list[Op] = []
        for index, image in enumerate(chosen.images):
            salient = indexed("ks", index, len(chosen.images))
            by_score = image.kept_count
            if params.rule == "rest":
                by_score = max(1, round(params.share * image.kept_count))
                values[salient] = by_score
            if params.rule == "top-k" or (by_score == image.kept_count and params.rule == "rest"):
                values.pop(salient, None)
                found += rank_and_gather(image, chosen.width, gather=not later)
                continue
            clusters = image.kept_count - (by_score if params.rule == "rest" else 0)
            values |= _settings(params, clusters, index, len(chosen.images))
            made = _pick if params.rule == "pick" else _rest
            trials = indexed("J", index, len(chosen.images))
            found += made(params, image, salient, chosen.width, trials, context, later)
        ops = score_ops(params, context, chosen, self.name)
        # The hidden state is rebuilt once the tokens of all images are known.
        ops = [*ops[:-1], *found, ops[-1]] if later else [*ops, *found]
        clustered = sym("I") in values
        notes = ("iterations, share and implementation are assumptions: no text states them",)
        return saliency_plan(
            params, context, self.name, chosen, ops, values=values,
            notes=notes if clustered else (),
            graph_safe=not clustered or params.impl in ("fused", "compiled"),
        )  # fmt: skip

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


def _settings(
    params: SaliencyClusterParams, clusters: int, index: int, kinds: int
) -> dict[Symbol, float]:
    trials = 2 + math.floor(math.log(clusters)) if params.impl == "sklearn" else 1
    return {
        sym("I"): params.iterations,
        sym("R"): 1,
        indexed("J", index, kinds): trials,
    }


def _clusters(
    params: SaliencyClusterParams,
    image: SelectedImages,
    points: Expr,
    centres: Expr,
    width: Expr,
    trials: Symbol,
    context: Context,
) -> list[Op]:
    problem = KMeansProblem(
        image.label, sym("b") * image.units, points, centres, width, sym("I"), sym("R"), trials
    )
    casts = context.deployment.dtype != "fp32"
    return kmeans(problem, params.impl, params.impl == "eager", casts)


def _pick(
    params: SaliencyClusterParams,
    image: SelectedImages,
    salient: Symbol,
    width: Expr,
    trials: Symbol,
    context: Context,
    later: bool,
) -> list[Op]:
    """K clusters of all tokens, and the most salient token of each."""
    problems = sym("b") * image.units
    ops = _clusters(params, image, image.tokens, image.kept, width, trials, context)
    ops.append(
        elementwise(
            f"{image.label}.pick", "compression", rows=problems * image.tokens, cols=Integer(1),
            read=3 * _FP32_BYTES + 2 * _INDEX_BYTES, write=2 * _FP32_BYTES + _INDEX_BYTES,
            flops_per_element=Integer(3), launches=Integer(8), primitive="reduction",
            note="largest score by cluster, where it is reached, first such token, sort",
        )
    )  # fmt: skip
    if not later:
        ops.append(
            copy(f"{image.label}.gather", "compression", rows=problems * image.kept, cols=width,
                 gather=True)
        )  # fmt: skip
    return ops


def _rest(
    params: SaliencyClusterParams,
    image: SelectedImages,
    salient: Symbol,
    width: Expr,
    trials: Symbol,
    context: Context,
    later: bool,
) -> list[Op]:
    """The most salient tokens, and cluster means of the others."""
    problems = sym("b") * image.units
    others, centres = image.tokens - salient, image.kept - salient
    ops = [
        elementwise(
            f"{image.label}.rank", "compression", rows=problems * image.tokens, cols=Integer(1),
            read=_FP32_BYTES, write=_FP32_BYTES + _INDEX_BYTES, flops_per_element=Integer(1),
            primitive="topk", note="all tokens by falling score",
        ),
        copy(f"{image.label}.split", "compression", rows=problems * image.tokens, cols=width,
             launches=Integer(2), gather=True, note="tokens kept, and tokens to cluster"),
        *_clusters(params, image, others, centres, width, trials, context),
    ]  # fmt: skip
    if not later:
        ops.append(
            copy(f"{image.label}.join", "compression", rows=problems * image.kept, cols=width)
        )
    return ops


METHOD = SaliencyAndClustering()
