"""VScan: class attention of two vision layers chooses, the language model drops once more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from sympy import Expr, Integer, Symbol

from costmodel.compression.dropping import check_layers, grouped
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import (
    CompressionPlan,
    DecoderGroup,
    Insertion,
    TokenCount,
    TowerGroup,
)
from costmodel.compression.ranking import attention_row, projections, take
from costmodel.compression.saliency_maps import INDEX_BYTES, check_kept, class_saliency
from costmodel.compression.tower import (
    TowerSequence,
    executed_layers,
    kept_per_sequence,
    layers_read,
    reading_groups,
    total,
    tower_sequences,
)
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, copy, elementwise, matmul
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]


class VScanParams(Spec):
    """Tokens after the tower and after the layer; the defaults keep 64 on average."""

    k: Annotated[int, Field(gt=0)] = Field(
        default=96, description="tokens of each tower sequence that enter the language model"
    )
    left: Annotated[int, Field(gt=0)] = Field(
        default=32, description="of these, tokens left from the layer on"
    )
    layer: Annotated[int, Field(gt=0)] = Field(
        default=16, description="layer of the language model before which tokens are dropped"
    )
    local_layer: Annotated[int, Field(gt=0)] = Field(
        default=6, description="vision layer, counted from 1, whose class attention scans locally"
    )
    maps: Literal["all", "two"] = Field(
        default="all", description="vision layers that write their attention weights"
    )


class VScan(Method):
    r"""Half of the tokens by the class attention of the output layer, half window by window.

    The local scan takes the best of each window by the class attention of a shallow layer.
    Tokens not chosen are added to the chosen one most similar to them (g - k by k cosines):

    .. math:: F = 2 b t (g - k) k c

    before the projector, which works on k.  In the middle of the language model the last token
    asks, as in PyramidDrop: norm and projections of a layer again, one row of attention.

    Read: README of the authors' code (Tencent/SelfEvolvingAgent, VScan), which gives 96 and 32
    tokens at layer 16 for an average of 64, and that it is built on PyramidDrop and FasterVLM.
    """

    name = "vscan"
    title = "VScan"
    summary = "Global and local scan in the vision tower, one drop inside the language model."
    where = "after the vision tower, and inside the language model before its middle layer"
    reference = "C. Zhang et al., VScan: Rethinking Visual Token Reduction, TMLR 2026"
    url = "https://arxiv.org/abs/2505.22654"
    unknown = (
        "The code itself could not be read: the layer of the local scan, which vectors are "
        "compared, launches, and that all vision layers write their weights are assumptions."
    )

    Params = VScanParams

    def plan(self, params: VScanParams, context: Context) -> CompressionPlan:
        """Return a plan for tower, projector and language model."""
        check_layers(f"compress {self.name} layer", [params.layer], context)
        sequences = tower_sequences(context, self.name, class_token=True)
        check_kept(params.k, sequences, self.name)
        if params.left > params.k:
            raise InputError(f"compress {self.name} left", params.left, f"at most k={params.k}")
        tiles = sum(item.number for item in sequences)
        values: dict[Symbol, float] = {sym("c"): context.projector.in_features}
        values |= {item.kept: params.k for item in sequences}
        values |= {sym("vl"): params.left * tiles}
        before, after = total(sequences) + context.markers, sym("vl") + context.markers
        depth = context.model.text.layers
        ops = [op for item in sequences for op in _scan(item)]
        ops += _drop(self.name, context, total(sequences), sym("T") + before, sym("T") + after)
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("llm", params.layer),
            kept=TokenCount.static(params.left * tiles + context.markers),
            decoder_groups=grouped(
                DecoderGroup(1, before if index < params.layer else after) for index in range(depth)
            ),
            tower_groups=_tower(self.name, params, context, sequences),
            projector_rows=total(sequences),
            ops=tuple(ops),
            values=values,
            needs_attention_weights=True,
            notes=("its launches and what it compares are assumed: only its README was read",),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return three times as many tokens before the layer as after it, as published.

        Their mean over all layers is the number asked for where the layer is the middle one.
        """
        sequences = tower_sequences(context, self.name, class_token=True)
        depth = context.model.text.layers
        mean = kept_per_sequence(context, sequences, kept_per_image, self.name)
        left = max(1, round(mean / 2))
        first = 2 * mean - left
        most = min(item.tokens for item in sequences)
        if first > most:
            first, left = most, 2 * mean - most
        return {"k": first, "left": left, "layer": depth // 2}


def _tower(
    method: str,
    params: VScanParams,
    context: Context,
    sequences: tuple[TowerSequence, ...],
) -> tuple[TowerGroup, ...]:
    read, executed = layers_read(context), executed_layers(context)
    if params.local_layer >= read:
        raise InputError(
            f"compress {method} local_layer", params.local_layer, f"a layer before {read}"
        )
    if params.maps == "all":
        return reading_groups(context, sequences, every=True)
    groups = (
        TowerGroup(params.local_layer - 1),
        TowerGroup(1, attention="eager"),
        TowerGroup(read - params.local_layer - 1),
        TowerGroup(1, attention="eager"),
        TowerGroup(executed - read),
    )
    return tuple(group for group in groups if group.layers)


def _scan(item: TowerSequence) -> list[Op]:
    ba, c, k = sym("ba"), sym("c"), item.kept
    rest = item.patches - k
    operand = item.batch * c * ba
    return [
        class_saliency(
            item, 12, 3 * INDEX_BYTES, "two class attentions, top-k of all and of every window"
        ),
        copy(f"{item.label}.gather", "compression", rows=item.batch * item.patches, cols=c,
             launches=Integer(2), gather=True, note="tokens chosen and not"),
        elementwise(f"{item.label}.norms", "compression", rows=item.batch * item.patches, cols=c,
                    read=2 * ba, write=ba, flops_per_element=Integer(3), launches=Integer(4),
                    primitive="reduction", note="unit vectors"),
        matmul(f"{item.label}.similarity", "compression", batch=item.batch, m=rest, n=k, k=c,
               a_bytes=operand * rest, b_bytes=operand * k),
        elementwise(f"{item.label}.merge", "compression", rows=item.batch * item.patches, cols=c,
                    read=2 * ba, write=ba, flops_per_element=ONE, launches=Integer(6),
                    primitive="reduction", note="most similar, counts, sum, division"),
    ]  # fmt: skip


def _drop(label: str, context: Context, ranked: Expr, before: Expr, after: Expr) -> list[Op]:
    part = f"{label}.drop"
    return [
        *projections(part, context, before),
        *attention_row(part, context, before),
        *take(part, ranked=ranked, left=after, positions=False),
    ]


METHOD = VScan()
