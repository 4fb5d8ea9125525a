"""What FasterVLM and VisPruner share: parameters and the class attention they read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.method import Context
from costmodel.compression.tower import TowerSequence, attention_map_bytes, executed_layers
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["MapParams", "check_kept", "class_saliency", "kept_maps_bytes", "map_note"]


class MapParams(Spec):
    """How many tokens remain, and which attention weights are kept.

    Attributes
    ----------
    k : int
        Tokens of each tower sequence that remain.
    maps : {"all", "one"}
        Layers that write and keep their attention weights: all, as ``output_attentions``
        of the released code does, or the one that is read.
    """

    k: Annotated[int, Field(gt=0)] = Field(
        default=64, description="tokens of each tower sequence that remain"
    )
    maps: Literal["all", "one"] = Field(
        default="all", description="vision layers that keep their attention weights"
    )


def check_kept(kept: int, sequences: tuple[TowerSequence, ...], method: str) -> None:
    """Check that every tower sequence has `kept` tokens.

    Raises
    ------
    InputError
        If one has fewer.
    """
    most = min(item.tokens for item in sequences)
    if kept > most:
        raise InputError(f"compress {method} k", kept, f"at most the {most} tokens of a sequence")


def kept_maps_bytes(
    params: MapParams, context: Context, sequences: tuple[TowerSequence, ...]
) -> Expr:
    """Bytes of attention weights that are still in memory behind the tower [B]."""
    layers = executed_layers(context) if params.maps == "all" else 1
    return attention_map_bytes(context, sequences) * layers


def map_note(params: MapParams, context: Context) -> str:
    """Return the note on lost fused attention."""
    if params.maps == "all":
        return (
            f"attention weights of all {executed_layers(context)} vision layers are written and "
            "kept: no FlashAttention there"
        )
    return "attention weights of one vision layer are written: no FlashAttention there"


def class_saliency(item: TowerSequence, launches: int, note: str) -> Op:
    """Class attention averaged over heads, and the order or choice of tokens by it."""
    ba, index = sym("ba"), Integer(8)
    return elementwise(
        f"{item.label}.choose", "compression", rows=item.batch * sym("Hv"), cols=item.patches,
        read=ba + 3 * index / sym("Hv"), write=3 * index / sym("Hv"), flops_per_element=ONE,
        launches=Integer(launches), primitive="reduction", note=note,
    )  # fmt: skip
