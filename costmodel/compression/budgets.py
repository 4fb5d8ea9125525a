"""A method, or several in order, set so that a number of tokens remains."""

from __future__ import annotations

from costmodel.compression.composition import SEPARATOR, Chain, Compression, remaining
from costmodel.compression.method import Context, parse, request, split
from costmodel.errors import SpecError

__all__ = ["method_names", "request_for"]


def method_names(text: str) -> tuple[str, ...]:
    """Return the names in ``METHOD[:key=value,...]`` or several with ``then`` between.

    Examples
    --------
    >>> method_names("visionzip:k=192 then fastv:layer=3"), method_names("MBTF+STF")
    (('visionzip', 'fastv'), ('mbtf+stf',))
    """
    return tuple(part.partition(":")[0].strip().lower() for part in text.split(SEPARATOR))


def request_for(text: str, kept_per_image: int, context: Context) -> Compression:
    """Read one method or several with ``then`` between, the last set to keep so many tokens.

    Parameters
    ----------
    text : str
        ``METHOD[:key=value,...]``, or several; those before the last are taken as given.
    kept_per_image : int
        Visual tokens that each image keeps in the end.
    context : Context
        What the first method sees.

    Raises
    ------
    UnknownNameError, SpecError
        If a name, a key or a value is not known, or a value also follows from the number.
    InputError
        If the last method cannot keep that many of what the others leave.
    """
    *before, last = text.split(SEPARATOR)
    found = [one for one in map(parse, before) if one.compresses]
    for one in found:
        plan = one.plan(context)
        context = remaining(context, plan, plan.kept.mean)
    method, given = split(last)
    wanted = method.params_for(kept_per_image, context)
    if clash := sorted(wanted.keys() & given.keys()):
        raise SpecError(f"compress {text!r}: visual-tokens-kept already sets {clash[0]!r}")
    made = request(method, {**wanted, **given})
    return Chain((*found, made)) if found and made.compresses else made
