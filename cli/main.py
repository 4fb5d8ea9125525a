"""The command `costmodel`: the table of its commands, and where errors become one line."""

from __future__ import annotations

import rich_click as click

from .group import LazyGroup

__all__ = ["main"]

COMMANDS = {
    "models": "List the known models, or show one.",
    "gpus": "List the known GPUs, or show one with the source of every number.",
    "methods": "List the compression methods, or show one with its parameters.",
    "estimate": "FLOPs, bytes, time and memory of one request batch.",
    "compare": "Compare compression methods at the same number of kept tokens.",
    "plan": "Size a service: GPUs for a rate of requests and a target for the first token.",
    "breakeven": "Find the values of one parameter for which a method pays.",
    "sensitivity": "Say what TTFT, TPOT and the saving hang on: what if bandwidth doubles.",
    "search": "Find the points of a table of results that meet constraints, or that nothing beats.",
    "sweep": "Compute all points that a YAML file describes.",
    "train-cost": "Cost of training in stages: FLOPs, hours and energy.",
    "formulas": "Print the formula of every operator.",
    "roofline": "Draw every operator under the device's roofline.",
    "trace": "Write the predicted prefill as a timeline.",
    "plot": "Draw results of a sweep.",
    "figure": "Draw one of the figures for a model and a GPU.",
    "calibrate": "Fit kernel times to your own measurements.",
    "validate": "Compare predicted kernel times with measured ones.",
    "reproduce": "Compute published cost figures again.",
    "measure": "Time kernels on this machine.",
    "study": "Answer a question with tables and pictures.",
    "completion": "Print the completion script of a shell.",
}
"""Name of each command, which is also its module, and the first line of its help."""


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"costmodel {version('costmodel')}")
        context.exit()


@click.group(
    cls=LazyGroup,
    commands_table=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Operator-level cost of vision-language models on GPUs.

    Name a model, a GPU, a workload and a way to compress the visual tokens; get every
    operator's FLOPs, bytes and time, the KV cache, memory, TTFT and TPOT.

    Example: costmodel estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
