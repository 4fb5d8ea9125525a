"""DyMU: tokens merge in every vision block by a threshold, and expand again for attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from sympy import Expr, Integer, Rational, Symbol

from costmodel.compression.counts import (
    AtParams,
    evaluated_count,
    longest_of_batch,
    normal_count,
    spread_note,
)
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TowerGroup
from costmodel.compression.token_merging import masked_bias, threshold_step
from costmodel.compression.tower import (
    TowerSequence,
    executed_layers,
    kept_per_sequence,
    layers_read,
    total,
    tower_sequences,
)
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, copy, elementwise
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]

_PUBLISHED = {"low": (89, 27), "mid": (195, 47), "high": (394, 57)}
"""Mean and standard deviation of the tokens that remain of 576 (LLaVA-1.5, paper)."""

_WHOLE = 576


class DynamicParams(AtParams):
    """How many tokens remain on average.

    Attributes
    ----------
    level : {"low", "mid", "high"}
        The paper's thresholds: 89, 195 or 394 of 576 tokens on average.
    kept : int, optional
        Mean number of tokens of each tower sequence instead, by other thresholds.
    impl : {"released", "fused"}
        Pairs above the threshold counted by Python's ``sum`` over a tensor, one kernel
        each, or by one kernel.
    """

    level: Literal["low", "mid", "high"] = Field(
        default="low", description="the paper's thresholds: mean 89, 195 or 394 of 576 tokens"
    )
    kept: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="mean tokens of each tower sequence instead"
    )
    impl: Literal["released", "fused"] = Field(
        default="released", description="pairs counted by Python's sum, or by one kernel"
    )


class DynamicMerging(Method):
    r"""Merging by threshold (DToMe), virtual unmerging in the language model (VTU).

    Vision block: as token merging, ``2 ceil(t/2) floor(t/2) D_v`` FLOP per sequence, blocks
    taking even shares of what goes.  Language model: linear layers and MLP work on the
    tokens that remain; queries, keys and values are copied to all tokens before the attention,
    whose result is averaged back.  The cache holds keys and values of all tokens.

    Read: the authors' ``open_clip/tome.py`` and ``llava_llama.py``; kernels are counted by
    reading, not by running, and the attention of its CLIP variant was not found: that of
    its timm variant, fused with the bias in memory, is assumed.  Deviations between the
    published means are interpolated, and scale with the tokens of a sequence; tiles
    of an image are taken to vary together.  Newline tokens stay.
    """

    name = "dymu"
    title = "DyMU (dynamic merging, virtual unmerging)"
    summary = "Merges tokens in every vision block by a threshold; attention sees all tokens."
    where = "inside every vision block, and in every layer of the language model"
    reference = "Z. Wang et al., DyMU: Dynamic Merging and Virtual Unmerging, NeurIPS 2025"
    url = "https://arxiv.org/abs/2504.17040"
    static = False
    training = "none; thresholds from 250,000 images by inference"
    unknown = "Counts of other towers than CLIP ViT-L/14-336; batches in the language model."

    Params = DynamicParams

    def plan(self, params: DynamicParams, context: Context) -> CompressionPlan:
        """Return a plan with merging in the tower and unmerging in the language model."""
        sequences = tower_sequences(context, self.name)
        values: dict[Symbol, float] = {}
        # Newlines are rows that the projector does not give; they stay.
        fixed = context.markers + max(0, context.features - context.projected)
        mean, deviation, most = fixed, 0.0, fixed
        for item in sequences:
            kept, spread = _published(params, item.tokens)
            mean += item.number * kept
            deviation += item.number * spread
            most += item.number * item.tokens
            values[item.kept] = evaluated_count(
                normal_count(kept, spread, item.tokens), params.at
            )  # fmt: skip
        whole = normal_count(mean, deviation, most)
        visual = total(sequences)
        full = context.features + context.markers
        if mean == most:
            return CompressionPlan(
                method=self.name, insertion=Insertion("vision_encoder"), kept=whole,
                decoder_groups=context.uniform(full), values=values,
            )  # fmt: skip
        values[sym("sd")] = 0.0 if params.at == "p95" else deviation
        groups, ops = _tower(context, params, sequences, values)
        llm = DecoderGroup(
            context.model.text.layers,
            visual=longest_of_batch(visual + fixed, Integer(full), sym("sd")),
            visual_attended=full,
            visual_cached=full,
        )
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("vision_encoder"),
            kept=whole,
            decoder_groups=(llm,),
            tower_groups=groups,
            projector_rows=visual,
            ops=tuple(replace(op, graph_safe=False) for op in (*ops, *_unmerging(context, full))),
            values=values,
            training=self.training,
            graph_safe=False,
            notes=(
                spread_note(whole, params.at),
                "the KV cache holds all tokens, attention works on all: neither shrinks",
                "in a batch, padded to the longest sequence in tower and language model",
            ),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``kept``, the mean."""
        sequences = tower_sequences(context, self.name)
        return {"kept": kept_per_sequence(context, sequences, kept_per_image, self.name)}


def _published(params: DynamicParams, tokens: int) -> tuple[int, float]:
    """Mean and deviation of the tokens that remain of a sequence."""
    means = [0, *(mean for mean, _ in _PUBLISHED.values()), _WHOLE]
    spreads = [0, *(spread for _, spread in _PUBLISHED.values()), 0]
    scale = tokens / _WHOLE
    if params.kept is None:
        mean, spread = _PUBLISHED[params.level]
        return round(mean * scale), spread * scale
    if params.kept > tokens:
        raise InputError("compress dymu kept", params.kept, f"at most the {tokens} tokens")
    return params.kept, float(np.interp(params.kept / scale, means, spreads)) * scale


def _tower(
    context: Context,
    params: DynamicParams,
    sequences: tuple[TowerSequence, ...],
    values: dict[Symbol, float],
) -> tuple[tuple[TowerGroup, ...], list[Op]]:
    """Groups and operators block by block; values of x are added to `values`."""
    executed, read = executed_layers(context), layers_read(context)
    several = executed * len(sequences) + 1

    def length(layer: int, index: int) -> Expr:
        item = sequences[index]
        if layer == 0:
            return item.length
        gone = indexed("x", (layer - 1) * len(sequences) + index, several)
        removed = (item.tokens - values[item.kept]) * layer / read
        values[gone] = min(round(removed), item.tokens - 1)
        deviation = sym("sd") * Rational(layer, read) / sum(one.number for one in sequences)
        return longest_of_batch(item.length - gone, item.length, deviation)

    everything = range(len(sequences))
    tokens = [
        tuple(length(layer, index) for index in everything) for layer in range(executed + 1)
    ]  # fmt: skip
    groups = [
        TowerGroup(1, tokens[layer], tokens[layer + 1], "sdpa") for layer in range(executed)
    ]  # fmt: skip
    ops: list[Op] = []
    for index, item in enumerate(sequences):
        for layer in range(executed):
            label, now = f"{item.label}.block_{layer}", tokens[layer][index]
            if layer:
                ops.append(masked_bias(label, item.batch, now))
            ops += threshold_step(
                label, item.batch, now, item.length, layer == 0, params.impl == "released"
            )
    return tuple(groups), ops


def _unmerging(context: Context, full: int) -> list[Op]:
    """Operators around the attention of every decoder layer."""
    ba, layers = sym("ba"), Integer(context.model.text.layers)
    rows, devices = sym("b") * (sym("T") + full), sym("N")
    heads, kv_heads, head = sym("H") / devices, sym("G") / devices, sym("D")
    average = Integer(7)
    return [
        replace(
            elementwise(
                "dymu.merge_prompt", "compression", rows=rows, cols=sym("d"), read=2 * ba,
                write=ba, flops_per_element=ONE, launches=average + 1, primitive="gather",
                note="embeddings averaged to the tokens that remain; the host reads their number",
            ),
            host_syncs=ONE,
        ),
        copy(
            "dymu.expand", "compression", rows=rows, cols=(heads + 2 * kv_heads) * head,
            launches=Integer(3), gather=True, repeat=layers,
            note="queries, keys and values copied to all tokens",
        ),
        elementwise(
            "dymu.average", "compression", rows=rows, cols=heads * head, read=2 * ba, write=ba,
            flops_per_element=ONE, launches=average, repeat=layers, primitive="gather",
            note="attention averaged back: sums, counts, division",
        ),
    ]  # fmt: skip


METHOD = DynamicMerging()
