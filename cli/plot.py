"""``costmodel plot``: figures of the results of a sweep."""

from __future__ import annotations

import rich_click as click

__all__ = ["command"]


@click.command("plot")
@click.argument("results", metavar="RESULTS")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="An .html file; .png, .svg and .pdf need kaleido and chromium.",
)
@click.option(
    "--kind",
    metavar="KIND",
    help="ttft-tokens (default), stages, savings-retention, speedup-flops, memory-batch, pareto "
    "or scatter.",
)
@click.option("--x", metavar="COLUMN", help="Column of the x axis of a scatter.")
@click.option("--y", metavar="COLUMN", help="Column of the y axis of a scatter.")
@click.option("--colour", metavar="COLUMN", help="Column that colours a scatter.")
@click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Only rows that meet it: gpu=l40s, batch=1,8 or 'text_tokens>=64'; repeat for more.",
)
def command(
    results: str,
    output: str,
    kind: str | None,
    x: str | None,
    y: str | None,
    colour: str | None,
    where: tuple[str, ...],
) -> None:
    """Draw results of a sweep.

    RESULTS is a parquet or CSV file that `costmodel sweep` wrote.  Settings that a figure does
    not spread out are held at those of the first row, and long series are thinned; the line
    below the title says both.  `costmodel figure` draws the same for a model and a GPU without
    a sweep.

    Example: costmodel plot results.parquet --kind stages --where batch=1 -o stages.html
    """
    from costmodel.report.figures import check_figure_output, write_figure

    check_figure_output(output)
    from costmodel.report.chart_drawing import draw
    from costmodel.report.result_pictures import picture_of_results

    picture = picture_of_results(results, kind, x=x, y=y, colour=colour, where=where)
    write_figure(draw(picture), output)
    click.echo(f"wrote {output}")
