"""What ``models``, ``gpus`` and ``methods`` share: list all, or show one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from .output import check, emit, table_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["print_catalog", "wanted"]


def wanted(words: tuple[str, ...]) -> str | None:
    """Return the name in ``[show] [NAME]``; None for the list."""
    names = words[1:] if words[:1] == ("show",) else words
    if words == ("show",):
        raise click.UsageError("show: missing NAME", click.get_current_context())
    if len(names) > 1:
        raise click.UsageError(
            f"one NAME expected, got {' '.join(names)}", click.get_current_context()
        )
    return names[0] if names else None


def print_catalog(
    form: str,
    output: str | None,
    *,
    record: Callable[[], Any],
    rows: Callable[[], list[dict[str, Any]]],
    tables: Callable[[], list[RenderableType]],
) -> None:
    """Print one thing or a list of them in the form asked for; only that form is made."""
    check(output)
    from costmodel.report.records import to_csv, to_json

    if form == "json":
        emit(to_json(record()), output)
    elif form == "csv":
        emit(to_csv(rows()), output)
    else:
        emit(table_text(tables(), output), output)
