"""Some of the cases: those whose columns have values that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from .case import Case
from .errors import MeasureError, unknown_name

__all__ = ["chosen", "condition"]

_MOST_NAMED = 12


def chosen(cases: Sequence[Case], where: Sequence[str]) -> list[Case]:
    """Return the cases that meet all conditions, in their order.

    Parameters
    ----------
    cases : sequence of Case
        All.
    where : sequence of str
        ``COLUMN=PATTERN`` with ``*`` and ``?`` as in file names.  Of several patterns for a column
        one has to fit; cases of a kind without the column are left out.

    Raises
    ------
    MeasureError
        If a condition cannot be read, no case has the column, or none meets all conditions.

    Examples
    --------
    >>> made = [Case("s", "k", {"runtime": name, "batch": 1}, None) for name in ("eager", "graph")]
    >>> [case.key["runtime"] for case in chosen(made, ["runtime=e*", "batch=1"])]
    ['eager']
    """
    patterns: dict[str, list[str]] = {}
    for column, pattern in map(condition, where):
        patterns.setdefault(column, []).append(pattern)
    left = list(cases)
    for column, some in patterns.items():
        having = [case for case in left if column in case.key]
        if not having:
            raise unknown_name("column", column, {name for case in left for name in case.key})
        left = [case for case in having if _fits(case, column, some)]
        if not left:
            there = sorted({str(case.key[column]) for case in having})
            named = ", ".join(there[:_MOST_NAMED]) + (", ..." if there[_MOST_NAMED:] else "")
            asked = ", ".join(some)
            raise MeasureError(f"where: no case has {column} {asked!r}; there are: {named}")
    return left


def condition(text: str) -> tuple[str, str]:
    """Return column and pattern of a condition.

    Raises
    ------
    MeasureError
        If it is not of the form ``COLUMN=PATTERN``.
    """
    column, equals, pattern = text.partition("=")
    if not (equals and column.strip()):
        raise MeasureError(f"where: {text!r} is not valid; expected COLUMN=PATTERN")
    return column.strip(), pattern.strip()


def _fits(case: Case, column: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(str(case.key[column]), pattern) for pattern in patterns)
