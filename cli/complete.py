"""What the shell may complete: names of models, GPUs, methods and fixed choices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import rich_click as click

__all__ = [
    "conventions",
    "gpus",
    "methods",
    "models",
    "papers",
    "recipes",
    "studies",
    "time_models",
    "words",
]

Callback = Callable[[click.Context, click.Parameter, str], list[str]]


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    # Only the last of several names with commas between them is still being typed.
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def words(*choices: str) -> Callback:
    """Return a callback that completes one of `choices`."""
    return lambda context, parameter, incomplete: _starting(incomplete, choices)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a model."""
    from costmodel.catalog.models_io import list_models

    return _starting(incomplete, list_models())


def gpus(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a GPU."""
    from costmodel.catalog.hardware import list_gpus

    return _starting(incomplete, list_gpus())


def methods(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a compression method."""
    from costmodel.compression.method import list_methods

    return _starting(incomplete, list_methods())


def conventions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a counting convention."""
    from costmodel.conventions import list_conventions

    return _starting(incomplete, list_conventions())


def papers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a paper."""
    from costmodel.reproduction import list_papers

    return _starting(incomplete, (*list_papers(), "all"))


def recipes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a training recipe."""
    from costmodel.training import list_recipes

    return _starting(incomplete, list_recipes())


def studies(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a study."""
    from costmodel.studies.study import list_studies

    return _starting(incomplete, (*list_studies(), "list", "all"))


def time_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a time model."""
    from costmodel.timing.model import list_time_models

    return _starting(incomplete, list_time_models())
