"""``costmodel sweep``: a table of all points that a YAML file describes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import rich_click as click

from .options import WHOLE, format_option
from .output import emit, table_text

if TYPE_CHECKING:
    from costmodel.sweep.running import Prepared

__all__ = ["command"]


@click.command("sweep")
@click.argument("spec", metavar="SPEC.yaml")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The result, a .parquet or .csv file.",
)
@click.option(
    "--workers",
    type=WHOLE,
    metavar="N",
    default=1,
    show_default=True,
    help="Processes of this machine that compute.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="dask.distributed scheduler whose workers compute, for example tcp://10.0.0.1:8786.",
)
@click.option(
    "--resume", is_flag=True, help="Go on where an unfinished run of the same sweep stopped."
)
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@click.option("--yes", is_flag=True, help="Compute however many points there are.")
@format_option("table", "json")
def command(
    spec: str,
    output: str | None,
    workers: int | str,
    scheduler: str | None,
    resume: bool,
    dry_run: bool,
    yes: bool,
    form: str,
) -> None:
    """Compute all points that a YAML file describes.

    SPEC.yaml names models, GPUs, methods, retention, batch sizes, prompt lengths and more, each
    as a value, a list or a range; docs/sweeps.md has an example.  The result has a row per
    point and units in the names of its columns.

    Example: costmodel sweep spec.yaml -o out.parquet --workers 2
    """
    from costmodel.errors import InputError
    from costmodel.files import check_output
    from costmodel.report.records import to_json
    from costmodel.report.sweeping import plan_record, plan_tables, summary_tables
    from costmodel.specs.workload import check_count
    from costmodel.sweep.running import LIMIT, SUFFIXES, prepare_sweep, run_sweep

    count = check_count("workers", workers, low=1, high=1024)
    if output is not None:
        check_output(output, SUFFIXES)
    elif not dry_run:
        raise click.UsageError("missing option '-o' / '--output'")
    prepared = prepare_sweep(spec)
    if dry_run:
        shown = to_json(plan_record(prepared)) if form == "json" else None
        emit(shown or table_text(plan_tables(prepared), None), None)
        return
    points = prepared.plan.points
    if points > LIMIT and not yes:
        question = f"{points:,} points, {prepared.estimated_bytes / 1e9:.1f} GB before compression"
        if not sys.stdin.isatty():
            raise InputError("points", points, f"at most {LIMIT:,} without --yes: {question}")
        click.confirm(f"{question}. Compute them?", abort=True, err=True)
    with _progress(prepared) as told:
        summary = run_sweep(
            prepared, str(output), workers=count, scheduler=scheduler, resume=resume, limit=None,
            progress=told,
        )  # fmt: skip
    if form == "json":
        emit(to_json(summary.record), None)
    else:
        emit(table_text(summary_tables(summary), None), None)


@contextlib.contextmanager
def _progress(prepared: Prepared) -> Iterator[Callable[[int, int], None] | None]:
    """Show points and the time left, where someone watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.completed:,} of {task.total:,} points"), BarColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=prepared.plan.points)
        yield lambda done, _total: shown.update(task, completed=done)
