"""What methods share that fuse neighbourhoods of a square token grid."""

from __future__ import annotations

from typing import Any

from sympy import Expr, Symbol

from costmodel.compression.method import Context
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.errors import InputError, UnsupportedError
from costmodel.symbols import sym

__all__ = ["grid_plan", "window_for"]


def _check(context: Context, method: str, window: int) -> int:
    side = context.square_grid(method)
    if side % window:
        divisors = [str(n) for n in range(1, side + 1) if side % n == 0]
        raise InputError(
            f"compress {method} window", window,
            f"a divisor of the {side}x{side} token grid: {', '.join(divisors)}",
        )  # fmt: skip
    return side


def grid_plan(
    context: Context,
    method: str,
    window: int,
    width: int,
    *,
    before_projector: bool,
    **rest: Any,
) -> CompressionPlan:
    """Return the plan of a method that turns window x window tokens into one.

    Its operators use the symbols m (tokens per request before), a (window) and
    c (width).

    Raises
    ------
    InputError
        If tokens form no square grid or the window does not divide it.
    UnsupportedError
        If the projector joins neighbours, so that nothing can be fused before it.
    """
    _check(context, method, window)
    if before_projector and context.projector.merge > 1:
        raise UnsupportedError(
            "compress",
            method,
            f"a model whose projector keeps every tower token; {context.model.name}'s joins them",
        )
    before = context.features
    kept: Expr = sym("m") / sym("a") ** 2
    values: dict[Symbol, float] = dict(rest.pop("values", {}))
    values |= {sym("m"): float(before), sym("a"): float(window), sym("c"): float(width)}
    replaced = bool(rest.get("replaces_projector", False))
    return CompressionPlan(
        method=method,
        insertion=Insertion("after_encoder" if before_projector else "after_projector"),
        kept=TokenCount.static(before // window**2 + context.markers),
        decoder_groups=context.uniform(kept + context.markers),
        projector_rows=kept if before_projector and not replaced else None,
        values=values,
        **rest,
    )


def window_for(context: Context, method: str, kept_per_image: int) -> int:
    """Return the window that keeps `kept_per_image` tokens of each image.

    Raises
    ------
    InputError
        If no window gives that number; the message lists what can be reached.
    """
    side = context.square_grid(method)
    per_image = context.features // sum(group.units for group in context.images)
    choices = {per_image // n**2: n for n in range(1, side + 1) if side % n == 0}
    if kept_per_image not in choices:
        raise InputError(
            "visual-tokens-kept", kept_per_image,
            f"a count {method} can reach: {', '.join(str(n) for n in sorted(choices))}",
        )  # fmt: skip
    return choices[kept_per_image]
