"""ToMe: each block of the vision tower merges its most similar pairs of tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sympy import Expr, Symbol

from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount, TowerGroup
from costmodel.compression.token_merging import merge_step, size_bias
from costmodel.compression.tower import (
    TowerSequence,
    executed_layers,
    kept_per_sequence,
    layers_read,
    total,
    tower_sequences,
)
from costmodel.errors import InputError
from costmodel.ops import Op
from costmodel.specs.base import Spec
from costmodel.symbols import indexed

__all__ = ["METHOD"]

_R = 8
"""What the paper removes per block of ViT-L."""


class MergeParams(Spec):
    """How many tokens merge, and how attention runs.

    Attributes
    ----------
    r : int, optional
        Tokens each block merges away, at most half of what it has; 8 if neither is given.
    kept : int, optional
        Tokens of each tower sequence that remain instead, blocks sharing evenly.
    attention : {"eager", "sdpa"}
        The bias by token size keeps attention from kernels that take none.
    """

    r: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="tokens merged away per block (default 8)"
    )
    kept: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="tokens of each tower sequence that remain, instead of r"
    )
    attention: Literal["eager", "sdpa"] = Field(
        default="eager", description="written out as released, or fused with a mask"
    )

    @model_validator(mode="after")
    def _one_of(self) -> MergeParams:
        if self.r is not None and self.kept is not None:
            raise ValueError("give r or kept, not both")
        return self


class TokenMerging(Method):
    r"""Bipartite matching by keys between attention and MLP of every block that is read.

    Let t be the tokens of a block, class token included: ``2 ceil(t/2) floor(t/2) D_v``
    FLOP per image and block, t - r tokens in the MLP and in the next block.  Read: the
    authors' ``tome/merge.py`` and ``tome/patch/timm.py``.  That LLaVA's tower merges in the
    23 blocks it reads, and the last one runs on what remains, is an assumption.
    """

    name = "tome"
    title = "Token Merging (ToMe)"
    summary = "Each block of the vision tower merges its most similar pairs of tokens."
    where = "inside every block of the vision tower, between attention and MLP"
    reference = "D. Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023"
    url = "https://arxiv.org/abs/2210.09461"
    unknown = "How the papers that compare with it distribute tokens over blocks."

    Params = MergeParams

    def plan(self, params: MergeParams, context: Context) -> CompressionPlan:
        """Return a plan with one tower group per block."""
        sequences = tower_sequences(context, self.name)
        protected = int(context.vision.class_token)
        schedules = [
            _schedule(params, item.tokens, layers_read(context), protected) for item in sequences
        ]
        kept = [
            item.tokens - sum(removed)
            for item, removed in zip(sequences, schedules, strict=True)
        ]  # fmt: skip
        values: dict[Symbol, float] = {
            item.kept: number for item, number in zip(sequences, kept, strict=True)
        }
        groups, ops = _tower(context, params, sequences, schedules, values)
        visual = total(sequences)
        count = sum(item.number * number for item, number in zip(sequences, kept, strict=True))
        notes = ["the bias by token size keeps FlashAttention out of the vision tower"]
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("vision_encoder"),
            kept=TokenCount.static(count + context.markers),
            decoder_groups=context.uniform(visual + context.markers),
            tower_groups=groups,
            projector_rows=visual,
            ops=ops,
            values=values,
            notes=tuple(notes) if ops else (),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``kept``."""
        sequences = tower_sequences(context, self.name)
        kept = kept_per_sequence(context, sequences, kept_per_image, self.name)
        least = max(_least(item.tokens, layers_read(context)) for item in sequences)
        if kept < least:
            tiles = sum(item.number for item in sequences)
            images = sum(group.units for group in context.images)
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"at least {-(-least * tiles // images)}: no block of {self.name} can merge more "
                "than half of its tokens, and blocks share evenly",
            )  # fmt: skip
        return {"kept": kept}


def _schedule(params: MergeParams, tokens: int, layers: int, protected: int) -> list[int]:
    """Tokens each block merges away."""
    left, removed = tokens + protected, []
    if params.kept is not None:
        if params.kept > tokens:
            raise InputError("compress tome kept", params.kept, f"at most the {tokens} tokens")
        asked = _evenly(tokens - params.kept, layers)
    else:
        asked = [_R if params.r is None else params.r] * layers
    for one in asked:
        most = (left - protected) // 2
        if params.kept is not None and one > most:
            raise InputError(
                "compress tome kept", params.kept,
                f"more: some block would merge {one} of {left} tokens, at most {most} can",
            )  # fmt: skip
        # As released, r is cut to half of what there is.
        removed.append(min(one, most))
        left -= removed[-1]
    return removed


def _evenly(removed: int, layers: int) -> list[int]:
    share, more = divmod(removed, layers)
    return [share + (index < more) for index in range(layers)]


def _least(tokens: int, layers: int) -> int:
    """Fewest tokens, class token left out, from which on every even schedule can be run."""

    def possible(kept: int) -> bool:
        left = tokens
        for one in _evenly(tokens - kept, layers):
            if one > left // 2:
                return False
            left -= one
        return True

    return 1 + max((kept for kept in range(1, tokens) if not possible(kept)), default=0)


def _tower(
    context: Context,
    params: MergeParams,
    sequences: tuple[TowerSequence, ...],
    schedules: list[list[int]],
    values: dict[Symbol, float],
) -> tuple[tuple[TowerGroup, ...], tuple[Op, ...]]:
    """Groups and operators block by block; values of x are added to `values`."""
    if not any(map(any, schedules)):
        return (), ()
    read, rest = layers_read(context), executed_layers(context) - layers_read(context)

    def lengths(layer: int) -> tuple[Expr, ...]:
        found = []
        for index, (item, removed) in enumerate(zip(sequences, schedules, strict=True)):
            if not (before := sum(removed[:layer])):
                found.append(item.length)
                continue
            gone = indexed("x", layer * len(sequences) + index, read * len(sequences) + 1)
            values[gone] = before
            found.append(item.length - gone)
        return tuple(found)

    tokens = [lengths(layer) for layer in range(read + 1)]
    groups = [
        TowerGroup(1, tokens[layer], tokens[layer + 1], params.attention) for layer in range(read)
    ]
    if rest:
        groups.append(TowerGroup(rest, tokens[read], tokens[read], params.attention))
    ops: list[Op] = []
    for index, (item, removed) in enumerate(zip(sequences, schedules, strict=True)):
        for layer in range(read + rest):
            label = f"{item.label}.block_{layer}"
            now = tokens[min(layer, read)][index]
            merged = any(removed[:layer])
            if merged:
                ops.append(size_bias(label, item.batch, now, params.attention))
            if layer < read and removed[layer]:
                ops += merge_step(label, item.batch, now, tokens[layer + 1][index], not merged)
    return tuple(groups), tuple(ops)


METHOD = TokenMerging()
