"""PruMerge+: PruMerge, with patches on an even grid beside the outliers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sympy import Expr, Integer, Symbol

from costmodel.compression.counts import (
    evaluated_count,
    longest_of_batch,
    normal_count,
    spread_note,
)
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan, Insertion
from costmodel.compression.prumerge import (
    NEIGHBOURS,
    PruMergeParams,
    class_attention,
    loop_merge,
    product_merge,
)
from costmodel.compression.tower import (
    TowerSequence,
    kept_per_sequence,
    total,
    tower_sequences,
)
from costmodel.errors import InputError
from costmodel.ops import Op, elementwise
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]

_SHARE = 1 / 4
_OUTLIERS = 32 / 144
"""Outliers among the tokens that remain: the paper's means, 1/18 and 1/4 of 576."""


class PruMergePlus(Method):
    """Keeps outliers, patches on a grid that are none, and one sum of the others.

    FLOPs as PruMerge's with the larger k.  As released the host asks for each patch of the
    grid whether it is an outlier, and reads each that is not.  One image at a time: a
    batch is padded to its longest sequence in the language model.  The number of patches
    on the grid follows from both means, ``(k - o) / (1 - o / g)``.
    """

    name = "prumerge-plus"
    title = "LLaVA-PruMerge+"
    summary = "PruMerge with patches on an even grid beside the outliers of the class attention."
    where = "after the vision tower, before the projector"
    reference = "Y. Shang et al., LLaVA-PruMerge: Adaptive Token Reduction"
    url = "https://arxiv.org/abs/2403.15388"
    static = False
    training = "none, or fine-tuning with LoRA"
    unknown = (
        "The spread of the number of tokens over images: 0.3 of its mean is assumed; how many "
        "outliers are among them at other budgets: 2 in 9 are assumed, as at the paper's."
    )

    Params = PruMergeParams

    def plan(self, params: PruMergeParams, context: Context) -> CompressionPlan:
        """Return a plan with the merge of every tower sequence, one image after the other."""
        sequences = tower_sequences(context, self.name, class_token=True)
        ops: list[Op] = []
        values: dict[Symbol, float] = {sym("nb"): NEIGHBOURS}
        mean, most, deviation = 0, 0, 0.0
        limit: Expr = Integer(context.markers)
        for index, item in enumerate(sequences):
            kept = params.kept or max(3, round(item.tokens * _SHARE))
            if not 3 <= kept <= item.tokens or item.tokens <= NEIGHBOURS:
                raise InputError(
                    "compress prumerge-plus kept", kept, f"3 to the {item.tokens} tokens of a "
                    f"tower sequence, which has more than {NEIGHBOURS}",
                )  # fmt: skip
            mean += item.number * kept
            most += item.number * item.tokens
            deviation += item.number * kept * params.spread
            limit += item.count * item.patches
            count = normal_count(kept, kept * params.spread, item.tokens)
            values[item.kept] = max(3, evaluated_count(count, params.at))
            outliers, grid = (indexed(name, index, len(sequences)) for name in ("ko", "kg"))
            values[outliers] = max(1, round(values[item.kept] * _OUTLIERS))
            stay = values[item.kept] - 1 - values[outliers]
            values[grid] = max(1, round(stay / (1 - values[outliers] / item.tokens)))
            ops += _merge(item, outliers, grid, params, context.deployment.dtype != "fp32")
        whole = normal_count(mean + context.markers, deviation, most + context.markers)
        values[sym("sd")] = 0.0 if params.at == "p95" else deviation
        visual = total(sequences)
        notes = [spread_note(whole, params.at), "in a batch, padded to the longest sequence"]
        if params.impl == "released":
            notes.append(
                "a Python loop over tokens, one image at a time; the host waits for each patch "
                "of the grid"
            )
        return CompressionPlan(
            method=self.name,
            insertion=Insertion("after_encoder"),
            kept=whole,
            decoder_groups=context.uniform(
                longest_of_batch(visual + context.markers, limit, sym("sd"))
            ),
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
        if kept < 3:
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"at least {3 * sum(item.number for item in sequences)}: an outlier, a patch of "
                "the grid and the sum",
            )  # fmt: skip
        return {"kept": kept}


def _merge(
    item: TowerSequence, outliers: Symbol, grid: Symbol, params: PruMergeParams, casts: bool
) -> list[Op]:
    fused = params.impl == "fused"
    stay = item.kept - 1
    launches: Expr = Integer(5) if fused else 2 + 3 * grid + (stay - outliers)
    # As released also for the list of patches that are added, which the host makes and copies.
    syncs: Expr = Integer(1) if fused else 1 + grid + (stay - outliers)
    spatial = elementwise(
        f"{item.label}.grid", "compression", rows=grid, cols=outliers, read=Integer(8),
        write=Integer(8) / outliers, flops_per_element=Integer(1), launches=launches,
        primitive="reduction", note="patches of the grid that are no outliers",
    )  # fmt: skip
    # One sequence after the other, not a batch at once.
    alone = replace(item, batch=Integer(1))
    merge = product_merge if fused else loop_merge
    ops = [
        *class_attention(alone, casts, fused),
        replace(spatial, host_syncs=syncs, graph_safe=False),
        *merge(alone, stay),
    ]
    return [op.times(item.batch) for op in ops]


METHOD = PruMergePlus()
