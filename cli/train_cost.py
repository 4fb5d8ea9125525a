"""``costmodel train-cost``: what it costs to train a model in stages."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .complete import methods, recipes, time_models
from .options import OUTPUT, WHOLE, format_option, gpu_option, model_argument, split
from .output import check, emit, table_text

__all__ = ["command"]


@click.command("train-cost")
@model_argument
@gpu_option
@click.option(
    "--recipe", metavar="NAME", default="llava-1.5", show_default=True, shell_complete=recipes,
    help="Stages and data: llava-1.5, llava-next, stf (as its scripts), stf-paper or visionzip.",
)  # fmt: skip
@click.option(
    "--gpus", "devices", type=WHOLE, metavar="N", default=8, show_default=True,
    help="GPUs that share each step.",
)  # fmt: skip
@click.option(
    "--compress", metavar="METHOD[:KEY=VALUE,...]", multiple=True, shell_complete=methods,
    help="Compression of the visual tokens in training; repeat for methods that act one after "
    "the other.",
)  # fmt: skip
@click.option(
    "--visual-tokens", type=WHOLE, metavar="N",
    help="Visual tokens of a sample instead of those of the model's usual image.",
)  # fmt: skip
@click.option(
    "--no-checkpointing", "plain", is_flag=True,
    help="Keep all activations, where the recipe computes them again in the backward pass.",
)  # fmt: skip
@click.option(
    "--dtype", metavar="fp16|bf16", default="bf16", show_default=True,
    help="Format of weights and activations in the passes.",
)  # fmt: skip
@click.option(
    "--time-model", metavar="NAME", shell_complete=time_models,
    help="Where seconds come from: ideal or calibrated. "
    "Default: calibrated where the GPU has a calibration.",
)  # fmt: skip
@format_option("table", "json", "csv")
@OUTPUT
def command(
    model: str,
    gpus: tuple[str, ...],
    devices: int,
    plain: bool,
    form: str,
    output: str | None,
    **options: Any,
) -> None:
    """Cost of training in stages: FLOPs, hours and energy.

    FLOPs and time are those of a forward pass at the micro batch, times the passes over the
    frozen and trained parts of each stage, with the optimizer and communication.  The band is of
    labs and software, and of the text tokens, which no recipe publishes.

    Example: costmodel train-cost llava-1.5-7b --gpu a100-80gb-sxm --recipe llava-1.5
    """
    check(output)
    from costmodel.report import training
    from costmodel.report.records import to_csv, to_json
    from costmodel.training import train_cost

    found = [
        train_cost(model, gpu, gpus=devices, checkpointing=not plain, **options)
        for gpu in split(gpus)
    ]
    if form == "json":
        records = [training.training_record(one) for one in found]
        emit(to_json(records if len(records) > 1 else records[0]), output)
    elif form == "csv":
        emit(to_csv(row for one in found for row in training.training_rows(one)), output)
    else:
        blocks = [part for one in found for part in [*training.training_tables(one), ""]]
        emit(table_text(blocks[:-1], output), output)
