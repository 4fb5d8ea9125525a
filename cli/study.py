"""``costmodel study``: questions answered with tables and pictures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import rich_click as click

from .complete import gpus as known_gpus
from .complete import models, studies
from .options import format_option, split
from .output import check, emit, table_text

__all__ = ["command"]

_PAGES = (".html", ".htm")


@click.command("study")
@click.argument("name", metavar="NAME|list|all", shell_complete=studies)
@click.option(
    "--gpu",
    "gpus",
    metavar="GPU",
    multiple=True,
    shell_complete=known_gpus,
    help="GPU instead of the study's own; repeat or separate by commas for several.",
)
@click.option(
    "--model", metavar="MODEL", shell_complete=models, help="Model instead of the study's own."
)
@click.option(
    "--runtime", metavar="eager|compiled|cuda-graph", help="Runtime instead of the study's own."
)
@format_option("table", "json", "csv")
@click.option(
    "--table",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Which table --format csv writes.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    help="File that ends in .html, .json or .csv; with all, a folder for index.html and the "
    "tables.",
)
@click.pass_context
def command(
    context: click.Context,
    name: str,
    gpus: tuple[str, ...],
    model: str | None,
    runtime: str | None,
    form: str,
    number: int,
    output: str | None,
) -> None:  # fmt: skip
    """Answer a question with tables and pictures.

    NAME is a study, list prints all of them, and all runs every one: its folder then has one page
    that opens without a network, and the tables as CSV.  A study that fails is named on the page,
    the others go on, and the exit code is 1.

    Example: costmodel study clustering-overhead -o clustering.html
    """
    options: dict[str, Any] = {"model": model, "gpus": tuple(split(gpus)), "runtime": runtime}
    if name == "list":
        _list(form, output)
    elif name == "all":
        context.exit(_all(options, output))
    else:
        _one(name, options, form, number, output)


def _list(form: str, output: str | None) -> None:
    check(output)
    from costmodel.report.records import to_csv, to_json
    from costmodel.report.study_text import study_listing
    from costmodel.report.text import facts

    rows = study_listing()
    if form == "json":
        emit(to_json(rows), output)
    elif form == "csv":
        emit(to_csv(rows), output)
    else:
        emit(table_text([facts((row["name"], row["question"]) for row in rows)], output), output)


def _one(name: str, options: dict[str, Any], form: str, number: int, output: str | None) -> None:
    check(output)
    from costmodel.report.records import to_json
    from costmodel.report.study_text import nth_table, study_csv, study_record, study_tables
    from costmodel.studies.running import run_study

    ending = str(output or "").lower()
    outcome = run_study(name, options)
    if ending.endswith(_PAGES):
        from costmodel.report.study_page import study_page

        emit(study_page([outcome], outcome.study.title), output)
    elif form == "json" or ending.endswith(".json"):
        emit(to_json(study_record(outcome)), output)
    elif form == "csv" or ending.endswith(".csv"):
        emit(study_csv(nth_table(outcome, number)), output)
    else:
        emit(table_text(study_tables(outcome), output), output)


def _all(options: dict[str, Any], output: str | None) -> int:
    from costmodel.report.study_report import check_folder, write_report
    from costmodel.studies.running import run_studies
    from costmodel.studies.study import list_studies

    folder = check_folder(output)
    with _progress() as told:
        outcomes = run_studies(list_studies(), options, told)
    page = write_report(outcomes, folder)
    failed = [outcome for outcome in outcomes if outcome.finding is None]
    for outcome in failed:
        click.echo(f"{outcome.name} failed: {outcome.problem}", err=True)
    click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} studies: {page}")
    return 1 if failed else 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show which study runs, where somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)

        def told(name: str, index: int, count: int) -> None:
            shown.update(task, description=name, completed=index, total=count)

        yield told
