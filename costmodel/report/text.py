"""Numbers and tables as text for people."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from costmodel.units import format_si

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["bullets", "facts", "quantity", "ratio", "render", "table"]

WIDTH = 100
"""Columns of text that does not go to a terminal."""


def quantity(value: float, unit: str = "") -> str:
    """Format an SI value with a prefix; a dash for nothing.

    Examples
    --------
    >>> quantity(8.504e12), quantity(0.0432, "s"), quantity(0)
    ('8.50 T', '43.2 ms', '-')
    """
    return format_si(value, unit).rstrip() if value else "-"


def ratio(value: float, less: str = "less", more: str = "more") -> str:
    """Format how many times less something is.

    Examples
    --------
    >>> ratio(4.184), ratio(1.0), ratio(0.5, "faster", "slower")
    ('4.18x less', 'unchanged', '2.00x slower')
    """
    if f"{value:.2f}" == "1.00":
        return "unchanged"
    return f"{value:.2f}x {less}" if value > 1 else f"{1 / value:.2f}x {more}"


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: int = 1,
    gap: int = 2,
    least: int = 11,
) -> Table:
    """Return a table without vertical lines, which wraps but never cuts a cell.

    Parameters
    ----------
    columns : sequence of str
        Headings; a line break starts a second line.
    rows : iterable of sequence of str
        Cells; a row of dashes (``"---"``) draws a line.
    left : int
        How many leading columns are aligned to the left; the others to the right.
    gap : int
        Blanks between columns.
    least : int
        Columns of text are not made narrower than this.

    Returns
    -------
    rich.table.Table
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0), show_edge=False
    )  # fmt: skip
    cells = [tuple(row) for row in rows]
    tall = any("\n" in heading for heading in columns)
    for index, heading in enumerate(columns):
        lines = [*heading.split("\n"), *(row[index] for row in cells if index < len(row))]
        longest = max(map(len, lines))
        # Rich cuts what may not wrap when it runs out of columns, so numbers get their width.
        fixed = index >= left or (index == 0 and left > 1)
        made.add_column(
            Text(heading if "\n" in heading or not tall else f"\n{heading}"),
            justify="left" if index < left else "right",
            no_wrap=fixed,
            min_width=longest if fixed else min(longest, least),
            overflow="fold",
        )
    for row in cells:
        if row and row[0] == "---":
            made.add_section()
        else:
            made.add_row(*(Text(cell) for cell in row))
    return made


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Return two columns without headings: what, and its value."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(Text(name), Text(value))
    return made


def bullets(heading: str, lines: Iterable[str]) -> list[RenderableType]:
    """Return a heading and a list; nothing if the list is empty."""
    from rich.table import Table
    from rich.text import Text

    found = list(lines)
    if not found:
        return []
    made = Table.grid(padding=(0, 1, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for line in found:
        made.add_row("-", Text(line))
    return ["", Text(heading, style="bold"), made]


def render(parts: Iterable[RenderableType], *, width: int = WIDTH, colour: bool = False) -> str:
    """Return what `parts` look like as text.

    Parameters
    ----------
    parts : iterable of rich renderables
        Printed below each other.
    width : int
        Columns available; more are used where a table would be cut otherwise.
    colour : bool
        Whether to write control sequences for a terminal.

    Returns
    -------
    str
        Lines without trailing blanks.
    """
    from rich.console import Console
    from rich.table import Table

    found = list(parts)
    wide = Console(file=io.StringIO(), width=10 * WIDTH)
    needed = [wide.measure(part).minimum for part in found if isinstance(part, Table)]
    buffer = io.StringIO()
    console = Console(
        file=buffer, width=max([width, *needed]), force_terminal=colour,
        color_system="auto" if colour else None,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    for part in found:
        console.print(part)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
