"""``costmodel methods``: list the compression methods, or show one with its parameters."""

from __future__ import annotations

import rich_click as click

from .catalog import print_catalog, wanted
from .complete import methods
from .options import OUTPUT, format_option

__all__ = ["command"]


@click.command("methods")
@click.argument("words", nargs=-1, metavar="[[show] NAME]", shell_complete=methods)
@format_option("table", "json", "csv")
@OUTPUT
def command(words: tuple[str, ...], form: str, output: str | None) -> None:
    """List the compression methods, or show one with its parameters.

    With NAME, its parameters with defaults, where it acts, training and reference.

    Example: costmodel methods show cluster
    """
    name = wanted(words)
    from costmodel.report import catalog, catalog_tables

    print_catalog(
        form,
        output,
        record=lambda: catalog.method_record(name) if name else catalog.method_rows(),
        rows=lambda: catalog.method_record(name)["parameters"] if name else catalog.method_rows(),
        tables=lambda: catalog_tables.method(name) if name else catalog_tables.methods(),
    )
