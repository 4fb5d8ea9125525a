"""DivPrune: the subset of tokens whose members are least alike."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from sympy import Expr, Integer, Rational

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import KeepParams, SelectedImages, select
from costmodel.ops import ONE, Op, copy, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["METHOD"]

_INDEX_BYTES = Integer(8)


class DivPruneParams(KeepParams):
    """How many tokens remain, and how the greedy search is written."""

    impl: Literal["released", "running"] = Field(
        default="released",
        description="released: image by image, all distances to the chosen tokens read in every "
        "step; running: images at once, a running minimum (not in the public code)",
    )


class DivPrune(Method):
    r"""Max-min diversity: each step adds the token farthest from those chosen.

    One product of all normalised tokens of an image, ``2 m^2 c`` FLOP, then k steps.  Step i of
    the released code copies i rows of the m x m distances and takes their minimum:
    ``k (k - 1) m / 2`` distances copied in all, six kernels a step.
    """

    name = "divprune"
    title = "DivPrune"
    summary = "Keeps the k tokens of each image that are least alike, found greedily."
    where = "after the projector (or before it)"
    reference = "S. R. Alvar et al., DivPrune: Diversity-based Visual Token Pruning for LMMs"
    url = "https://arxiv.org/abs/2503.02175"
    unknown = (
        "The released function was read in copies of it in other public code (LightCompress "
        "among them), not in the authors' own files; several images of one request are taken "
        "one by one here, tiles of one image together."
    )

    Params = DivPruneParams

    def plan(self, params: DivPruneParams, context: Context) -> CompressionPlan:
        """Return a plan with the distances, the steps and a gather."""
        chosen = select(params, context, self.name)
        steps = _released if params.impl == "released" else _running
        ops = [op for image in chosen.images for op in steps(image, chosen.width)]
        notes = ("k dependent steps of small kernels, launched one after the other",)
        return chosen.plan(context, self.name, ops=tuple(ops), notes=notes)

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


def _distances(image: SelectedImages, width: Expr, batch: Expr, loops: Expr) -> list[Op]:
    """Normalise, multiply, subtract from one."""
    ba, tokens = sym("ba"), image.tokens
    vectors = batch * tokens * width * ba
    return [
        elementwise(
            f"{image.label}.normalise", "compression", rows=batch * tokens, cols=width,
            read=2 * ba, write=ba, flops_per_element=Integer(3), launches=Integer(2),
            repeat=loops, live=2 * ba, primitive="reduction", note="norms, division",
        ),
        matmul(
            f"{image.label}.similarity", "compression", batch=batch, m=tokens, n=tokens,
            k=width, a_bytes=vectors, b_bytes=vectors, repeat=loops,
        ),
        elementwise(
            f"{image.label}.distance", "compression", rows=batch * tokens, cols=tokens,
            read=ba, write=ba, flops_per_element=ONE, repeat=loops, held=vectors,
        ),
    ]  # fmt: skip


def _released(image: SelectedImages, width: Expr) -> list[Op]:
    problems, tokens, kept, ba = sym("b") * image.units, image.tokens, image.kept, sym("ba")
    matrix = tokens**2 * ba
    # Step i, from 1, reads i rows: half of k (k - 1) in all, k / 2 in the mean.
    mean_rows = kept / 2
    return [
        *_distances(image, width, ONE, problems),
        elementwise(
            f"{image.label}.first", "compression", rows=tokens, cols=tokens, read=ba,
            write=(2 * ba + 2 * _INDEX_BYTES) / tokens, flops_per_element=ONE,
            launches=Integer(3), repeat=problems, held=matrix, primitive="reduction",
            note="second smallest distance of each token, the largest of these, its index kept",
        ),
        copy(
            f"{image.label}.rows", "compression", rows=mean_rows, cols=tokens,
            launches=Integer(3), repeat=problems * (kept - 1), gather=True, held=matrix,
            note="index, then all rows of distances of the chosen tokens, in every step",
        ),
        elementwise(
            f"{image.label}.farthest", "compression", rows=mean_rows, cols=tokens, read=ba,
            write=(ba + _INDEX_BYTES) / mean_rows, flops_per_element=ONE, launches=Integer(3),
            repeat=problems * (kept - 1), held=matrix, primitive="reduction",
            note="minimum over the chosen, token with the largest, its index kept",
        ),
        *_taken(image, width, problems),
    ]  # fmt: skip


def _running(image: SelectedImages, width: Expr) -> list[Op]:
    problems, tokens, ba = sym("b") * image.units, image.tokens, sym("ba")
    matrix = problems * tokens**2 * ba
    return [
        *_distances(image, width, problems, ONE),
        elementwise(
            f"{image.label}.first", "compression", rows=problems * tokens, cols=tokens, read=ba,
            write=(2 * ba + 2 * _INDEX_BYTES) / tokens, flops_per_element=ONE,
            launches=Integer(3), held=matrix, primitive="reduction",
            note="second smallest distance of each token, the largest of these, its index kept",
        ),
        elementwise(
            f"{image.label}.farthest", "compression", rows=problems, cols=tokens, read=4 * ba,
            write=2 * ba, flops_per_element=Integer(2), launches=Integer(4),
            repeat=image.kept - 1, held=matrix, primitive="reduction",
            note="row of the token just chosen, running minimum, the largest, its index kept",
        ),
        *_taken(image, width, ONE),
    ]  # fmt: skip


def _taken(image: SelectedImages, width: Expr, loops: Expr) -> list[Op]:
    problems = sym("b") * image.units
    return [
        copy(
            f"{image.label}.order", "compression", rows=problems * image.kept, cols=ONE,
            read_bytes=_INDEX_BYTES, passes=Rational(2), launches=loops,
            note="indices of the chosen tokens in order of position",
        ),
        copy(f"{image.label}.gather", "compression", rows=problems * image.kept, cols=width,
             launches=loops, gather=True),
    ]  # fmt: skip


METHOD = DivPrune()
