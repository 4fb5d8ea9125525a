"""FasterVLM: the patches that the class token attends to most."""

from __future__ import annotations

from typing import Any

from sympy import Integer, Symbol

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
    kept_per_sequence,
    reading_groups,
    total,
    tower_sequences,
)
from costmodel.ops import ONE, Op, copy
from costmodel.symbols import sym

__all__ = ["METHOD"]


class FasterVLM(Method):
    """Mean of the class attention over heads, top-k of each sequence; no matrix products.

    The released code chooses on the tower's attention, runs the projector on all tokens
    and drops the others behind it, image by image with a boolean index whose size the
    host reads.  Read: the authors' ``llava_arch.py``; their ``clip_encoder.py`` was not
    found, a copy in another repository asks the whole tower for its attentions.  For images
    in tiles that code also copies all features once into reading order and leaves the row
    markers out; here nothing is copied and markers stay, as with every method.
    """

    name = "fastervlm"
    title = "FasterVLM"
    summary = "Keeps the patches that the class token of the vision tower attends to most."
    where = "after the projector (or before it), by attention of the vision tower"
    reference = "Q. Zhang et al., [CLS] Attention is All You Need for Training-Free Pruning"
    url = "https://arxiv.org/abs/2412.01818"
    unknown = "Whether the released tower keeps the attention weights of all layers."

    Params = MapParams

    def plan(self, params: MapParams, context: Context) -> CompressionPlan:
        """Return a plan with eager attention in the tower, a top-k and a gather."""
        sequences = tower_sequences(context, self.name, class_token=True)
        check_kept(params.k, sequences, self.name)
        before = params.position == "before_projector"
        held = kept_maps_bytes(params, context, sequences)
        values: dict[Symbol, float] = {
            sym("c"): context.projector.in_features if before else context.model.text.hidden_size
        }
        ops: list[Op] = []
        for item in sequences:
            values[item.kept] = params.k
            # Top-k writes values and indices, then a mask of one byte is made and set.
            chosen = 1 + (sym("ba") + 2 * INDEX_BYTES + 1) * item.kept / item.patches
            ops += [
                class_saliency(item, 4, chosen, "mean over heads, top-k, mask"),
                masked_gather(item, ONE, sym("c"), repeat=item.batch),
                copy(f"{item.label}.stack", "compression", rows=item.batch * item.kept,
                     cols=sym("c"), launches=Integer(1)),
            ]  # fmt: skip
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
            notes=(map_note(params, context),),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        sequences = tower_sequences(context, self.name, class_token=True)
        return {"k": kept_per_sequence(context, sequences, kept_per_image, self.name)}


METHOD = FasterVLM()
