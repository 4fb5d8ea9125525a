"""Where a result goes: the terminal, a pipe or a file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["check", "emit", "table_text"]


def check(output: str | None) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    if output not in (None, "-"):
        from costmodel.files import check_output

        check_output(str(output))


def emit(text: str, output: str | None) -> None:
    """Print `text`, or write it to the file."""
    if output in (None, "-"):
        click.echo(text, nl=False)
        return
    from costmodel.files import write_text

    write_text(str(output), text)


def table_text(parts: Iterable[RenderableType], output: str | None) -> str:
    """Render tables as wide as the terminal, or 100 columns where there is none."""
    from costmodel.report.text import WIDTH, render

    if output in (None, "-") and sys.stdout.isatty():
        return render(parts, width=shutil.get_terminal_size().columns, colour=True)
    return render(parts, width=WIDTH)
