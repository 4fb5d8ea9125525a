"""HoloV: crops of an image compete for tokens by attention and by diversity."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import BudgetParams, SelectedImages, select
from costmodel.compression.tower import (
    attention_map_bytes,
    executed_layers,
    reading_groups,
    tower_sequences,
)
from costmodel.errors import InputError
from costmodel.ops import Op, copy, elementwise, matmul
from costmodel.symbols import sym

__all__ = ["METHOD"]

_INDEX_BYTES = Integer(8)


class HoloVParams(BudgetParams):
    """How many tokens remain, and how the image is cut."""

    crops: Annotated[int, Field(gt=0, le=10_000)] = Field(
        default=16, description="crops of an image: runs of tokens in reading order"
    )
    leftover: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="crops that get one more token after rounding down (default: half of them)",
    )
    maps: Literal["all", "one"] = Field(
        default="all",
        description="vision layers that keep their attention weights: all, as released, or one",
    )


class HoloV(Method):
    """Every crop gets tokens by the mean of its scores, and keeps those attended to most.

    A score is the class token's attention plus the scaled variance of a token's cosine
    similarity within its crop: ``2 m^2 d / crops`` FLOP.  The released code scores crop by
    crop (26 kernels each) and reads the number of tokens of every crop back to the host.
    Read: the authors' ``utils.py``, ``llava_arch.py`` and ``clip_encoder.py``.
    """

    name = "holov"
    title = "HoloV"
    summary = "Shares k tokens out among the crops of an image by attention and diversity."
    where = "after the projector, by attention of the vision tower"
    reference = "X. Zou et al., Don't Just Chase Highlighted Tokens in MLLMs (HoloV)"
    url = "https://arxiv.org/abs/2510.02912"
    unknown = (
        "How many crops are left a token after rounding down, on which the loop over them "
        "depends (half is assumed), and how many get none or all of their tokens (none is "
        "assumed); tiles of one image are cut together, as released."
    )

    Params = HoloVParams

    def plan(self, params: HoloVParams, context: Context) -> CompressionPlan:
        """Return a plan with eager attention in the tower, scores by crop and their budgets."""
        sequences = tower_sequences(context, self.name, class_token=True)
        chosen = select(params, context, self.name)
        most = min(group.layout.features for group in context.images)
        if params.crops > most:
            raise InputError(
                f"compress {self.name} crops", params.crops, f"at most the {most} visual tokens"
            )
        leftover = params.crops / 2 if params.leftover is None else params.leftover
        if leftover > params.crops:
            raise InputError(
                f"compress {self.name} leftover", params.leftover,
                f"at most the {params.crops} crops",
            )  # fmt: skip
        every = params.maps == "all"
        layers = executed_layers(context) if every else 1
        held = attention_map_bytes(context, sequences) * layers
        ops = [
            op.holding(held)
            for image in chosen.images
            for op in (
                *_scores(image, chosen.width),
                *_budgets(image),
                *_taken(image, chosen.width),
            )
        ]  # fmt: skip
        written = f"all {layers} vision layers" if every else "one vision layer"
        return chosen.plan(
            context,
            self.name,
            ops=tuple(ops),
            values={sym("uc"): params.crops, sym("xc"): leftover},
            tower_groups=reading_groups(context, sequences, every=every),
            needs_attention_weights=True,
            graph_safe=False,
            notes=(
                f"attention weights of {written} are written and kept: no FlashAttention there",
                "a Python loop over crops; the host waits for the budget of each",
            ),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


def _loops(image: SelectedImages) -> Expr:
    return sym("b") * image.units * sym("uc")


def _scores(image: SelectedImages, width: Expr) -> list[Op]:
    """Similarities within each crop, their variance, and the score of tokens and crop."""
    ba, tokens, loops = sym("ba"), image.tokens / sym("uc"), _loops(image)
    vectors = tokens * width * ba
    return [
        elementwise(
            f"{image.label}.normalise", "compression", rows=tokens, cols=width, read=2 * ba,
            write=ba, flops_per_element=Integer(3), launches=Integer(4), repeat=loops,
            live=2 * ba, primitive="reduction", note="positions, norms, division",
        ),
        matmul(
            f"{image.label}.similarity", "compression", batch=Integer(1), m=tokens, n=tokens,
            k=width, a_bytes=vectors, b_bytes=vectors, repeat=loops,
        ),
        elementwise(
            f"{image.label}.variance", "compression", rows=tokens, cols=tokens, read=6 * ba,
            write=5 * ba, flops_per_element=Integer(5), launches=Integer(9), repeat=loops,
            live=4 * ba, primitive="reduction",
            note="without the diagonal: mean and variance by row",
        ),
        elementwise(
            f"{image.label}.score", "compression", rows=tokens, cols=Integer(1), read=11 * ba,
            write=8 * ba, flops_per_element=Integer(9), launches=Integer(12), repeat=loops,
            primitive="reduction", note="attention plus scaled variance, its mean",
        ),
    ]  # fmt: skip


def _budgets(image: SelectedImages) -> list[Op]:
    """Tokens of each crop: a share rounded down, and one more for the best of them."""
    images, crops, left = sym("b") * image.units, sym("uc"), sym("xc")
    ops = [
        elementwise(
            f"{image.label}.share", "compression", rows=images * crops, cols=Integer(1),
            read=10 * _INDEX_BYTES, write=8 * _INDEX_BYTES, flops_per_element=Integer(8),
            launches=17 * images, primitive="reduction", note="weights, rounded down, the rest",
        ),
        elementwise(
            f"{image.label}.leftover", "compression", rows=images * left, cols=Integer(1),
            read=2 * _INDEX_BYTES, write=_INDEX_BYTES, flops_per_element=Integer(1),
            launches=4 * images * left, note="one more token each, one after the other",
        ),
    ]  # fmt: skip
    waits = (4 * images, 2 * images * left)
    return [
        replace(op, host_syncs=count, graph_safe=False)
        for op, count in zip(ops, waits, strict=True)
    ]


def _taken(image: SelectedImages, width: Expr) -> list[Op]:
    loops, images = _loops(image), sym("b") * image.units
    pick = copy(
        f"{image.label}.pick", "compression", rows=image.kept / sym("uc"), cols=width,
        launches=Integer(8), repeat=loops, gather=True,
        note="the host reads the budget three times; top-k, tokens, positions",
    )  # fmt: skip
    return [
        replace(pick, host_syncs=Integer(3), graph_safe=False),
        copy(f"{image.label}.join", "compression", rows=images * image.kept, cols=width,
             launches=2 * images),
        copy(f"{image.label}.stack", "compression", rows=images * image.kept, cols=width,
             launches=Integer(2)),
    ]  # fmt: skip


METHOD = HoloV()
