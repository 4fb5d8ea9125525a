"""``costmodel reproduce``: published cost figures beside ours."""

from __future__ import annotations

import rich_click as click

from .complete import papers
from .options import OUTPUT, format_option
from .output import check, emit, table_text

__all__ = ["command"]


@click.command("reproduce")
@click.argument("paper", default="all", metavar="[PAPER|all]", shell_complete=papers)
@format_option("table", "json", "csv", "html")
@OUTPUT
def command(paper: str, form: str, output: str | None) -> None:
    """Compute published cost figures again.

    Each figure of PAPER stands beside ours with a verdict: reproduced (it rounds to the printed
    figure or is within 1 %), differs and why, measured on hardware with our prediction and its
    90 % band, or not a cost quantity.  A file that ends in .html gets a page.

    Example: costmodel reproduce m3
    """
    check(output)
    from costmodel.report.records import to_csv, to_json
    from costmodel.report.reproduction import (
        reproduction_record,
        reproduction_rows,
        reproduction_tables,
    )
    from costmodel.reproduction import reproduce

    rows = reproduce(paper)
    if form == "html" or (form == "table" and str(output).lower().endswith((".html", ".htm"))):
        from costmodel.report.reproduction_page import reproduction_page

        emit(reproduction_page(rows), output)
    elif form == "json":
        emit(to_json(reproduction_record(rows)), output)
    elif form == "csv":
        emit(to_csv(reproduction_rows(rows)), output)
    else:
        emit(table_text(reproduction_tables(rows), output), output)
