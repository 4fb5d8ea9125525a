"""What the generated pages are made of."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["table"]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    r"""Return a Markdown table; bars in cells are escaped.

    Examples
    --------
    >>> print(table(("a", "b"), [("1", "2|3")]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2\|3 |
    """
    head = list(header)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"
                   for line in lines)  # fmt: skip
