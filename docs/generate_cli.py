"""Write docs/cli.md from the commands themselves.

Run ``python docs/generate_cli.py`` after a change to a command; a test compares.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click

TARGET = Path(__file__).with_name("cli.md")
INTRODUCTION = """\
<!-- Written by docs/generate_cli.py; edit the commands' help instead. -->
# Command line

`costmodel` has one command for each question.  Every command prints its options and an example
with `--help`.  Names of models, GPUs and methods are those of `costmodel models`,
`costmodel gpus` and `costmodel methods`; a model may also be a Hugging Face `config.json` or the
folder that holds one, a GPU also an alias or a YAML file.  Nothing is downloaded.

- Options that take several values are repeated or separated by commas:
  `--image 336x336 --image 672x672` is `--image 336x336,672x672`.
- `--format json` and `--format csv` are in SI units (bytes, FLOP, seconds); JSON objects carry a
  `schema_version`.  Counts are whole numbers, and there is no NaN or Infinity.
- `-o FILE` writes the result to a file, which is replaced as a whole or not at all.
- What the caller got wrong is one line on stderr and exit code 2; a request that does not fit in
  the GPU's memory is an answer, with exit code 0.

Completion of commands, options and names by the shell:

| shell | once |
|---|---|
| bash | add `eval "$(costmodel completion bash)"` to `~/.bashrc` |
| zsh | add `eval "$(costmodel completion zsh)"` to `~/.zshrc`, after `compinit` |
| fish | `costmodel completion fish > ~/.config/fish/completions/costmodel.fish` |
"""


def reference() -> str:
    """Return the text of docs/cli.md."""
    (script,) = entry_points(group="console_scripts", name="costmodel")
    group: click.Group = script.load()
    context = click.Context(group, info_name="costmodel")
    parts = [INTRODUCTION, "## Commands\n", "| command | |", "|---|---|"]
    commands = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            commands[name] = command
            parts.append(f"| [`{name}`](#costmodel-{name}) | {command.get_short_help_str(100)} |")
    for name, command in commands.items():
        parts += ["", *_section(command, click.Context(command, context, info_name=name))]
    return "\n".join(parts) + "\n"


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## costmodel {context.info_name}"
    yield ""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"Usage: `costmodel {context.info_name} {usage}`"
    yield ""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        if text.startswith("Example: "):
            yield from ("```sh", text.removeprefix("Example: "), "```", "")
        else:
            yield from (textwrap.fill(text, 100), "")
    yield from ("| option | default | |", "|---|---|---|")
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and parameter.name != "help":
            yield _row(parameter, context)


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    value = "" if option.is_flag else f" `{option.make_metavar(context)}`"
    default = option.get_default(context)
    if option.required:
        shown = "required"
    elif option.is_flag or not isinstance(default, (str, int)):
        shown = ""
    else:
        shown = f"`{default}`"
    return f"| {names}{_cell(value)} | {shown} | {_cell(option.help or '')} |"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def main() -> None:
    """Write the file."""
    TARGET.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
