"""``costmodel validate``: measured timings against predicted ones."""

from __future__ import annotations

import rich_click as click

from .complete import gpus
from .options import OUTPUT, format_option
from .output import check, emit, table_text

__all__ = ["command"]


@click.command("validate")
@click.argument("timings", nargs=-1, required=True, metavar="TIMINGS...")
@click.option(
    "--gpu",
    metavar="GPU",
    shell_complete=gpus,
    help="GPU of rows whose file does not name one; only its rows are judged.",
)
@click.option(
    "--calibration",
    metavar="NAME|FILE",
    help="Calibration for all rows. Default: the GPU's calibration of the same source and "
    "software, else its default.",
)
@click.option(
    "--min-time-us",
    type=float,
    metavar="US",
    default=10.0,
    show_default=True,
    help="Shorter measurements are not judged.",
)
@click.option("--plot", metavar="FILE", help="Also draw predicted against measured times, as HTML.")
@format_option("table", "json", "csv")
@OUTPUT
def command(
    timings: tuple[str, ...],
    gpu: str | None,
    calibration: str | None,
    min_time_us: float,
    plot: str | None,
    form: str,
    output: str | None,
) -> None:
    """Compare predicted kernel times with measured ones.

    TIMINGS are files of any format that docs/timings.md lists.  Errors are given by GPU, kind
    of kernel, source, software and number format, beside those of the datasheet roofline.

    Example: costmodel validate gemm.parquet --format json
    """
    check(output)
    if plot is not None:
        from costmodel.report.figures import check_figure_output

        check_figure_output(plot)
    from costmodel.calibration.judging import validate_timings
    from costmodel.report import validation
    from costmodel.report.records import to_csv, to_json

    result = validate_timings(timings, gpu=gpu, calibration=calibration, min_time_us=min_time_us)
    if plot is not None:
        from costmodel.report.figures import write_figure
        from costmodel.report.validation_figure import validation_figure

        write_figure(validation_figure(result), plot)
    if form == "json":
        emit(to_json(validation.validation_record(result)), output)
    elif form == "csv":
        emit(to_csv(validation.validation_rows(result)), output)
    else:
        emit(table_text(validation.validation_tables(result), output), output)
