"""``costmodel roofline``: every operator under the roofline of the device."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .complete import gpus
from .options import model_argument, question, question_options, text_tokens_option

__all__ = ["command"]


@click.command("roofline")
@model_argument
@click.option(
    "--gpu",
    metavar="GPU",
    required=True,
    shell_complete=gpus,
    help="Known GPU, alias or YAML file.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="An .html file; .png, .svg and .pdf need the package kaleido.",
)
@text_tokens_option(64)
@question_options()
def command(model: str, gpu: str, output: str, **options: Any) -> None:
    """Draw every operator under the device's roofline.

    One marker per operator of prefill and of one decode step: arithmetic intensity against
    achieved rate, its area the time it takes.  The file opens without a network.

    Example: costmodel roofline llava-1.5-7b --gpu a100-80gb-sxm -o roofline.html
    """
    from costmodel.report.figures import check_figure_output, write_figure

    check_figure_output(output)
    from costmodel.case import prepare
    from costmodel.estimation import estimate_case
    from costmodel.report.roofline import roofline_figure

    case = prepare(model, gpu, **question(options))
    write_figure(roofline_figure(case, estimate_case(case)), output)
    click.echo(f"wrote {output}")
