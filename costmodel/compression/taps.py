"""Parameters of methods that tap several layers of the vision tower."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from sympy import Symbol

from costmodel.compression.method import Context
from costmodel.errors import InputError, UnsupportedError
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["TapParams", "tap_values"]


class TapParams(Spec):
    """How many tower layers are tapped, and the width of the fusion module."""

    blocks: Annotated[int, Field(gt=0)] = Field(default=8, description="tower layers tapped")
    hidden: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="hidden width (default: 4 times the tower's width)"
    )


def tap_values(params: TapParams, context: Context, method: str) -> dict[Symbol, float]:
    """Return values of the symbols m, c, B and h.

    Raises
    ------
    InputError
        If more layers are tapped than the tower has.
    UnsupportedError
        If the projector joins neighbouring tokens.
    """
    if params.blocks > context.vision.layers:
        raise InputError(
            f"compress {method} blocks", params.blocks,
            f"at most the tower's {context.vision.layers} layers",
        )  # fmt: skip
    if context.projector.merge > 1:
        raise UnsupportedError(
            "compress", method,
            f"a model whose projector keeps every tower token; {context.model.name}'s joins them",
        )  # fmt: skip
    width = context.projector.in_features
    return {
        sym("m"): context.projected,
        sym("c"): width,
        sym("B"): params.blocks,
        sym("h"): params.hidden or 4 * width,
    }
