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
    MapParams,
    check_kept,
    class_saliency,
    kept_maps_bytes,
    map_note,
)
from costmodel.compression.tower import (
    TowerSequence,
    kept_per_sequence,
    reading_groups,
    total,
    tower_sequences,
)
from costmodel.ops import Op, copy, elementwise, matmul
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
    them copies of an index made on the host.  Read: the authors' ``llava_arch.py`` and
    ``clip_encoder.py``; kernels are counted by reading.
    """

    name = "vispruner"
    title = "VisPruner"
    summary = "Keeps patches by class attention, and of the others those that are no duplicates."
    where = "after the vision tower, before the projector; tower with attention weights"
    reference = "Q. Zhang et al., Beyond Text-Visual Attention: Exploiting Visual Cues, ICCV 2025"
    url = "https://arxiv.org/abs/2412.01818"
    unknown = "How it scores patches of a tower without a class token."

    Params = VisPrunerParams

    def plan(self, params: VisPrunerParams, context: Context) -> CompressionPlan:
        """Return a plan with eager attention in the tower, a top-k and the rounds."""
        sequences = tower_sequences(context, self.name, class_token=True)
        check_kept(params.k, sequences, self.name)
        held = kept_maps_bytes(params, context, sequences)
        values: dict[Symbol, float] = {sym("js"): _PER_ROUND}
        ops: list[Op] = []
        chosen = int(params.k * params.important)
        for index, item in enumerate(sequences):
            important, rounds = (indexed(name, index, len(sequences)) for name in ("ko", "jr"))
            count = math.ceil((item.tokens - params.k) / _PER_ROUND)
            values |= {item.kept: params.k, important: chosen, rounds: count}
            ops += _operators(item, important, rounds, count)
        visual = total(sequences)
        count = params.k * sum(item.number for item in sequences)
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder"),
            kept=TokenCount.static(count + context.markers),
            decoder_groups=context.uniform(visual + context.markers),
            tower_groups=reading_groups(context, sequences, every=params.maps == "all"),
            projector_rows=visual,
            ops=tuple(op.holding(held) for op in ops),
            values=values,
            needs_attention_weights=True,
            graph_safe=False,
            notes=(map_note(params, context), "duplicates go in a Python loop, 8 per round"),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        sequences = tower_sequences(context, self.name, class_token=True)
        return {"k": kept_per_sequence(context, sequences, kept_per_image, self.name)}


def _operators(item: TowerSequence, important: Expr, rounds: Expr, count: int) -> list[Op]:
    ba, width, index = sym("ba"), sym("dv"), Integer(8)
    rest, removed = item.patches - important, sym("js")
    ops = [
        elementwise(
            f"{item.label}.normalise", "compression", rows=item.batch * item.patches, cols=width,
            read=2 * ba, write=ba, flops_per_element=Integer(3), launches=Integer(2),
            primitive="reduction", note="norm and division",
        ),
        class_saliency(item, 2, "mean over heads, sort"),
    ]  # fmt: skip
    if count:
        # In the mean over rounds; an odd number of tokens stays odd, as rounds remove an even one.
        mean = rest - removed * (rounds - 1) / 2
        squares = rest**2 - removed * rest * (rounds - 1) + removed**2 * (
            (rounds - 1) * (2 * rounds - 1)
        ) / 6  # fmt: skip
        pairs = (squares - Mod(rest, 2)) / 4
        half, held = mean / 2, item.batch * item.patches * width * ba
        product = matmul(
            f"{item.label}.similarity", "compression", batch=item.batch, m=half, n=half, k=width,
            a_bytes=item.batch * half * width * ba, b_bytes=item.batch * half * width * ba,
            repeat=rounds, held=2 * held, note="sizes in the mean over rounds",
        )  # fmt: skip
        ops += [
            copy(
                f"{item.label}.residual", "compression", rows=item.batch * mean, cols=width,
                launches=Integer(2), gather=True, repeat=rounds, held=held,
                note="tokens left, by an index made on the host",
            ),
            replace(product, flops=2 * item.batch * pairs * width),
            elementwise(
                f"{item.label}.distinct", "compression", rows=item.batch * half, cols=half,
                read=ba, write=(ba + 3 * index) / half, flops_per_element=Integer(1),
                launches=Integer(5), repeat=rounds, held=held, primitive="reduction",
                note="best partner, sort, index copied from the host, gather, join",
            ),
        ]  # fmt: skip
    return [
        replace(op, graph_safe=False)
        for op in [
            *ops,
            copy(f"{item.label}.gather", "compression", rows=item.batch * item.kept, cols=width,
                 launches=Integer(4), gather=True, note="join, sort, index from the host, gather"),
        ]
    ]  # fmt: skip


METHOD = VisPruner()
