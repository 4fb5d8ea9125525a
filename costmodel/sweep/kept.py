"""Which counts of visual tokens a method can keep, and with which parameters.

A count is asked for per image.  Methods that can only keep other numbers are left out at it,
with the reason; a method whose number is fixed, by its nature or by the parameters given,
keeps that number once, whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.compression.composition import parse_compression, remaining
from costmodel.compression.method import Context, Method, split
from costmodel.compression.method import request as make_request
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError, SpecError
from costmodel.sweep.names import SEPARATOR, method_parts

__all__ = ["Option", "options_for"]


@dataclass(frozen=True)
class Option:
    """A method at one count.

    Attributes
    ----------
    asked : int
        Tokens each image was asked to keep; 0 if it keeps its own number.
    compress : str
        The method with all parameters.
    kept : float
        Visual tokens of a request that remain, marker tokens included.
    family : object
        Options of one family differ in nothing but the count.
    """

    asked: int
    compress: str
    kept: float
    family: object


def options_for(
    text: str, context: Context, counts: Sequence[int] | None
) -> tuple[list[Option], dict[int, str]]:
    """Return what a method can do, and why not for the other counts.

    Parameters
    ----------
    text : str
        ``METHOD:key=value,...``, a chain with ``then``.
    context : Context
        Model and images.
    counts : sequence of int, optional
        Tokens each image shall keep; None for the method's own number.

    Raises
    ------
    SpecError
        If parameters are not valid.
    InputError
        If the method cannot work on this model and these images at all.
    """
    *before, last = method_parts(text)
    method, given = split(last)
    if counts is None or method.name == "none":
        return [_own(text, context)], {}
    inner = _after(before, context)
    if _is_fixed(method, given, inner, counts):
        return [_own(text, context)], {}
    found: list[Option] = []
    reasons: dict[int, str] = {}
    images = sum(group.units for group in context.images)
    for count in counts:
        try:
            wanted = method.params_for(count, inner)
            label = SEPARATOR.join([*before, make_request(method, {**given, **wanted}).label])
            plan = _plan(label, context)
        except InputError as error:
            reasons[count] = error.expected
            continue
        exact = plan.kept.mean == count * images + context.markers and not before
        family = (plan.ops, plan.decoder_groups) if exact else label
        found.append(Option(count, label, plan.kept.mean, family))
    return found, reasons


def _own(text: str, context: Context) -> Option:
    if text == "none":
        return Option(0, text, context.features + context.markers, text)
    return Option(0, text, _plan(text, context).kept.mean, text)


def _plan(text: str, context: Context) -> CompressionPlan:
    request = parse_compression(text)
    if request is None or not request.compresses:
        raise InputError("method", text, "a method that compresses")
    return request.plan(context)


def _after(before: Sequence[str], context: Context) -> Context:
    """Return what the last method of a chain sees."""
    for part in before:
        request = parse_compression(part)
        if request is not None and request.compresses:
            plan = request.plan(context)
            context = remaining(context, plan, plan.kept.mean)
    return context


def _is_fixed(
    method: Method, given: dict[str, str], context: Context, counts: Sequence[int]
) -> bool:
    """Whether the number is no choice, or the parameters given set it."""
    try:
        own = make_request(method, given).plan(context)
    except (InputError, SpecError):
        return False
    images = sum(group.units for group in context.images)
    for count in (round((own.kept.mean - context.markers) / images), *counts):
        try:
            wanted = method.params_for(max(1, count), context)
        except InputError:
            continue
        if not wanted or wanted.keys() & given.keys():
            return True
        try:
            make_request(method, {**given, **wanted}).plan(context)
        except SpecError:
            return True
        except InputError:
            continue
        return False
    return False
