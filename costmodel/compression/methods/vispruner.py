"""VisPruner: patches with most class attention, and others once duplicates are removed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from sympy import Expr, Integer, Mod, Symbol

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.compression.saliency_maps import (
    INDEX_BYTES,
    MapParams,
    check_kept,
    class_saliency,
    kept_maps_bytes,
    map_note,
    masked_gather,
)
from costmodel.compression.tower import (
    TowerSequence,
    kept_per_sequence,
    reading_groups,
    total,
    tower_sequences,
)
from costmodel.ops import ONE, ZERO, Op, copy, elementwise, matmul
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]

_PER_ROUND = 8
"""Tokens a round removes, fixed in the released code."""


class VisPrunerParams(MapParams):
    """How many tokens remain, and how many of them by attention alone."""

    important: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="share of the kept tokens that are chosen by class attention"
    )


class VisPruner(Method):
    r"""Important tokens by class attention; of the others, the most similar go in rounds.

    With R of the others left in a round, ``2 ceil(R/2) floor(R/2) d_v`` FLOP per sequence;
    each round removes 8 of them until the wanted number is left:

    .. math:: F = 2 B d_v \sum_{j<J} \lceil R_j / 2 \rceil \lfloor R_j / 2 \rfloor,
              \quad R_j = g - k_o - 8 j

    Python loops over rounds whose number is known beforehand: eight kernels each, two of
    them copies of an index made on the host, which waits for both.  The released code runs
    the projector on all tokens and drops the others behind it by a boolean mask; an earlier
    version by the same authors dropped them before it.  Read: ``llava_arch.py`` of both,
    ``clip_encoder.py`` of the earlier one.  Row markers of images in tiles stay here.
    """

    name = "vispruner"
    title = "VisPruner"
    summary = "Keeps patches by class attention, and of the others those that are no duplicates."
    where = "after the projector (or before it), by attention of the vision tower"
    reference = "Q. Zhang et al., Beyond Text-Visual Attention: Exploiting Visual Cues, ICCV 2025"
    url = "https://arxiv.org/abs/2412.01818"
    unknown = "How it scores patches of a tower without a class token."

    Params = VisPrunerParams

    def plan(self, params: VisPrunerParams, context: Context) -> CompressionPlan:
        """Return a plan with eager attention in the tower, a top-k and the rounds."""
        sequences = tower_sequences(context, self.name, class_token=True)
        check_kept(params.k, sequences, self.name)
        held = kept_maps_bytes(params, context, sequences)
        before = params.position == "before_projector"
        values: dict[Symbol, float] = {
            sym("js"): _PER_ROUND,
            sym("c"): context.projector.in_features if before else context.model.text.hidden_size,
        }
        ops: list[Op] = []
        chosen = int(params.k * params.important)
        for index, item in enumerate(sequences):
            important, rounds = (indexed(name, index, len(sequences)) for name in ("ko", "jr"))
            count = math.ceil((item.tokens - params.k) / _PER_ROUND)
            values |= {item.kept: params.k, important: chosen, rounds: count}
            ops += _operators(item, important, rounds, count, sym("c"), before)
        visual = total(sequences)
        count = params.k * sum(item.number for item in sequences)
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder" if before else "after_projector"),
            kept=TokenCount.static(count + context.markers),
            decoder_groups=context.uniform(visual + context.markers),
            tower_groups=reading_groups(context, sequences, every=params.maps == "all"),
            projector_rows=visual if before else context.projected,
            ops=tuple(op.holding(held) for op in ops),
            values=values,
            needs_attention_weights=True,
            graph_safe=False,
            notes=(
                map_note(params, context),
                "duplicates go in a Python loop, 8 per round; the host waits twice in each",
            ),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        sequences = tower_sequences(context, self.name, class_token=True)
        return {"k": kept_per_sequence(context, sequences, kept_per_image, self.name)}


def _operators(
    item: TowerSequence, important: Expr, rounds: Expr, count: int, width: Expr, before: bool
) -> list[Op]:
    """Operators for one shape of sequences; `width` is that of the tokens that are dropped."""
    ba = sym("ba")
    normalise = elementwise(
        f"{item.label}.normalise", "compression", rows=item.batch * item.patches, cols=sym("dv"),
        read=2 * ba, write=ba, flops_per_element=Integer(3), launches=Integer(2),
        primitive="reduction", note="norm and division",
    )  # fmt: skip
    ops = [
        normalise,
        class_saliency(item, 2, ba + INDEX_BYTES, "mean over heads, sort"),
        *(_rounds(item, important, rounds) if count else ()),
    ]
    joined = elementwise(
        f"{item.label}.join", "compression", rows=item.batch * item.kept, cols=ONE,
        read=2 * INDEX_BYTES, write=3 * INDEX_BYTES if before else
        INDEX_BYTES + (item.patches + item.kept) / item.kept, flops_per_element=ZERO,
        launches=Integer(2 if before else 3), primitive="gather",
        note="both kinds of tokens, sorted" if before else "both kinds of tokens, as a mask",
    )  # fmt: skip
    if not before:
        return [replace(op, graph_safe=False) for op in [*ops, joined]] + [
            masked_gather(item, item.batch, width)
        ]
    gather = copy(
        f"{item.label}.gather", "compression", rows=item.batch * item.kept, cols=width,
        launches=Integer(2), gather=True, note="index copied from the host, gather",
    )  # fmt: skip
    ops += [joined, replace(gather, host_syncs=ONE)]
    return [replace(op, graph_safe=False) for op in ops]


def _rounds(item: TowerSequence, important: Expr, rounds: Expr) -> list[Op]:
    """Rounds of matching; sizes are means over rounds, of squares where they enter squared."""
    ba, width, batch = sym("ba"), sym("dv"), item.batch
    rest, removed = item.patches - important, sym("js")
    mean = rest - removed * (rounds - 1) / 2
    squares = rest**2 - removed * rest * (rounds - 1) + removed**2 * (
        (rounds - 1) * (2 * rounds - 1)
    ) / 6  # fmt: skip
    # An odd number of tokens stays odd, as rounds remove an even one.
    pairs = (squares - Mod(rest, 2)) / 4
    half, held = mean / 2, batch * item.patches * width * ba
    residual = copy(
        f"{item.label}.residual", "compression", rows=batch * mean, cols=width,
        launches=Integer(2), gather=True, repeat=rounds, held=held,
        note="tokens left, by an index copied from the host",
    )  # fmt: skip
    product = matmul(
        f"{item.label}.similarity", "compression", batch=batch, m=half, n=half, k=width,
        a_bytes=batch * half * width * ba, b_bytes=batch * half * width * ba,
        repeat=rounds, held=2 * held, note="sizes in the mean over rounds",
    )  # fmt: skip
    # Per token at an even place: the sort, the gather and the join read, as they and the
    # maximum write.
    read, write = ba + 4 * INDEX_BYTES, 2 * ba + 5 * INDEX_BYTES
    distinct = elementwise(
        f"{item.label}.distinct", "compression", rows=batch * half, cols=half,
        read=ba * pairs / half**2 + read / half, write=write / half,
        flops_per_element=pairs / half**2,
        launches=Integer(5), repeat=rounds, held=held, primitive="reduction",
        note="best partner, sort, index copied from the host, gather, join",
    )  # fmt: skip
    return [
        replace(residual, host_syncs=ONE),
        replace(
            product,
            flops=2 * batch * pairs * width,
            traffic=replace(product.traffic, act_out=batch * pairs * ba),
        ),
        replace(distinct, host_syncs=ONE),
    ]


METHOD = VisPruner()
