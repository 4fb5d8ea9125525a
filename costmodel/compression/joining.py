"""Two plans as one: symbols kept apart, fields joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from sympy import Expr, Symbol, sympify

from costmodel.compression.method import Context
from costmodel.compression.plan import CompressionPlan, TokenCount
from costmodel.ops import Op, Traffic
from costmodel.symbols import sym

__all__ = ["apart", "join"]

Replacements = Mapping[Symbol, Expr]


def join(
    first: CompressionPlan, second: CompressionPlan, kept: TokenCount, label: str
) -> CompressionPlan:
    """Return the plan of `first` followed by `second`.

    Parameters
    ----------
    first, second : CompressionPlan
        The second made for what the first leaves, its symbols `apart`.
    kept : TokenCount
        Visual tokens that remain after both.
    label : str
        Name of the two.

    Returns
    -------
    CompressionPlan
        Layers of the language model as the second has them, vision layers of the one that
        changes them, operators and parameters of both.
    """
    layers = [n for n in (first.tower_layers, second.tower_layers) if n is not None]
    training = dict.fromkeys(p.training for p in (first, second) if p.training != "none")
    rows = first.projector_rows if second.projector_rows is None else second.projector_rows
    replaces = first.replaces_projector or second.replaces_projector
    return replace(
        second,
        method=label,
        kept=kept,
        tower_groups=first.tower_groups or second.tower_groups,
        tower_layers=max(layers) if layers else None,
        projector_rows=None if replaces else rows,
        replaces_projector=replaces,
        ops=(*first.ops, *second.ops),
        weights=(*first.weights, *second.weights),
        values={**first.values, **second.values},
        training="; ".join(training) or "none",
        needs_attention_weights=first.needs_attention_weights or second.needs_attention_weights,
        graph_safe=first.graph_safe and second.graph_safe,
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
        uncaptured=(*_uncaptured(first), *_uncaptured(second)),
    )


def _uncaptured(plan: CompressionPlan) -> tuple[str, ...]:
    return plan.uncaptured or (() if plan.graph_safe else (plan.method,))


def apart(
    plan: CompressionPlan, first: CompressionPlan, before: Context, after: Context
) -> CompressionPlan:
    """Return `plan` with names of its own where it shares symbols and operators with `first`.

    The tokens that it starts from (m) become what `first` keeps, as an expression, so that a
    sweep over a size of the first reaches the second.

    Parameters
    ----------
    plan : CompressionPlan
        Of the second method.
    first : CompressionPlan
        Of what comes before it.
    before, after : Context
        What the first and the second method see.
    """
    taken = {symbol.name for symbol in first.values} | {symbol.name for symbol in plan.values}
    mapping: dict[Symbol, Expr] = {}
    values: dict[Symbol, float] = {}
    linked = _kept_expression(first, before, after)
    for symbol, value in plan.values.items():
        if linked is not None and symbol == sym("m") and value == after.images[0].layout.features:
            mapping[symbol] = linked
            continue
        if symbol in first.values:
            mapping[symbol] = fresh = _fresh(symbol, taken)
            taken.add(fresh.name)
            values[fresh] = value
        else:
            values[symbol] = value
    names = {op.name for op in first.ops}
    return replace(
        plan,
        ops=tuple(
            replace(_op(op, mapping), name=_unused(op.name, names)) for op in plan.ops
        ),
        values=values,
        weights=tuple(_renamed_fields(item, mapping) for item in plan.weights),
        decoder_groups=tuple(_renamed_fields(group, mapping) for group in plan.decoder_groups),
        tower_groups=tuple(_renamed_fields(group, mapping) for group in plan.tower_groups),
        projector_rows=_renamed(plan.projector_rows, mapping),
    )  # fmt: skip


def _fresh(symbol: Symbol, taken: set[str]) -> Symbol:
    base = symbol.name.partition("_")[0]
    index = 1
    while f"{base}_{index}" in taken:
        index += 1
    return sym(f"{base}_{index}")


def _unused(name: str, names: set[str]) -> str:
    return _unused(f"{name}_again", names) if name in names else name


def _kept_expression(first: CompressionPlan, before: Context, after: Context) -> Expr | None:
    """Tokens that the first keeps of each image, as an expression; None if that is not one."""
    if len(before.images) != 1:
        return None
    units = before.images[0].units
    visual = sympify(first.decoder_groups[0].visual)
    found = ((visual - before.markers) / units).subs(sym("u"), units)
    if not found.free_symbols or not found.free_symbols <= first.values.keys():
        return None
    number = found.subs({symbol: first.values[symbol] for symbol in found.free_symbols})
    return found if number == after.images[0].layout.features else None


def _op(op: Op, mapping: Replacements) -> Op:
    if not op.free_symbols & mapping.keys():
        return op
    traffic = {f.name: getattr(op.traffic, f.name).xreplace(mapping) for f in fields(Traffic)}
    sizes = {
        name: getattr(op, name).xreplace(mapping)
        for name in ("flops", "repeat", "launches", "host_syncs", "live")
    }
    shape = tuple((name, size.xreplace(mapping)) for name, size in op.shape)
    return replace(op, traffic=Traffic(**traffic), shape=shape, **sizes)


def _renamed_fields(item: Any, mapping: Replacements) -> Any:
    """Rename in every field that is an expression or holds some."""
    return replace(item, **{f.name: _renamed(getattr(item, f.name), mapping) for f in fields(item)})


def _renamed(value: Any, mapping: Replacements) -> Any:
    if isinstance(value, Expr):
        return value.xreplace(mapping)
    if isinstance(value, tuple):
        return tuple(_renamed(item, mapping) for item in value)
    return value
