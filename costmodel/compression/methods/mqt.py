"""MQT: a trained resampler, the first k of whose learned queries become the visual tokens."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sympy import Symbol

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.compression.resampling import query_resampler
from costmodel.compression.tower import kept_per_sequence, layers_read, total, tower_sequences
from costmodel.errors import InputError, UnsupportedError
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_QUERIES, _HEADS = 256, 16


class QueryParams(Spec):
    """How many queries are used."""

    k: Annotated[int, Field(gt=0, le=_QUERIES)] = Field(
        default=64, description="queries used: tokens of each tower sequence, at most 256"
    )


class MatryoshkaQueries(Method):
    """One cross-attention over all tokens of a tower sequence, in place of the projector.

    All 256 queries are in memory, the first k are used; more tokens than that it cannot give.
    Keys are made of positions alone, as released; the attention returns weights, so that no
    fused kernel runs it. 16 heads of the tower's width, then one matrix to the language
    model's: 8,923,136 parameters for LLaVA-1.5-7B, fixed positions included. Read: the authors'
    ``multimodal_projector/builder.py`` and ``llava_arch.py`` (gordonhu608/MQT-LLaVA, commit
    92c35d0).
    """

    name = "mqt"
    title = "Matryoshka Query Transformer (MQT)"
    summary = "A trained resampler: the first k of 256 learned queries become the visual tokens."
    where = "after the vision tower, in place of the projector"
    reference = "W. Hu et al., Matryoshka Query Transformer for Large VLMs, NeurIPS 2024"
    url = "https://arxiv.org/abs/2405.19315"
    training = "two stages: resampler, then language model and resampler with random k"
    unknown = "Widths and heads for other towers than CLIP ViT-L: the tower's width is assumed."

    Params = QueryParams

    def plan(self, params: QueryParams, context: Context) -> CompressionPlan:
        """Return a plan with the resampler and without the projector."""
        sequences = tower_sequences(context, self.name)
        width = context.projector.in_features
        if width % _HEADS:
            raise UnsupportedError(
                "compress", self.name,
                f"a tower whose width is a multiple of {_HEADS}; {context.model.name}'s is {width}",
            )  # fmt: skip
        ops, weights = query_resampler(sequences, context.deployment.fused)
        values: dict[Symbol, float] = {
            sym("c"): width, sym("hq"): _HEADS, sym("nq"): _QUERIES,
        } | {item.kept: params.k for item in sequences}  # fmt: skip
        count = params.k * sum(item.number for item in sequences)
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder"),
            kept=TokenCount.static(count + context.markers),
            decoder_groups=context.uniform(total(sequences) + context.markers),
            # It reads whole grids: nothing that drops tower tokens can come first.
            tower_layers=layers_read(context),
            replaces_projector=True,
            ops=tuple(ops),
            weights=tuple(weights),
            values=values,
            training=self.training,
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        sequences = tower_sequences(context, self.name)
        kept = kept_per_sequence(context, sequences, kept_per_image, self.name)
        if kept > _QUERIES:
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"at most {_QUERIES} per tower sequence: {self.name} has that many queries",
            )  # fmt: skip
        return {"k": kept}


METHOD = MatryoshkaQueries()
