"""VisionZip: patches the class token attends to most, and means of similar ones for the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from sympy import Expr, Symbol

from costmodel.compression.contextual import zip_tokens
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.compression.tower import (
    attention_map_bytes,
    executed_layers,
    kept_per_sequence,
    reading_groups,
    total,
    tower_sequences,
)
from costmodel.errors import InputError
from costmodel.ops import ZERO, Op
from costmodel.specs.base import Spec
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]

_CONTEXTUAL = 10 / 64


class ZipParams(Spec):
    """How many tokens remain, and how they are found.

    Attributes
    ----------
    k : int
        Tokens of each tower sequence that remain, the class token among them.
    contextual : int, optional
        Of these, means of others; by default 10 in 64, as in the paper.
    impl : {"released", "fused"}
        Selection by boolean masks, whose sizes the host reads, or by one sort.
    maps : {"all", "one"}
        Layers that write and keep their attention weights: all, as ``output_attentions``
        of the released code does, or the one that is read.
    """

    k: Annotated[int, Field(gt=0)] = Field(
        default=64, description="tokens of each tower sequence that remain, class token included"
    )
    contextual: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of these, means of other tokens (default: 10 in 64)"
    )
    impl: Literal["released", "fused"] = Field(
        default="released", description="selection by masks as released, or by one sort"
    )
    maps: Literal["all", "one"] = Field(
        default="all", description="vision layers that keep their attention weights"
    )


class VisionZip(Method):
    r"""Dominant tokens by class attention summed over heads, contextual ones by merging.

    ``2 R C D_v + 2 R C d_v`` FLOP per sequence for C contextual tokens out of the
    R = n - k tokens that are neither.  The tower runs with ``output_attentions``: attention
    is written out in all layers and ``layers * heads * n^2`` weights stay in memory (256 MB
    per image in fp16 for CLIP ViT-L/14-336).  Read: copies of the authors'
    ``visionzip/clip_encoder.py`` and ``visionzip/utils.py`` in public repositories.
    """

    name = "visionzip"
    title = "VisionZip"
    summary = "Keeps the patches with most class attention and merges the rest by similar keys."
    where = "after the vision tower, before the projector; tower with attention weights"
    reference = "S. Yang et al., VisionZip: Longer is Better but Not Necessary, CVPR 2025"
    url = "https://arxiv.org/abs/2412.04467"
    training = "none, or the projector on a tenth of the data"

    Params = ZipParams

    def plan(self, params: ZipParams, context: Context) -> CompressionPlan:
        """Return a plan with eager attention in the tower and the zip of every sequence."""
        sequences = tower_sequences(context, self.name, class_token=True)
        maps = attention_map_bytes(context, sequences)
        every = params.maps == "all"
        held: Expr = maps * (executed_layers(context) if every else 1)
        # Keys of all heads lie beside the tokens they belong to.
        held += sum((item.batch * item.length for item in sequences), start=ZERO) * (
            sym("dv") * sym("ba")
        )
        contextual = (
            round(params.k * _CONTEXTUAL) if params.contextual is None else params.contextual
        )
        ops: list[Op] = []
        values: dict[Symbol, float] = {}
        for index, item in enumerate(sequences):
            if params.k > item.tokens:
                raise InputError(
                    "compress visionzip k", params.k, f"at most the {item.tokens} tokens"
                )
            if contextual >= params.k:
                raise InputError(
                    "compress visionzip contextual", contextual, f"less than k, {params.k}"
                )
            means = indexed("kc", index, len(sequences))
            values |= {item.kept: params.k, means: contextual}
            ops += zip_tokens(item, means, contextual > 0, params.impl == "fused")
        visual = total(sequences)
        count = sum(item.number for item in sequences) * params.k
        kept_maps = (
            f"attention weights of all {executed_layers(context)} vision layers are written and "
            "kept" if every else "attention weights of one vision layer are written"
        )  # fmt: skip
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder"),
            kept=TokenCount.static(count + context.markers),
            decoder_groups=context.uniform(visual + context.markers),
            tower_groups=reading_groups(context, sequences, every=every),
            projector_rows=visual,
            ops=tuple(op.holding(held) for op in ops),
            values=values,
            training=self.training,
            needs_attention_weights=True,
            graph_safe=params.impl == "fused",
            notes=(f"{kept_maps}: no FlashAttention there",),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        sequences = tower_sequences(context, self.name, class_token=True)
        return {"k": kept_per_sequence(context, sequences, kept_per_image, self.name)}


METHOD = VisionZip()
