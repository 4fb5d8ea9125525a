"""What the caller of a measurement got wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["MeasureError", "unknown_name"]


class MeasureError(ValueError):
    """A request that cannot be measured; the message names the field, value and choices."""


def unknown_name(field: str, value: str, choices: Iterable[str]) -> MeasureError:
    """Return the error of a name that is not known.

    Examples
    --------
    >>> print(unknown_name("suite", "gem", ["gemm", "launch"]))
    unknown suite 'gem'. Did you mean gemm? Known: gemm, launch.
    """
    known = sorted(choices)
    close = difflib.get_close_matches(value, known, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    return MeasureError(f"unknown {field} {value!r}.{guess} Known: {', '.join(known)}.")
