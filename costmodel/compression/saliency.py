"""How much the text attends to each visual token: three ways to compute it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.blocks import LayerTokens, Style, decoder_layers
from costmodel.compression.method import Context
from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TokenCount
from costmodel.compression.selection import BudgetParams, SelectedImages, Selection
from costmodel.errors import InputError
from costmodel.ops import ONE, ZERO, Op, collective, copy, elementwise, gemm, matmul
from costmodel.symbols import sym

__all__ = ["SaliencyParams", "gathers_later", "saliency_plan", "score_ops"]

_FP32_BYTES = Integer(4)
_HEADS_TO_MEAN = Integer(2)


class SaliencyParams(BudgetParams):
    """How many tokens remain, and where the saliency comes from.

    Attributes
    ----------
    variant : {"embedding", "projected", "layer"}
        Text against visual embeddings before the language model; queries and keys of one of
        its layers computed for that alone; or the attention of one of its layers as it runs.
    layer : int
        Of variant ``layer``: decoder layer whose attention is read, from 0.
    then : {"continue", "restart"}
        Of variant ``layer``: go on with fewer tokens after it, or start again from the first
        layer.
    """

    variant: Literal["embedding", "projected", "layer"] = Field(
        default="embedding", description="where the saliency comes from"
    )
    layer: Annotated[int, Field(ge=0)] = Field(
        default=2, description="with variant=layer: decoder layer whose attention is read, from 0"
    )
    then: Literal["continue", "restart"] = Field(
        default="continue",
        description="with variant=layer: go on after it with fewer tokens, or start again",
    )

    @model_validator(mode="after")
    def _layer_only(self) -> Self:
        extra = sorted({"layer", "then"} & self.model_fields_set)
        if self.variant != "layer" and extra:
            raise ValueError(f"{extra[0]} is for variant=layer, not variant={self.variant}")
        return self


def gathers_later(params: SaliencyParams) -> bool:
    """Whether tokens are taken out of the hidden state of the prompt, text included."""
    return params.variant == "layer" and params.then == "continue"


def score_ops(params: SaliencyParams, context: Context, chosen: Selection, method: str) -> list[Op]:
    r"""Operators of the saliency; beside them come its use and what layers cost more.

    For t text and m visual tokens of width d, per image,

    .. math:: F_\mathrm{embedding} = 2tmd, \quad
              F_\mathrm{projected} = 2tmd + 2(t + m)d^2

    (the second for as many key heads as query heads).  Variant ``layer`` adds no product:
    the layer writes its scores, :math:`2 (t + m)^2 d` of its FLOPs, instead of fusing them.

    Returns
    -------
    list of Op

    References
    ----------
    .. [1] Y. Omri et al., "Token Sequence Compression for Efficient Multimodal Computing",
       arXiv:2504.17892 (the exact definition of its saliency is not public).
    """
    if params.variant == "layer":
        return _layer_ops(params, context, chosen, method)
    text, style = context.model.text, _style(context)
    ops: list[Op] = []
    width: Expr = chosen.width
    projected = params.variant == "projected"
    if projected:
        width = sym("H") * sym("D") / style.devices
        ops.append(
            gemm(f"{method}.q_proj", "compression", m=sym("b") * sym("T"), n=width, k=sym("d"),
                 bias=text.qkv_bias, note="of one layer, for the saliency alone")
        )  # fmt: skip
    for image in chosen.images:
        problems = sym("b") * image.units
        keys = problems * image.tokens
        if projected:
            ops += _keys(image, keys, width, context)
        ops.append(
            matmul(
                f"{image.label}.product", "compression", batch=problems, m=sym("T"),
                n=image.tokens, k=width, a_bytes=problems * sym("T") * width * sym("ba"),
                b_bytes=keys * width * sym("ba"),
            )
        )  # fmt: skip
        if projected and style.tp > 1:
            ops.append(
                collective(f"{image.label}.all_reduce", "compression", op="all_reduce",
                           rows=problems * sym("T"), cols=image.tokens)
            )  # fmt: skip
        ops.append(
            elementwise(
                f"{image.label}.softmax", "compression", rows=problems * sym("T"),
                cols=image.tokens, read=2 * sym("ba") + _FP32_BYTES,
                write=sym("ba") + _FP32_BYTES, flops_per_element=Integer(6),
                launches=Integer(3), live=2 * sym("ba") + _FP32_BYTES, primitive="softmax",
                note="scale, fp32 softmax, mean over the text",
            )
        )  # fmt: skip
    return ops


def _keys(image: SelectedImages, rows: Expr, width: Expr, context: Context) -> list[Op]:
    text, style = context.model.text, _style(context)
    heads = sym("G") / style.devices if text.kv_heads >= style.tp else ONE
    ops = [
        gemm(f"{image.label}.k_proj", "compression", m=rows, n=heads * sym("D"), k=sym("d"),
             bias=text.qkv_bias, note="of one layer, for the saliency alone")
    ]  # fmt: skip
    if text.kv_heads < text.heads:
        ops.append(
            copy(f"{image.label}.repeat_k", "compression", rows=rows, cols=width,
                 note="grouped keys copied to every query head")
        )  # fmt: skip
    return ops


def _layer_ops(
    params: SaliencyParams, context: Context, chosen: Selection, method: str
) -> list[Op]:
    """What is done with the attention weights of a layer, and the layers run for them."""
    b, ba, style = sym("b"), sym("ba"), _style(context)
    tokens = sym("T") + _all_visual(context, chosen)
    ops: list[Op] = []
    if params.then == "restart":
        ops += _first_pass(params, context, tokens, method)
    heads = sym("H") / style.devices
    ops.append(
        elementwise(
            f"{method}.vote", "compression", rows=b * tokens, cols=tokens,
            read=heads * ba, write=ba, flops_per_element=heads, launches=_HEADS_TO_MEAN,
            primitive="reduction",
            note="attention weights in memory: mean over heads, then of the tokens that ask",
        )
    )  # fmt: skip
    if style.tp > 1:
        ops.append(
            collective(f"{method}.all_reduce", "compression", op="all_reduce", rows=b, cols=tokens)
        )
    if gathers_later(params):
        ops.append(
            copy(
                f"{method}.rebuild", "compression", rows=b * (sym("T") + chosen.kept),
                cols=sym("d"), launches=Integer(4), gather=True,
                note="columns that stay, text included, and their hidden states",
            )
        )  # fmt: skip
    return ops


def _first_pass(params: SaliencyParams, context: Context, tokens: Expr, method: str) -> list[Op]:
    """Layers 0 to `layer` on all tokens, the last with its attention weights in memory."""
    style, text = _style(context), context.model.text
    parts = [("_weights", ONE, replace(style, attention="eager"))]
    if params.layer:
        parts.insert(0, ("_before", sym("Lr"), style))
    made = [
        copy("embed", "compression", rows=sym("b") * tokens, cols=sym("d"), gather=True,
             note="embeddings of the whole prompt, for the saliency alone")
    ]  # fmt: skip
    for label, layers, how in parts:
        counts = LayerTokens(label, layers, tokens, tokens, tokens, tokens, ZERO)
        # Nothing reads these keys and values again: no cache is kept.
        made += [
            op for op in decoder_layers(text, counts, how) if op.primitive != "cache_write"
        ]  # fmt: skip
    return [
        replace(op, name=f"{method}.{op.name}", stage="compression", part="other") for op in made
    ]


def saliency_plan(
    params: SaliencyParams,
    context: Context,
    method: str,
    chosen: Selection,
    ops: list[Op],
    *,
    values: dict[Symbol, float] | None = None,
    notes: tuple[str, ...] = (),
    **rest: Any,
) -> CompressionPlan:
    """Return the plan of a method that keeps tokens by saliency.

    Raises
    ------
    InputError
        If there is no such layer, or none after it to go on with.
    """
    layers = context.model.text.layers
    more: dict[Symbol, float] = dict(values or {})
    if params.variant != "layer":
        return chosen.plan(context, method, ops=tuple(ops), values=more, notes=notes, **rest)
    last = layers - (2 if params.then == "continue" else 1)
    if params.layer > last:
        raise InputError(
            f"compress {method} layer", params.layer,
            f"a decoder layer from 0 to {last} of {context.model.name}",
        )  # fmt: skip
    said = f"attention weights of layer {params.layer} are written out: no FlashAttention there"
    notes = (*notes, said)
    if params.then == "restart":
        if params.layer:
            more[sym("Lr")] = params.layer
        said = f"layers 0 to {params.layer} run twice: on all tokens, then on those that remain"
        return chosen.plan(
            context, method, ops=tuple(ops), values=more, notes=(*notes, said),
            needs_attention_weights=True, **rest,
        )  # fmt: skip
    whole = _all_visual(context, chosen)
    groups = [DecoderGroup(params.layer, whole)] if params.layer else []
    groups += [
        DecoderGroup(1, whole, attention="eager"),
        DecoderGroup(layers - params.layer - 1, chosen.kept),
    ]
    return CompressionPlan(
        method=method,
        insertion=Insertion("llm", params.layer + 1),
        kept=TokenCount.static(chosen.kept_count),
        decoder_groups=tuple(groups),
        ops=tuple(ops),
        values={**chosen.values, **more},
        needs_attention_weights=True,
        notes=notes,
        **rest,
    )


def _all_visual(context: Context, chosen: Selection) -> Expr:
    tokens = (image.units * image.tokens for image in chosen.images)
    return sum(tokens, start=Integer(context.markers))


def _style(context: Context) -> Style:
    run = context.deployment
    return Style(run.fused, run.attention, run.tp)
