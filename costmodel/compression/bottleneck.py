"""What methods share that press an image into a few tokens through the language model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sympy import Expr, Integer, Symbol

from costmodel.compression.method import Context
from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TokenCount
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, copy, elementwise
from costmodel.symbols import sym

__all__ = ["bottleneck_plan", "check_budget"]


def bottleneck_plan(
    method: str,
    context: Context,
    bottleneck: int,
    anchors: int,
    ops: Sequence[Op] = (),
    values: dict[Symbol, float] | None = None,
    **rest: Any,
) -> CompressionPlan:
    r"""Return the plan of a method whose text sees an image through bottleneck tokens only.

    All V visual tokens, `anchors` added to each image and `bottleneck` tokens behind it pass
    all layers in one pass with a mask of its own, hence with ``sdpa``.  After it, keys and
    values of the bottleneck alone are kept:

    .. math:: K = 2 b L G D \beta_{kv} (T + u\,k)

    Parameters
    ----------
    method : str
        Its name.
    context : Context
        Model and images.
    bottleneck, anchors : int
        Tokens per image.
    ops, values
        Further operators of the method and values of their symbols.
    **rest
        Other fields of the plan.
    """
    images = sum(group.units for group in context.images)
    # vl: visual tokens of a request; k: bottleneck of one image; u: images; vc: anchors of one.
    features, k, u, added = sym("vl"), sym("k"), sym("u"), sym("vc")
    sizes = {
        features: float(context.features), k: float(bottleneck), u: float(images),
        added: float(anchors),
    }  # fmt: skip
    total = features + u * (k + (added if anchors else Integer(0))) + context.markers
    run = context.deployment.attention
    group = DecoderGroup(
        context.model.text.layers, total, visual_cached=u * k + context.markers,
        attention="sdpa" if run == "flash" else None,
    )  # fmt: skip
    return CompressionPlan(
        method=method,
        insertion=Insertion("llm", 0),
        kept=TokenCount.static(bottleneck * images + context.markers),
        decoder_groups=(group,),
        ops=(*ops, *_masks(method, context, sym("T") + total, u * k)),
        values=sizes | (values or {}),
        notes=(
            f"{context.features + images * (bottleneck + anchors)} visual tokens pass all layers; "
            f"the cache keeps {bottleneck} of each image",
            "a mask of its own rules out flash attention",
        ),
        **rest,
    )


def _masks(label: str, context: Context, tokens: Expr, kept: Expr) -> list[Op]:
    b, ba, L = sym("b"), sym("ba"), Integer(context.model.text.layers)
    width = 2 * sym("G") * sym("D") / (sym("N") if context.deployment.tp > 1 else ONE)
    evict = copy(
        f"{label}.evict", "compression", rows=b * (sym("T") + kept), cols=width,
        launches=Integer(2), repeat=L, gather=True, note="keys and values that stay",
    )  # fmt: skip
    return [
        elementwise(
            f"{label}.mask", "compression", rows=b * tokens, cols=tokens, read=6 * ba,
            write=6 * ba, flops_per_element=ONE, launches=Integer(14), live=3 * ba,
            note="cumulative sums over the bottleneck, masks before and behind it, sum",
        ),
        evict,
    ]  # fmt: skip


def check_budget(kept_per_image: int, context: Context, method: str) -> int:
    """Return the number of bottleneck tokens.

    Raises
    ------
    InputError
        If it is more than an image has.
    """
    images = sum(group.units for group in context.images)
    if kept_per_image * images > context.features:
        raise InputError(
            "visual-tokens-kept", kept_per_image,
            f"at most the {context.features // images} tokens of each image {method} starts from",
        )  # fmt: skip
    return kept_per_image
