"""What FasterVLM and VisPruner share: parameters and the class attention they read."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from sympy import Expr, Integer

from costmodel.compression.method import Context
from costmodel.compression.tower import TowerSequence, attention_map_bytes, executed_layers
from costmodel.errors import InputError
from costmodel.ops import ONE, ZERO, Op, elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = [
    "INDEX_BYTES",
    "MapParams",
    "check_kept",
    "class_saliency",
    "kept_maps_bytes",
    "map_note",
    "masked_gather",
]

INDEX_BYTES = Integer(8)
"""Of an index [B]."""


class MapParams(Spec):
    """How many tokens remain, and which attention weights are kept.

    Attributes
    ----------
    k : int
        Tokens of each tower sequence that remain.
    maps : {"all", "one"}
        Layers that write and keep their attention weights: all, as ``output_attentions``
        of the released code does, or the one that is read.
    position : {"after_projector", "before_projector"}
        Where tokens go.
    """

    k: Annotated[int, Field(gt=0)] = Field(
        default=64, description="tokens of each tower sequence that remain"
    )
    maps: Literal["all", "one"] = Field(
        default="all", description="vision layers that keep their attention weights"
    )
    position: Literal["after_projector", "before_projector"] = Field(
        default="after_projector",
        description="whether tokens go after the projector, as released, or before it",
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


def class_saliency(item: TowerSequence, launches: int, written: Expr, note: str) -> Op:
    r"""Class attention averaged over heads, and the order or choice of tokens by it.

    .. math:: Q = B (H_v g \beta_a + 2 g \beta_a + w)

    Parameters
    ----------
    item : TowerSequence
        B sequences of g patches.
    launches : int
        Kernels, the mean among them.
    written : Expr
        Bytes that the kernels after the mean write, per patch [B] (w over g).
    note : str
        Which kernels.
    """
    ba, heads = sym("ba"), sym("Hv")
    return elementwise(
        f"{item.label}.choose", "compression", rows=item.batch * heads, cols=item.patches,
        read=ba + ba / heads, write=(ba + written) / heads, flops_per_element=ONE,
        launches=Integer(launches), live=(ba + written) / heads, primitive="reduction", note=note,
    )  # fmt: skip


def masked_gather(item: TowerSequence, batch: Expr, width: Expr, repeat: Expr = ONE) -> Op:
    """Tokens under a boolean mask, whose number the host waits for.

    Parameters
    ----------
    item : TowerSequence
        Its kept tokens of all patches.
    batch : Expr
        Sequences at once.
    width : Expr
        Of a token.
    repeat : Expr
        Times.
    """
    mask = item.patches / (item.kept * width)
    gather = elementwise(
        f"{item.label}.gather", "compression", rows=batch * item.kept, cols=width,
        read=sym("ba") + mask + INDEX_BYTES / width, write=sym("ba") + INDEX_BYTES / width,
        flops_per_element=ZERO, kind="copy", primitive="gather", repeat=repeat,
        note="boolean index: the places of the mask, and the tokens there",
    )  # fmt: skip
    return replace(gather, host_syncs=ONE, graph_safe=False)
