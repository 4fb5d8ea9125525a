"""PruMerge: outliers of the class token's attention, each joined by its nearest tokens."""

from __future__ import annotations

from typing import Any

from sympy import Symbol

from costmodel.compression.counts import evaluated_count, normal_count, spread_note
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion
from costmodel.compression.prumerge import (
    NEIGHBOURS,
    PruMergeParams,
    class_attention,
    loop_merge,
    product_merge,
)
from costmodel.compression.tower import kept_per_sequence, total, tower_sequences
from costmodel.errors import InputError
from costmodel.ops import Op
from costmodel.symbols import sym

__all__ = ["METHOD"]

_SHARE = 1 / 18


class PruMerge(Method):
    """Keeps k outliers of each tower sequence and one sum of the others.

    ``2 d_v (n^2 + k (g - 1))`` FLOP per image of g patches and n = g + 1 tokens.  Queries and
    keys come from hooks on linear layers of the last vision layer, which so must run, and
    all layers keep fused attention.  Read: the authors' ``clip_encoder.py``.  The mean of
    1/18 of the tokens is the paper's; over tiles of an image it is taken as the same share of
    each, all tiles varying together, so that the spread is not understated.  One number of outliers
    is found for a whole batch: nothing is padded.
    """

    name = "prumerge"
    title = "LLaVA-PruMerge"
    summary = "Keeps outliers of the class attention, adds to each its 32 nearest tokens."
    where = "after the vision tower, before the projector"
    reference = "Y. Shang et al., LLaVA-PruMerge: Adaptive Token Reduction"
    url = "https://arxiv.org/abs/2403.15388"
    static = False
    training = "none, or fine-tuning with LoRA"
    unknown = "The spread of the number of tokens over images: 0.3 of its mean is assumed."

    Params = PruMergeParams

    def plan(self, params: PruMergeParams, context: Context) -> CompressionPlan:
        """Return a plan with the merge of every tower sequence."""
        sequences = tower_sequences(context, self.name, class_token=True)
        ops: list[Op] = []
        values: dict[Symbol, float] = {sym("nb"): NEIGHBOURS}
        mean, most, deviation = 0, 0, 0.0
        for item in sequences:
            kept = params.kept or max(2, round(item.tokens * _SHARE))
            if not kept <= item.tokens or item.tokens <= NEIGHBOURS:
                raise InputError(
                    "compress prumerge kept", kept, f"at most the {item.tokens} tokens of a "
                    f"tower sequence, which has more than {NEIGHBOURS}",
                )  # fmt: skip
            mean += item.number * kept
            most += item.number * item.tokens
            deviation += item.number * kept * params.spread
            count = normal_count(kept, kept * params.spread, item.tokens)
            values[item.kept] = max(2, evaluated_count(count, params.at))
            ops += class_attention(
                item, context.deployment.dtype != "fp32", params.impl == "fused"
            )  # fmt: skip
            merge = product_merge if params.impl == "fused" else loop_merge
            ops += merge(item, item.kept - 1)
        whole = normal_count(
            mean + context.markers, deviation, most + context.markers
        )  # fmt: skip
        visual = total(sequences)
        notes = [spread_note(whole, params.at)]
        if params.impl == "released":
            notes.append("a Python loop over tokens and images; quartiles by numpy on the host")
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder"),
            kept=whole,
            decoder_groups=context.uniform(visual + context.markers),
            tower_layers=context.vision.layers,
            projector_rows=visual,
            ops=tuple(ops),
            values=values,
            training=self.training,
            graph_safe=False,
            notes=tuple(notes),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``kept``, the mean."""
        sequences = tower_sequences(context, self.name, class_token=True)
        kept = kept_per_sequence(context, sequences, kept_per_image, self.name)
        if kept < 2:
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"at least {2 * sum(item.number for item in sequences)}: one token beside the sum",
            )  # fmt: skip
        return {"kept": kept}


METHOD = PruMerge()
