"""``costmodel gpus``: list the known GPUs, or show one with the source of every number."""

from __future__ import annotations

import rich_click as click

from .catalog import print_catalog, wanted
from .complete import gpus
from .options import OUTPUT, format_option

__all__ = ["command"]


@click.command("gpus")
@click.argument("words", nargs=-1, metavar="[[show] NAME]", shell_complete=gpus)
@format_option("table", "json", "csv")
@OUTPUT
def command(words: tuple[str, ...], form: str, output: str | None) -> None:
    """List the known GPUs, or show one with the source of every number.

    With NAME, an alias or the path of a YAML file, every number with its unit and source.

    Example: costmodel gpus show rtx-a6000
    """
    name = wanted(words)
    from costmodel.report import catalog, catalog_tables

    print_catalog(
        form,
        output,
        record=lambda: catalog.gpu_record(name) if name else catalog.gpu_rows(),
        rows=lambda: catalog.gpu_numbers(name) if name else catalog.gpu_rows(),
        tables=lambda: catalog_tables.gpu(name) if name else catalog_tables.gpus(),
    )
