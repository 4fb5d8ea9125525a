"""The group of commands: each is imported when it is used, and every error is one line."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from costmodel.errors import CostModelError, did_you_mean

__all__ = ["LazyGroup"]

_LISTING = "costmodel.listing"
_INTERRUPTED = 130
_GC_THRESHOLD = (100_000, 50, 50)


class LazyGroup(click.RichGroup):
    """A group whose commands are modules of this package.

    Parameters
    ----------
    commands_table : mapping of str to str
        Module and name of each command, and the first line of its help, so that
        the list of commands is printed without importing one of them.
    """

    def __init__(self, *args: Any, commands_table: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_table = dict(commands_table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.commands_table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; only its name and help where commands are listed."""
        if cmd_name not in self.commands_table:
            return None
        if ctx.meta.get(_LISTING):
            return click.RichCommand(name=cmd_name, help=self.commands_table[cmd_name])
        module = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        return command

    def get_help(self, ctx: click.Context) -> str:
        """Return the help, without importing a command."""
        ctx.meta[_LISTING] = True
        return super().get_help(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which was meant."""
        name = args[0]
        if name in self.commands_table or ctx.resilient_parsing or name.startswith("-"):
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        close = did_you_mean(name, known)
        guess = f" Did you mean {close}?" if close else ""
        raise click.UsageError(f"unknown command {name!r}.{guess} Known: {', '.join(known)}.", ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; what the caller got wrong is one line on stderr and exit code 2."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        # Imports make many objects and little garbage: fewer collections save a tenth of a second.
        gc.set_threshold(*_GC_THRESHOLD)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except click.Abort:
            self._fail("interrupted", _INTERRUPTED)
        except (CostModelError, click.ClickException) as error:
            self._fail(_line(error), 2)
        except OSError as error:
            _silence_stdout()
            if error.errno == errno.EPIPE:
                sys.exit(1)
            where = f": {error.filename}" if error.filename else ""
            self._fail(f"{error.strerror or error}{where}", 1)
        sys.exit(code if isinstance(code, int) else 0)

    @staticmethod
    def _fail(message: str, code: int) -> None:
        click.echo(f"Error: {message}", err=True)
        sys.exit(code)


def _line(error: Exception) -> str:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, click.NoSuchOption):
        close = error.possibilities
        guess = f" Did you mean {close[0]}?" if close else ""
        text = f"unknown option {error.option_name!r}.{guess}"
    line = " ".join(text.split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        end = "" if line.endswith(("?", ".")) else "."
        line = f"{line}{end} Try '{error.ctx.command_path} --help'."
    return line


def _silence_stdout() -> None:
    # Python flushes stdout once more at exit, which would print a second error.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
