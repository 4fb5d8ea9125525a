"""``costmodel calibrate``: fit kernel times to measurements of one's own card."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import rich_click as click

from .complete import gpus
from .options import format_option
from .output import emit, table_text

__all__ = ["command"]


@click.command("calibrate")
@click.argument("timings", nargs=-1, required=True, metavar="TIMINGS...")
@click.option(
    "--gpu",
    metavar="GPU",
    required=True,
    shell_complete=gpus,
    help="Known GPU, alias or YAML file; its rows are fitted.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="The calibration, a .yaml file; estimate --calibration FILE uses it.",
)
@click.option("--name", metavar="NAME", help="Name of the calibration. Default: GPU.own.")
@click.option(
    "--source", metavar="TEXT", help="Fit only sources that begin so; for rows that name none."
)
@click.option(
    "--software", metavar="TEXT", help="Fit only software that begins so; for rows that name none."
)
@click.option("--dtype", metavar="TEXT", help="Fit only this format; for rows that name none.")
@click.option(
    "--kernel",
    metavar="NAME",
    help="Fit only attention kernels that begin so. Default: the one with the most rows.",
)
@click.option(
    "--base",
    metavar="NAME|FILE",
    help="Calibration that supplies the kinds without rows. Default: the datasheet does.",
)
@format_option("table", "json")
def command(
    timings: tuple[str, ...],
    gpu: str,
    output: str,
    name: str | None,
    source: str | None,
    software: str | None,
    dtype: str | None,
    kernel: str | None,
    base: str | None,
    form: str,
) -> None:
    """Fit kernel times to your own measurements.

    TIMINGS are files of any format that docs/timings.md lists.  Each kind of kernel is fitted
    on one stack, cross-validated and given error bands; of several stacks the one with the
    most rows is taken.

    Example: costmodel calibrate timings.csv --gpu a40 -o calibration.yaml
    """
    from costmodel.files import check_output

    target = check_output(output, (".yaml", ".yml"))
    from costmodel.calibration.user import calibrate
    from costmodel.calibration.writing import write_calibration
    from costmodel.report.calibrating import own_calibration_record, own_calibration_tables
    from costmodel.report.records import to_json

    with _progress() as told:
        result = calibrate(
            timings,
            gpu,
            name=name,
            source=source,
            software=software,
            dtype=dtype,
            kernel=kernel,
            base=base,
            progress=told,
        )
    write_calibration(result.calibration, Path(target))
    if form == "json":
        emit(to_json(own_calibration_record(result, output)), None)
    else:
        emit(table_text(own_calibration_tables(result, output), None), None)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show what is being fitted, where someone watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("fitting {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("...", total=None)
        yield lambda kind, index, total: shown.update(
            task, description=kind, completed=index, total=total
        )
