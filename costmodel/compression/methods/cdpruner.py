"""CDPruner: the subset of tokens that is diverse given the question."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.clip_text import clip_text_of, clip_text_ops, clip_text_weights
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import BudgetParams, SelectedImages, select
from costmodel.ops import ONE, Op, Traffic, Weights, copy, elementwise, gemm, matmul, norm
from costmodel.symbols import sym

__all__ = ["METHOD"]

_FP32 = Integer(4)
_INDEX_BYTES = Integer(8)


class CDPrunerParams(BudgetParams):
    """How many tokens remain, and how long the question is."""

    text_segments: Annotated[int, Field(gt=0, le=1000)] = Field(
        default=1, description="segments of 77 tokens the question is cut into for CLIP's tower"
    )


class CDPruner(Method):
    r"""Greedy maximum of a determinantal point process conditioned on the question.

    The kernel is similarity (``2 m^2 d`` FLOP, in fp32) times relevance, which is the cosine of
    visual tokens and question in CLIP's joint space: a text tower runs beside the vision tower.
    Step i of k updates an incremental Cholesky factor with ``2 i m`` FLOP, ``k (k - 1) m`` in
    all: seventeen kernels a step.
    """

    name = "cdpruner"
    title = "CDPruner"
    summary = "Keeps k tokens of each image: a determinantal point process given the question."
    where = "after the projector, with CLIP's text tower beside the vision tower"
    reference = "Q. Zhang et al., Beyond Attention or Similarity: Maximizing Conditional Diversity"
    url = "https://arxiv.org/abs/2506.10967"
    unknown = (
        "Text towers of models without CLIP. The released code keeps text tower and projections "
        "in fp32, runs the text tower on a second stream while the vision tower runs, and prunes "
        "tiles of one image apart: here its weights have the format of the others, its time is "
        "added, fp32 products run at the rate of the activations' format, and tiles are pruned "
        "together."
    )

    Params = CDPrunerParams

    def plan(self, params: CDPrunerParams, context: Context) -> CompressionPlan:
        """Return a plan with text tower, relevance, kernel and greedy steps."""
        text = clip_text_of(context, self.name)
        chosen = select(params, context, self.name)
        casts = context.deployment.dtype != "fp32"
        ops = clip_text_ops(f"{self.name}.text", context)
        # The host waits for both streams.
        ops[-1] = replace(ops[-1], host_syncs=ONE, graph_safe=False)
        for image in chosen.images:
            ops += [*_relevance(image, casts), *_kernel(image, chosen.width, casts)]
            ops += _steps(image, chosen.width)
        weights = [
            *clip_text_weights(f"{self.name}.text"),
            Weights(f"{self.name}.visual_projection", "compression", sym("dv") * sym("et")),
        ]
        return chosen.plan(
            context,
            self.name,
            ops=tuple(ops),
            weights=tuple(weights),
            values=text.values(params.text_segments),
            graph_safe=False,
            notes=(
                "CLIP's text tower is loaded and runs for every question",
                "k dependent steps of small kernels, launched one after the other",
                "the tokens depend on the question: another question needs another prefill",
            ),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


def _product(label: str, image: SelectedImages, m: Expr, n: Expr, k: Expr, repeat: Expr) -> Op:
    """Return a product in fp32 of the images of one kind, once per request."""
    batch = image.units
    left, right, out = batch * m * k * _FP32, batch * k * n * _FP32, batch * m * n * _FP32
    made = matmul(
        f"{image.label}.{label}", "compression", batch=batch, m=m, n=n, k=k, a_bytes=left,
        b_bytes=right, repeat=repeat * sym("b"),
    )  # fmt: skip
    return replace(made, traffic=Traffic(act_in=left + right, act_out=out), live=left + right + out)


def _relevance(image: SelectedImages, casts: bool) -> list[Op]:
    """Visual tokens and the question in CLIP's joint space, and how close they are."""
    b, ba, wide = sym("b"), sym("ba"), sym("dv")
    rows, joint = image.units * image.tokens, sym("et")
    ops = [
        norm(f"{image.label}.post_norm", "compression", rows=rows, cols=wide, kind="layernorm",
             fused=False, repeat=b),
        gemm(f"{image.label}.visual_projection", "compression", m=rows, n=joint, k=wide,
             repeat=b),
        elementwise(
            f"{image.label}.normalise_joint", "compression", rows=rows + sym("st"), cols=joint,
            read=2 * _FP32, write=_FP32, flops_per_element=Integer(3), launches=Integer(4),
            repeat=b, primitive="reduction", note="norms and division, of images and text",
        ),
        _product("relevance", image, image.tokens, sym("st"), joint, ONE),
        elementwise(
            f"{image.label}.scale", "compression", rows=rows, cols=sym("st"), read=9 * _FP32,
            write=7 * _FP32, flops_per_element=Integer(7), launches=Integer(9), repeat=b,
            primitive="reduction", note="negate, mean over the text, to the range 0 to 1",
        ),
    ]  # fmt: skip
    if casts:
        ops.insert(
            1,
            elementwise(f"{image.label}.widen", "compression", rows=rows, cols=wide, read=ba,
                        write=_FP32, flops_per_element=Integer(0), repeat=b),
        )  # fmt: skip
    return ops


def _kernel(image: SelectedImages, width: Expr, casts: bool) -> list[Op]:
    b, ba, tokens = sym("b"), sym("ba"), image.tokens
    rows = image.units * tokens
    narrow = ba if casts else Integer(0)
    return [
        elementwise(
            f"{image.label}.normalise", "compression", rows=rows, cols=width,
            read=2 * ba + narrow, write=ba + (_FP32 if casts else 0),
            flops_per_element=Integer(3), launches=Integer(3 if casts else 2), repeat=b,
            live=2 * ba + _FP32, primitive="reduction", note="norms, division, cast to fp32",
        ),
        _product("similarity", image, tokens, tokens, width, ONE),
        elementwise(
            f"{image.label}.kernel", "compression", rows=rows, cols=tokens, read=2 * _FP32,
            write=2 * _FP32, flops_per_element=Integer(2), launches=Integer(2), repeat=b,
            live=3 * _FP32, held=rows * width * (ba + _FP32),
            note="relevance times similarity times relevance",
        ),
    ]  # fmt: skip


def _steps(image: SelectedImages, width: Expr) -> list[Op]:
    b, tokens, kept = sym("b"), image.tokens, image.kept
    rows = image.units * tokens
    # Alive all the while: similarity, kernel, the factor, and the normalised tokens.
    held = rows * (_FP32 * (2 * tokens + kept) + width * (sym("ba") + _FP32))
    ops = [
        elementwise(
            f"{image.label}.start", "compression", rows=rows, cols=kept, read=_FP32 / kept,
            write=_FP32 + _FP32 / kept, flops_per_element=Integer(0), launches=Integer(3),
            repeat=b, held=held, note="empty factor, diagonal, a first step on nothing",
        ),
        # Step i, from 1, has i rows: k (k - 1) / 2 in all, k / 2 in the mean.
        _product("cholesky", image, ONE, tokens, kept / 2, kept - 1).holding(held),
        elementwise(
            f"{image.label}.update", "compression", rows=image.units, cols=tokens,
            read=9 * _FP32, write=7 * _FP32, flops_per_element=Integer(6),
            launches=Integer(16), repeat=b * kept, held=held, primitive="reduction",
            note="best token, its row, subtract, divide, keep, square, subtract, strike out",
        ),
        copy(
            f"{image.label}.gather", "compression", rows=image.units * kept, cols=width,
            launches=Integer(4), repeat=b, gather=True,
            note="sort, mask, tokens of the mask: their number is read back",
        ),
    ]  # fmt: skip
    ops[-1] = replace(ops[-1], host_syncs=ONE, graph_safe=False)
    return ops


METHOD = CDPruner()
