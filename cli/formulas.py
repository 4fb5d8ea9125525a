"""``costmodel formulas``: the formula of every operator."""

from __future__ import annotations

from typing import Any, Literal

import rich_click as click

from .complete import words
from .options import OUTPUT, format_option, model_argument, question, question_options
from .options import text_tokens_option as text_tokens
from .output import check, emit, table_text

__all__ = ["command"]

# A case names a device, but no formula depends on it.
ANY_GPU = "a100-80gb-sxm"
STAGES = ("vision_encoder", "projector", "compression", "llm", "lm_head")


@click.command("formulas")
@model_argument
@click.option(
    "--stage",
    metavar="STAGE",
    shell_complete=words(*STAGES),
    help="One stage only: vision_encoder, projector, compression, llm or lm_head.",
)
@click.option(
    "--phase",
    type=click.Choice(["prefill", "decode"]),
    default="prefill",
    show_default=True,
    help="The pass.",
)
@click.option("--latex", "as_latex", is_flag=True, help="Write LaTeX.")
@text_tokens(64)
@question_options()
@format_option("text", "json")
@OUTPUT
def command(
    model: str,
    stage: str | None,
    phase: Literal["prefill", "decode"],
    as_latex: bool,
    form: str,
    output: str | None,
    **options: Any,
) -> None:
    """Print the formula of every operator.

    FLOPs and bytes by kind, totals of each stage, then every symbol with its meaning, unit
    and value for this model, and the relations between them.

    Example: costmodel formulas llava-1.5-7b --stage llm --latex
    """
    check(output)
    from costmodel.case import prepare
    from costmodel.report import formulas, formulas_text
    from costmodel.report.records import to_json

    case = prepare(model, ANY_GPU, **question(options))
    found = formulas.formulas(case, phase, stage)
    if form == "json":
        emit(to_json(formulas.formulas_record(found, as_latex=as_latex)), output)
    elif as_latex:
        emit(formulas_text.formulas_latex(found), output)
    else:
        emit(table_text(formulas_text.formulas_tables(found), output), output)
