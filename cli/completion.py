"""``costmodel completion``: the script that teaches a shell to complete."""

from __future__ import annotations

import rich_click as click

from .output import emit

__all__ = ["command"]

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), metavar="bash|zsh|fish")
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Load it in the shell's start-up file: commands, options and the names of models,
    GPUs and methods are then completed with the tab key.

    Example: costmodel completion bash > ~/.costmodel-completion.bash
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        script = found(context.find_root().command, {}, "costmodel", "_COSTMODEL_COMPLETE")
        emit(script.source() + "\n", None)
