"""``costmodel figure``: one of the figures, computed for a model and a GPU."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .compare import split_methods
from .complete import gpus
from .options import question, question_options, split, text_tokens_option

__all__ = ["command"]


@click.command("figure")
@click.argument("name", metavar="NAME")
@click.argument("model", required=False)
@click.option(
    "--gpu",
    metavar="GPU",
    shell_complete=gpus,
    help="Known GPU, alias or YAML file.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="An .html file; .png, .svg and .pdf need kaleido and chromium.",
)
@click.option(
    "--methods",
    metavar="A,B,...",
    multiple=True,
    help="Methods to show instead of the figure's own choice.",
)
@click.option(
    "--measured",
    metavar="FILE",
    multiple=True,
    help="Timing files: whole models for prefill-tokens, kernels for calibration-residuals.",
)
@text_tokens_option(64)
@question_options()
def command(
    name: str,
    model: str | None,
    gpu: str | None,
    output: str,
    methods: tuple[str, ...],
    measured: tuple[str, ...],
    **options: Any,
) -> None:
    """Draw one of the figures for a model and a GPU.

    NAME is prefill-tokens, stages, savings-retention, speedup-flops, overhead-heatmap,
    insertion-heatmap, memory-batch, pareto or calibration-residuals; docs/figures.md shows what
    each is for.  The last needs timing files (--measured) and no MODEL.  `costmodel plot` draws
    results of sweeps, and `costmodel roofline` the roofline.

    Example: costmodel figure stages llava-1.5-7b --gpu a100-80gb-sxm -o stages.html
    """
    from costmodel.report.figures import check_figure_output, write_figure

    check_figure_output(output)
    from costmodel.report.chart_drawing import draw
    from costmodel.report.picture_kinds import case_for, picture_of_case

    case = case_for(name, model, gpu, question(options))
    picture = picture_of_case(
        name, case, methods=split_methods(methods), measured=split(measured), gpu=gpu
    )
    write_figure(draw(picture), output)
    click.echo(f"wrote {output}")
