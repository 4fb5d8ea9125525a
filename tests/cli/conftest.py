"""The command as it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def group() -> click.Group:
    (script,) = entry_points(group="console_scripts", name="costmodel")
    loaded = script.load()
    assert isinstance(loaded, click.Group)
    return loaded


@pytest.fixture(scope="session")
def run(group: click.Group) -> Run:
    """Run a command line, given as one text or as words."""

    def invoke(*words: str) -> Result:
        arguments = words[0].split() if len(words) == 1 else list(words)
        return CliRunner().invoke(group, arguments, prog_name="costmodel")

    return invoke


@pytest.fixture(scope="session")
def ok(run: Run) -> Callable[..., str]:
    """Run a command line that succeeds; return what it prints."""

    def invoke(*words: str) -> str:
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    return invoke


@pytest.fixture(scope="session")
def as_json(ok: Callable[..., str]) -> Callable[..., Any]:
    """Run a command line; return the JSON it prints, in which NaN and Infinity are errors."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    def invoke(*words: str) -> Any:
        return json.loads(ok(*words), parse_constant=refuse)

    return invoke
