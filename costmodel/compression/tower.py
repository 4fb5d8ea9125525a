"""What methods share that act inside the vision tower, or on its output tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Symbol

from costmodel.compression.method import Context
from costmodel.compression.plan import TowerGroup
from costmodel.errors import InputError, UnsupportedError
from costmodel.ops import ZERO, AttentionImpl
from costmodel.symbols import indexed, sym
from costmodel.vision_tokens.layout import combine

__all__ = [
    "TowerSequence",
    "attention_map_bytes",
    "executed_layers",
    "kept_per_sequence",
    "layers_read",
    "reading_groups",
    "total",
    "tower_sequences",
]


@dataclass(frozen=True)
class TowerSequence:
    """Tower sequences (images or tiles) of one shape.

    Attributes
    ----------
    label : str
        Prefix of operator names.
    count : Symbol
        Sequences of this shape per request (t).
    length : Symbol
        Tokens of one, class token included (n).
    patches : Symbol
        Patches of one (g).
    kept : Symbol
        Visual tokens that remain of one (kt).
    batch : Expr
        Sequences of this shape that are computed together.
    number : int
        Value of `count`.
    tokens : int
        Value of `patches`.
    """

    label: str
    count: Symbol
    length: Symbol
    patches: Symbol
    kept: Symbol
    batch: Expr
    number: int
    tokens: int


def tower_sequences(
    context: Context, method: str, *, class_token: bool = False
) -> tuple[TowerSequence, ...]:
    """Return the tower sequences of one request, by shape, in the order of the tower.

    Parameters
    ----------
    context : Context
        Model and images.
    method : str
        Name of the method, for messages.
    class_token : bool
        Whether it needs the attention of a class token.

    Raises
    ------
    UnsupportedError
        If the projector joins neighbours, which a shortened sequence has not, or if
        the tower lacks a class token that is needed.
    """
    if context.projector.merge > 1:
        raise UnsupportedError(
            "compress", method,
            f"a model whose projector keeps every tower token; {context.model.name}'s joins them",
        )  # fmt: skip
    if class_token and not context.vision.class_token:
        raise UnsupportedError(
            "compress", method,
            f"a vision tower with a class token, such as CLIP's; {context.model.name} has none",
        )  # fmt: skip
    layout = combine(group.layout for group in context.images for _ in range(group.units))
    shapes = layout.segments
    found = []
    for index, segment in enumerate(shapes):
        t, n, g, kept = (indexed(name, index, len(shapes)) for name in ("t", "n", "g", "kt"))
        label = method if len(shapes) == 1 else f"{method}_{index}"
        found.append(
            TowerSequence(label, t, n, g, kept, sym("b") * t, segment.count, segment.patches)
        )
    return tuple(found)


def total(sequences: tuple[TowerSequence, ...]) -> Expr:
    """Return the tokens that remain per request, all sequences together."""
    return sum((item.count * item.kept for item in sequences), start=ZERO)


def executed_layers(context: Context) -> int:
    """Return how many vision layers the deployment runs."""
    return context.deployment.vision_layers or context.vision.layers_executed


def layers_read(context: Context) -> int:
    """Return how many vision layers lead to the output that is read."""
    executed = executed_layers(context)
    return min(context.vision.layers_needed or executed, executed)


def attention_map_bytes(context: Context, sequences: tuple[TowerSequence, ...]) -> Expr:
    r"""Bytes of one layer's attention weights in memory [B].

    .. math:: b \sum_i t_i H_v n_i^2 \beta_a
    """
    return sum(
        (item.batch * sym("Hv") * item.length**2 * sym("ba") for item in sequences), start=ZERO
    )


def reading_groups(
    context: Context, sequences: tuple[TowerSequence, ...], *, every: bool
) -> tuple[TowerGroup, ...]:
    """Return tower groups that write attention weights out, of all layers or of the last read.

    Parameters
    ----------
    context : Context
        Model and deployment.
    sequences : tuple of TowerSequence
        From `tower_sequences`.
    every : bool
        Whether all layers keep their weights, as ``output_attentions`` does.
    """
    executed, read = executed_layers(context), layers_read(context)
    written: AttentionImpl = "eager"
    one = attention_map_bytes(context, sequences)
    if every:
        # The last layer runs while the maps of all others are kept.
        return (TowerGroup(executed, attention=written, held=(sym("Lv") - 1) * one),)
    groups = (
        TowerGroup(read - 1),
        TowerGroup(1, attention=written),
        TowerGroup(executed - read, held=one),
    )
    return tuple(group for group in groups if group.layers)


def kept_per_sequence(
    context: Context, sequences: tuple[TowerSequence, ...], kept_per_image: int, method: str
) -> int:
    """Return the tokens each tower sequence keeps for about `kept_per_image` per image.

    Raises
    ------
    InputError
        If a sequence has fewer tokens.
    """
    images = sum(group.units for group in context.images)
    tiles = sum(item.number for item in sequences)
    kept = max(1, round(kept_per_image * images / tiles))
    most = min(item.tokens for item in sequences)
    if kept > most:
        raise InputError(
            "visual-tokens-kept", kept_per_image,
            f"at most {most * tiles // images}: {method} works on tower tokens",
        )  # fmt: skip
    return kept
