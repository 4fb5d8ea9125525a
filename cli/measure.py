"""``costmodel measure``: time kernels on this machine."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import rich_click as click

from costmodel.errors import CostModelError, InputError
from costmodel.reference.harness.registry import suite_names

from .complete import words
from .options import split

__all__ = ["command"]


@click.command("measure")
@click.option(
    "-o",
    "--output",
    metavar="FOLDER|FILE",
    help="Folder for one parquet file of each kind, or the name of a .parquet file; of several "
    "kinds each then has its kind in the name. What is there already is not measured again.",
)
@click.option(
    "--device", metavar="DEVICE", default="cpu", show_default=True, help="cpu, cuda or cuda:NUMBER."
)
@click.option(
    "--suite",
    "suites",
    metavar="SUITE",
    multiple=True,
    shell_complete=words(*suite_names()),
    help=f"Repeat or separate by commas: {', '.join(suite_names())}. Default: all.",
)
@click.option(
    "--model",
    "models",
    metavar="MODEL",
    multiple=True,
    help="Model whose shapes are timed; repeat for several.",
)
@click.option(
    "--tokens", metavar="N", multiple=True, help="Token counts; repeat or separate by commas."
)
@click.option(
    "--dtype",
    "dtypes",
    metavar="DTYPE",
    multiple=True,
    help="fp32, fp16 or bf16; repeat for several. Default: fp32 on a CPU, fp16 on a GPU.",
)
@click.option(
    "--where",
    metavar="COLUMN=PATTERN",
    multiple=True,
    help="Only such cases, as runtime=eager or compress=random*; several patterns of a column "
    "add up, several columns have to fit all.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Say in seconds what this machine can measure, and stop; exit code 1 if something fails.",
)
@click.option("--quick", is_flag=True, help="Small sizes and few samples, to try things out.")
@click.option(
    "--repeat",
    type=int,
    metavar="N",
    help="Samples of each case, at least 3. Default: 30, quick 7.",
)
@click.option("--threads", type=int, metavar="N", help="Threads of torch on a CPU.")
@click.option(
    "--budget",
    type=float,
    metavar="SECONDS",
    default=math.inf,
    help="Start no case after so long. Whatever was measured until then covers the whole range.",
)
@click.option(
    "--source",
    metavar="TEXT",
    default="costmodel measure",
    show_default=True,
    help="Who measures, for the column of that name.",
)
@click.option(
    "--seed", type=int, metavar="N", default=0, show_default=True, help="Of random inputs."
)
@click.pass_context
def command(
    context: click.Context,
    output: str | None,
    device: str,
    suites: tuple[str, ...],
    models: tuple[str, ...],
    tokens: tuple[str, ...],
    dtypes: tuple[str, ...],
    where: tuple[str, ...],
    check: bool,
    quick: bool,
    repeat: int | None,
    threads: int | None,
    budget: float,
    source: str,
    seed: int,
) -> None:
    """Time kernels on this machine.

    Needs torch: pip install 'costmodel[measure]'.  Every row has its median and spread, in the
    tidy schema that docs/timings.md describes; calibrate and validate read the files.  A run that
    was interrupted goes on when started again.  On a CPU the measured ceilings become a
    profile, cpu.yaml, for --gpu.

    Example: costmodel measure --device cuda --suite gemm --suite attention -o timings
    """
    from costmodel.reference.harness.checks import check as can_measure
    from costmodel.reference.harness.errors import MeasureError
    from costmodel.reference.harness.measuring import measure
    from costmodel.reference.harness.request import Request

    if output is None and not check:
        raise click.UsageError("--output is needed, or --check", context)
    request = Request(
        output=Path(output or "."),
        device=device,
        suites=tuple(split(suites)),
        dtypes=tuple(split(dtypes)),
        models=tuple(split(models)),
        tokens=tuple(map(_whole, split(tokens))),
        where=where,
        quick=quick,
        repeat=repeat,
        threads=threads,
        budget_s=budget,
        source=source,
        seed=seed,
    )
    try:
        if check:
            context.exit(can_measure(request, sys.stdout))
        done = measure(request, sys.stderr)
    except MeasureError as error:
        raise CostModelError(str(error)) from None
    click.echo("\n".join(done.lines()))
    context.exit(done.exit_code)


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise InputError("tokens", text, "a whole number from 1")
    return int(text)
