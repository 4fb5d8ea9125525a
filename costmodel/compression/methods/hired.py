"""HiRED: a budget shared out among tiles by early class attention, spent by late attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.compression.hooked import again, hook_groups, hooked_bytes
from costmodel.compression.method import Context, ImageGroup, Method
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.compression.tower import (
    TowerSequence,
    attention_map_bytes,
    executed_layers,
    layers_read,
    tower_sequences,
)
from costmodel.errors import InputError, UnsupportedError
from costmodel.ops import ONE, ZERO, Op, copy, elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import indexed, sym

__all__ = ["METHOD"]

_RETENTION = 0.2


class TileBudgetParams(Spec):
    """The budget of an image, and the share of it that the whole image gets.

    Attributes
    ----------
    k : int, optional
        Tokens that remain of each image.
    retention : float, optional
        Share of the tower's tokens that remain of each image instead, rounded down; 0.2 if
        neither is given.
    alpha : float
        Share of the budget that the whole image gets where there are tiles beside it, at most
        all of its tokens; the tiles get the rest.
    """

    k: Annotated[int, Field(gt=0)] | None = Field(default=None, description="tokens kept per image")
    retention: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of the tower's tokens kept, instead of k (default 0.2)"
    )
    alpha: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="share of the budget for the whole image beside its tiles"
    )

    @model_validator(mode="after")
    def _one_of(self) -> TileBudgetParams:
        if self.k is not None and self.retention is not None:
            raise ValueError("give k or retention, not both")
        return self


class HighResolutionDropping(Method):
    """Top-k of the class attention in the last layer that is read, tile by tile.

    With tiles (LLaVA-NeXT), the whole image gets the share alpha of the budget. Of its
    attention in the first layer the best (1 - alpha) of the positions are marked, and a tile
    gets of the rest what it holds of the marks; a loop over the tiles reads each number on the
    host. All tokens pass the projector, newline tokens are left out. Without tiles (LLaVA-1.5)
    the late layer alone decides, before the projector.

    Hooks keep the queries and keys of both layers and attention is computed again, ``2 H_v n^2
    D_v`` FLOP per sequence and layer, so that the tower keeps its own kernel; 42 launches for an
    image with four tiles, 8 without. Read: the authors' ``modeling_llava_next.py`` and
    ``modeling_llava.py`` (hasanar1f/HiRED, commit 42be984). The latter lets the first image of a
    batch choose the positions of all; here every image chooses its own. Budget and alpha are
    those of the authors' scripts.
    """

    name = "hired"
    title = "HiRED"
    summary = "Shares a token budget out among tiles by early, spends it by late class attention."
    where = "after the vision tower; behind the projector where images have tiles"
    reference = "K. H. I. Arif et al., HiRED: Attention-Guided Token Dropping, AAAI 2025"
    url = "https://arxiv.org/abs/2408.10945"
    unknown = (
        "How many tokens are lost in the image: those chosen in its padding, which is cut off "
        "afterwards, and up to one per tile as its share is rounded down. None is assumed."
    )

    Params = TileBudgetParams

    def plan(self, params: TileBudgetParams, context: Context) -> CompressionPlan:
        """Return a plan with attention of hooked layers, budgets and selection."""
        item = _sequence(context, self.name)
        tiled = any(group.layout.tower_sequences > 1 for group in context.images)
        values: dict[Symbol, float] = {}
        chosen: Expr = ZERO
        images: Expr = ZERO
        count = 0
        for index, group in enumerate(context.images):
            units, kept = (indexed(name, index, len(context.images)) for name in "uk")
            number = _kept(params, group)
            values |= {units: group.units, kept: number}
            chosen, images = chosen + units * kept, images + units
            count += group.units * number
        plan = CompressionPlan(
            method=self.name,
            insertion=Insertion("after_projector" if tiled else "after_encoder"),
            kept=TokenCount.static(count + context.markers),
            decoder_groups=context.uniform(chosen + context.markers),
            values=values,
        )
        if count == context.features:
            return plan
        late = layers_read(context) - 1
        layers = {"first": 0, "late": late} if tiled else {"late": late}
        notes = ["attention of hooked layers is computed again, the tower keeps its own kernel"]
        if tiled:
            notes.append("the host waits for the budget of every tile; rounding may lose a few")
        maps = attention_map_bytes(context, (item,))
        ops: list[Op] = []
        for done, layer in enumerate(layers):
            ops += again(item, layer, maps * done + hooked_bytes(item) * (len(layers) - 1))
        spend = _by_tiles(item, images, chosen) if tiled else _at_once(item, chosen)
        ops += [one.holding(maps * len(layers)) for one in spend]
        return replace(
            plan,
            tower_groups=hook_groups(item, tuple(layers.values()), executed_layers(context)),
            projector_rows=context.projected if tiled else chosen,
            ops=tuple(replace(op, graph_safe=False) for op in ops),
            graph_safe=False,
            notes=tuple(notes),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``k``."""
        most = min(group.layout.features for group in context.images)
        if kept_per_image > most:
            raise InputError(
                "visual-tokens-kept", kept_per_image, f"at most the {most} tokens of an image"
            )
        return {"k": kept_per_image}


def _sequence(context: Context, method: str) -> TowerSequence:
    found = tower_sequences(context, method, class_token=True)
    if len(found) > 1:
        raise UnsupportedError(
            "compress", method,
            f"images cut into tiles of one shape; {context.model.name} makes {len(found)} shapes",
        )  # fmt: skip
    return found[0]


def _kept(params: TileBudgetParams, group: ImageGroup) -> int:
    """Tokens of one image that remain; a budget of all the tower's leaves the image as it is."""
    layout = group.layout
    budget = params.k or max(1, int(layout.projected * (params.retention or _RETENTION)))
    if params.k is not None and budget > layout.features:
        raise InputError(
            "compress hired k", budget, f"at most the {layout.features} tokens of an image"
        )
    if budget >= min(layout.features, layout.projected):
        return layout.features
    if layout.tower_sequences == 1:
        return budget
    each = layout.projected // layout.tower_sequences
    whole = min(int(budget * params.alpha), each)
    # The tiles hold no more than what is left of them without padding.
    return whole + min(budget - whole, layout.features - each)


def _at_once(item: TowerSequence, chosen: Expr) -> list[Op]:
    ba = sym("ba")
    choose = elementwise(
        f"{item.label}.choose", "compression", rows=item.batch * sym("Hv"), cols=item.patches,
        read=ba, write=ba / sym("Hv"), flops_per_element=ONE, launches=Integer(4),
        primitive="reduction", note="sum over heads, top-k, mask",
    )  # fmt: skip
    gather = copy(
        f"{item.label}.gather", "compression", rows=sym("b") * chosen, cols=sym("dv"),
        gather=True, note="boolean index",
    )  # fmt: skip
    return [choose, replace(gather, host_syncs=ONE)]


def _by_tiles(item: TowerSequence, images: Expr, chosen: Expr) -> list[Op]:
    """Loops of the host over images, and in them over tiles."""
    ba, d, number = sym("ba"), sym("d"), sym("b") * images
    tiles = item.batch - number
    share = elementwise(
        f"{item.label}.share", "compression", rows=item.batch * sym("Hv"), cols=item.patches,
        read=2 * ba, write=2 * ba / sym("Hv"), flops_per_element=Integer(2),
        launches=14 * number, primitive="reduction",
        note="sums over heads; top-k of the whole image twice; budgets of its tiles",
    )  # fmt: skip
    spend = elementwise(
        f"{item.label}.spend", "compression", rows=ONE, cols=item.patches, read=ba, write=ba,
        flops_per_element=ONE, launches=Integer(3), repeat=tiles, primitive="topk",
        note="budget of a tile read by the host, top-k, mask",
    )  # fmt: skip
    arrange = copy(
        f"{item.label}.arrange", "compression", rows=tiles * item.patches, cols=d,
        launches=2 * number, note="tokens and mask of the tiles side by side",
    )  # fmt: skip
    gather = copy(
        f"{item.label}.gather", "compression", rows=sym("b") * chosen, cols=d,
        launches=2 * number, gather=True, note="boolean index: the whole image, then its tiles",
    )  # fmt: skip
    join = copy(
        f"{item.label}.join", "compression", rows=sym("b") * chosen, cols=d,
        passes=Integer(2), launches=number + 1, note="parts of an image, then images",
    )  # fmt: skip
    return [
        share, replace(spend, host_syncs=ONE), arrange,
        replace(gather, host_syncs=2 * number), join,
    ]  # fmt: skip


METHOD = HighResolutionDropping()
