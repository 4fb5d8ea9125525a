"""Cluster & Aggregate: k-means over the visual tokens, each cluster replaced by its mean."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field
from sympy import Integer, Symbol

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import KeepParams, select
from costmodel.ops import Op, copy
from costmodel.ops.kmeans import KMeansImpl, KMeansProblem, kmeans
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]


class ClusterParams(KeepParams):
    """Parameters of the clustering.

    The paper states neither iterations nor restarts, format or library; the
    defaults are those of a plain GPU implementation.
    """

    iterations: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=10, description="Lloyd iterations that run"
    )
    n_init: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=1, description="restarts, the best is kept"
    )
    init_trials: Annotated[int, Field(gt=0, le=10_000)] | None = Field(
        default=None,
        description="candidates per k-means++ centre (default 1; sklearn: 2 + floor(ln k))",
    )
    impl: KMeansImpl = Field(
        default="eager",
        description="torch kernels by image, batched without syncs, that compiled, or the CPU",
    )
    check: bool | None = Field(
        default=None, description="convergence test each iteration: a host sync (default: eager)"
    )
    order: Literal["insertion", "position"] = Field(
        default="insertion", description="order of the clusters in the prompt"
    )


class ClusterAndAggregate(Method):
    """k-means++ and Lloyd on the tokens of each image; k cluster means enter the model.

    FLOPs of the distance products per image of m tokens of width c:
    ``2 m c n_init (1 + trials (k - 1)) + 2 m k c iterations n_init``.
    """

    name = "cluster"
    title = "Cluster & Aggregate"
    summary = "k-means++ and Lloyd over the visual tokens; k cluster means enter the model."
    where = "after the projector (or before it)"
    reference = "Y. Omri et al., Token Sequence Compression for Efficient Multimodal Computing"
    url = "https://arxiv.org/abs/2504.17892"
    unknown = "Iterations, tolerance, n_init, number format and library are not published."

    Params = ClusterParams

    def plan(self, params: ClusterParams, context: Context) -> CompressionPlan:
        """Return a plan with the clustering of every image."""
        chosen = select(params, context, self.name)
        kinds = len(chosen.images)
        check = params.impl == "eager" if params.check is None else params.check
        ops: list[Op] = []
        values: dict[Symbol, float] = {sym("I"): params.iterations, sym("R"): params.n_init}
        for index, image in enumerate(chosen.images):
            trials = indexed("J", index, kinds)
            values[trials] = _trials(params, image.kept_count)
            problems = sym("b") * image.units
            problem = KMeansProblem(
                image.label, problems, image.tokens, image.kept, chosen.width,
                sym("I"), sym("R"), trials,
            )  # fmt: skip
            casts = context.deployment.dtype != "fp32"
            ops += kmeans(problem, params.impl, check, casts)
            if params.order == "position":
                each = sym("R") * problems if params.impl == "eager" else Integer(1)
                ops.append(
                    copy(
                        f"{image.label}.reorder", "compression", rows=problems * image.kept,
                        cols=chosen.width, launches=6 * each,
                        note="mean position per cluster, sort, gather",
                    )
                )  # fmt: skip
        return chosen.plan(
            context,
            self.name,
            values=values,
            ops=tuple(ops),
            graph_safe=params.impl in ("fused", "compiled") and not check,
            notes=_notes(params, check),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


def _trials(params: ClusterParams, kept: int) -> int:
    if params.init_trials is not None:
        return params.init_trials
    return 2 + math.floor(math.log(kept)) if params.impl == "sklearn" else 1


def _notes(params: ClusterParams, check: bool) -> tuple[str, ...]:
    notes = ["iterations, restarts and implementation are assumptions: the paper states none"]
    if params.impl == "sklearn":
        notes.append("clustering on the CPU: tokens cross the host link both ways")
    if check:
        notes.append("convergence test: the host waits for the GPU in every iteration")
    return tuple(notes)


METHOD = ClusterAndAggregate()
