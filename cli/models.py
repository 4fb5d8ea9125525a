"""``costmodel models``: list the known models, or show one."""

from __future__ import annotations

import rich_click as click

from .catalog import print_catalog, wanted
from .complete import models
from .options import OUTPUT, format_option

__all__ = ["command"]


@click.command("models")
@click.argument("words", nargs=-1, metavar="[[show] NAME]", shell_complete=models)
@format_option("table", "json", "csv")
@OUTPUT
def command(words: tuple[str, ...], form: str, output: str | None) -> None:
    """List the known models, or show one.

    With NAME, or the path of a config.json, the whole specification and its sources.

    Example: costmodel models show llava-1.5-7b
    """
    name = wanted(words)
    from costmodel.report import catalog, catalog_tables

    print_catalog(
        form,
        output,
        record=lambda: catalog.model_record(name) if name else catalog.model_rows(),
        rows=lambda: catalog.model_pairs(name) if name else catalog.model_rows(),
        tables=lambda: catalog_tables.model(name) if name else catalog_tables.models(),
    )
