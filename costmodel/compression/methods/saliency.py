"""Cross-modal saliency: the visual tokens that the text attends to most."""

from __future__ import annotations

from typing import Any

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.saliency import (
    SaliencyParams,
    gathers_later,
    saliency_plan,
    score_ops,
)
from costmodel.compression.selection import rank_and_gather, select

__all__ = ["METHOD"]


class CrossModalSaliency(Method):
    """Scores by text-to-visual attention, top-k, and a gather.

    Before the language model the score of a token is the softmax over the image of text times
    visual embeddings, averaged over the text: ``2 t m d`` FLOP for t text and m visual tokens
    (``variant=projected``: ``2 (t + m) d^2`` more, in queries and keys of one layer).  With
    ``variant=layer`` it is the attention of a decoder layer, which must write its weights out.
    """

    name = "saliency"
    title = "Cross-modal saliency"
    summary = "Keeps the k visual tokens of each image that the text attends to most."
    where = "before the language model, or after one of its layers"
    reference = "Y. Omri et al., Token Sequence Compression for Efficient Multimodal Computing"
    url = "https://arxiv.org/abs/2504.17892"
    unknown = (
        "The paper's exact score and layer: not in any public text, so that three forms are "
        "offered; whether all text or the last token asks (the same cost)."
    )

    Params = SaliencyParams

    def plan(self, params: SaliencyParams, context: Context) -> CompressionPlan:
        """Return a plan with scores, a ranking and a gather."""
        chosen = select(params, context, self.name)
        ops = score_ops(params, context, chosen, self.name)
        later = gathers_later(params)
        found = [
            op
            for image in chosen.images
            for op in rank_and_gather(image, chosen.width, gather=not later)
        ]
        # The hidden state is rebuilt once the ranking of all images is known.
        ops = [*ops[:-1], *found, ops[-1]] if later else [*ops, *found]
        return saliency_plan(params, context, self.name, chosen, ops)

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        return {"k": kept_per_image}


METHOD = CrossModalSaliency()
