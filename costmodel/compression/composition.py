"""Methods one after the other: the second works on the tokens that the first leaves.

Which pairs make sense follows from where methods act: never back towards the image; at most
one inside the vision tower, one in place of the projector and one inside the language model;
none that reads the vision tower's layers after one that leaves fewer tokens than these have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from costmodel.compression.joining import apart, join
from costmodel.compression.method import Context, ImageGroup, Request, parse
from costmodel.compression.plan import CompressionPlan, DecoderGroup, TokenCount
from costmodel.errors import InputError, UnsupportedError
from costmodel.symbols import indexed

__all__ = ["SEPARATOR", "Chain", "Compression", "parse_compression", "remaining"]

SEPARATOR = " then "
"""Between methods that act one after the other, in text."""

_WORDS = {
    "none": "nowhere",
    "vision_encoder": "inside the vision tower",
    "after_encoder": "after the vision tower",
    "after_projector": "after the projector",
    "llm": "inside the language model",
}
_ORDER = tuple(_WORDS)


@dataclass(frozen=True)
class Chain:
    """Two or more methods with checked parameters, in the order they act.

    Attributes
    ----------
    requests : tuple of Request
        None of them is no compression.
    """

    requests: tuple[Request, ...]

    @property
    def label(self) -> str:
        """Labels of the methods with ``then`` between them; it can be parsed again."""
        return SEPARATOR.join(request.label for request in self.requests)

    @property
    def compresses(self) -> bool:
        """Whether it is more than no compression: always."""
        return True

    def plan(self, context: Context) -> CompressionPlan:
        """Return what the methods do together.

        Raises
        ------
        UnsupportedError
            If two of them cannot follow each other; the message names both.
        InputError
            If one cannot work on what the one before it leaves.
        """
        first, *rest = self.requests
        whole = context
        label = first.label
        plan = last = first.plan(context)
        for request in rest:
            label = f"{label}{SEPARATOR}{request.label}"
            # On all tokens first: what makes no sense there needs no look at the numbers.
            fewer = plan.kept.mean != whole.features + whole.markers
            _check_pair(plan, request.plan(context), request.method.name, label, fewer)
            before, context = context, remaining(context, last, last.kept.mean)
            last = _plan_of(request, context, plan.method, label)
            kept = _propagated(plan.kept, request, last, before, context)
            plan = join(plan, apart(last, plan, before, context), kept, label)
        return plan


Compression = Request | Chain
"""One method, or several in order."""


def parse_compression(
    given: str | Compression | Sequence[str | Request] | None,
) -> Compression | None:
    """Read one method or several.

    Parameters
    ----------
    given : str, Request, Chain, sequence of str or Request, optional
        ``METHOD[:key=value,...]``, several of them in a sequence or with ``then`` between.

    Returns
    -------
    Request, Chain or None
        ``none`` beside other methods is left out.

    Raises
    ------
    UnknownNameError, SpecError
        If a name, a key or a value is not known.
    InputError
        If it is no text.

    Examples
    --------
    >>> parse_compression(["random:k=192", "cluster:k=64"]).label
    'random:k=192 then cluster:k=64'
    >>> parse_compression("none then random:k=64").label
    'random:k=64'
    """
    if given is None or isinstance(given, Request | Chain):
        return given
    several = isinstance(given, Sequence) and not isinstance(given, str)
    parts = list(given) if several else [given]
    found: list[Request] = []
    for part in parts:
        if isinstance(part, Request):
            found.append(part)
        elif isinstance(part, str):
            found += [parse(text) for text in part.split(SEPARATOR)]
        else:
            raise InputError("compress", part, "METHOD or METHOD:key=value,..., or a list of them")
    if len(found) > 1:
        found = [request for request in found if request.compresses] or found[:1]
    if len(found) > 1:
        return Chain(tuple(found))
    return found[0] if found else None


def remaining(context: Context, plan: CompressionPlan, tokens: float) -> Context:
    """Return what a further method sees.

    Parameters
    ----------
    context : Context
        What the method of `plan` saw.
    plan : CompressionPlan
        What it does.
    tokens : float
        Visual tokens that it keeps of a request, markers included; rounded to whole tokens of
        each image where its number depends on the image.

    Raises
    ------
    UnsupportedError
        If it is not known how many tokens each image keeps.
    """
    before_projector = plan.insertion.where in ("vision_encoder", "after_encoder")
    groups = []
    for index, group in enumerate(context.images):
        layout = group.layout
        kept = _kept_of(context, plan, index, tokens - context.markers)
        groups.append(
            ImageGroup(
                group.units,
                replace(
                    layout, features=kept,
                    projected=kept if before_projector else layout.projected,
                    # What is left of a grid is none, unless all of it is left.
                    grid=layout.grid if kept == layout.features else None,
                ),
            )
        )  # fmt: skip
    return replace(context, images=tuple(groups))


def _kept_of(context: Context, plan: CompressionPlan, index: int, features: float) -> int:
    group, count = context.images[index], len(context.images)
    symbols = [indexed("k", i, count) for i in range(count)]
    if count > 1 and plan.kept.is_static and all(symbol in plan.values for symbol in symbols):
        kept = float(plan.values[symbols[index]])
    else:
        kept = features * group.layout.features / context.features
    if plan.kept.is_static and kept != round(kept):
        raise UnsupportedError(
            "compress", plan.method,
            "the last method: it is not known how many tokens it leaves of each image",
        )  # fmt: skip
    return max(1, round(kept))


def _plan_of(request: Request, context: Context, first: str, label: str) -> CompressionPlan:
    try:
        return request.plan(context)
    except InputError as error:
        name = request.method.name
        raise UnsupportedError(
            "compress", label, f"{name} to be able to work on what {first} leaves ({error})"
        ) from None


def _propagated(
    first: TokenCount,
    request: Request,
    plan: CompressionPlan,
    before: Context,
    after: Context,
) -> TokenCount:
    """Tokens kept by a second method where the first leaves a distribution.

    Its percentiles are those of the second at the percentiles of the first, which is exact
    where the second is static and keeps more tokens of more, and an upper bound of the 95th
    where both depend on the image.
    """
    if first.is_static:
        return plan.kept

    def at(tokens: float) -> TokenCount:
        share = (tokens - before.markers) / (first.mean - before.markers)
        images = tuple(
            replace(
                group,
                layout=replace(
                    group.layout,
                    features=max(1, round(group.layout.features * share)),
                    projected=max(1, round(group.layout.projected * share)),
                ),
            )
            for group in after.images
        )
        try:
            return request.plan(replace(after, images=images)).kept
        except InputError:
            # Fewer tokens come than the second would keep: all of them stay.
            return TokenCount(tokens, tokens, tokens)

    return TokenCount(plan.kept.mean, at(first.p50).p50, at(first.p95).p95)


def _check_pair(
    first: CompressionPlan, second: CompressionPlan, name: str, label: str, fewer: bool
) -> None:
    """Refuse what makes no sense together; `fewer` if the first leaves fewer tokens."""

    def refuse(expected: str) -> None:
        raise UnsupportedError("compress", label, expected)

    if _in_llm(first) and _in_llm(second):
        refuse(
            f"one method inside the language model: {first.method} and {name} both set the tokens "
            "of its layers"
        )
    end, start = "llm" if _in_llm(first) else first.insertion.where, second.insertion.where
    if _ORDER.index(end) > _ORDER.index(start):
        refuse(
            f"methods in the order of the model: {first.method} acts {_WORDS[end]}, {name} "
            f"{_WORDS[start]}, which is before it"
        )
    if first.replaces_projector and second.replaces_projector:
        refuse(f"one method in place of the projector: {first.method} and {name} both replace it")
    if first.replaces_projector and second.insertion.where == "after_encoder":
        refuse(
            f"{name} after the projector: {first.method} replaces the projector, nothing is left "
            "before it"
        )
    if first.tower_groups and second.tower_groups:
        refuse(
            f"one method that changes the vision tower: {first.method} and {name} both set its "
            "layers"
        )
    if fewer and (second.tower_groups or second.tower_layers is not None):
        refuse(
            f"{name} without {first.method}: it reads layers of the vision tower, which know "
            f"nothing of the tokens that {first.method} leaves"
        )


def _in_llm(plan: CompressionPlan) -> bool:
    """Whether a plan sets more than the number of tokens that enter the language model."""
    first = plan.decoder_groups[0]
    uniform = (DecoderGroup(layers=first.layers, visual=first.visual),)
    return plan.insertion.where == "llm" or plan.decoder_groups != uniform
