"""Documents say what is true: links resolve, commands parse, decisions are complete."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(
    r"^(?P<mark>`{3,}|~{3,})[^\n]*\n(?P<body>.*?)^(?P=mark)\s*$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^()\s]+(?:\([^()\s]*\))?)(?:\s+\"[^\"]*\")?\)")
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(
        part.startswith((".venv", ".git", ".pytest")) for part in path.relative_to(ROOT).parts
    )
)
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _commands(text: str) -> Iterator[str]:
    """Command lines of `text`: fenced, starting with `costmodel`, continued lines joined."""
    for block in FENCE.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if command.startswith("costmodel "):
                yield re.sub(r"\s+", " ", command)


def _arguments(command: str) -> list[str]:
    """Arguments of `command` up to a pipe, a redirection or a comment."""
    arguments = shlex.split(command, comments=True)[1:]
    stops = [i for i, word in enumerate(arguments) if word in {"|", ">", ">>", "2>", "&&", ";"}]
    return arguments[: stops[0]] if stops else arguments


def _anchors(text: str) -> set[str]:
    """Anchors of the headings of `text`, as GitHub makes them."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_relative_links_resolve(document: Path) -> None:
    broken = []
    for match in LINK.finditer(FENCE.sub("", document.read_text(encoding="utf-8"))):
        path, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", path):
            continue
        target = ((document.parent / path) if path else document).resolve()
        if not (target.is_relative_to(ROOT) and target.exists()) or (
            anchor
            and target.suffix == ".md"
            and anchor not in _anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(match["target"])
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_commands_parse(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line is parsed by the real command; nothing is run."""
    commands = list(_commands(document.read_text(encoding="utf-8")))
    if document == ROOT / "README.md":
        assert any(c.startswith("costmodel estimate ") for c in commands)
    if not commands:
        return
    (script,) = entry_points(group="console_scripts", name="costmodel")
    group = script.load()
    assert isinstance(group, click.Group)
    # Groups still find and parse their subcommand; only the functions behind are left out.
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: None)
    monkeypatch.chdir(ROOT)
    for command in commands:
        result = CliRunner().invoke(group, _arguments(command))
        assert result.exit_code == 0, f"{command}\n{result.output}"


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("costmodel not-fenced\n", []),
        ("```\n$ costmodel a \\\n   --b 1\nother\n```\n", ["costmodel a --b 1"]),
        ("~~~sh\ncostmodel a\n~~~\n\n```\ncostmodel c\n```\n", ["costmodel a", "costmodel c"]),
    ],
)
def test_commands_are_found(text: str, commands: list[str]) -> None:
    assert list(_commands(text)) == commands


def test_arguments_end_at_pipe_and_comment() -> None:
    assert _arguments("costmodel a --b 'c d' | head") == ["a", "--b", "c d"]
    assert _arguments("costmodel a --b cluster:k=64  # why") == ["a", "--b", "cluster:k=64"]


@pytest.mark.parametrize("decision", DECISIONS, ids=_name)
def test_decisions_are_complete(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    number = decision.name[:4]
    assert text.startswith(f"# {number} ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    missing = {"Context", "Decision", "Consequences"} - set(headings)
    assert not missing, f"{decision.name} lacks {sorted(missing)}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


def test_changelog_has_this_version_or_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert {"Unreleased", project["version"]} & set(headings)


def _shown_outputs() -> list[tuple[str, str]]:
    """Commands with their output in the README: a fence whose first line is ``$ costmodel``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    bodies = [block["body"] for block in FENCE.finditer(text)]
    shown = [body.split("\n", 1) for body in bodies if body.startswith("$ costmodel ")]
    return [(command, output) for command, output in shown]


@pytest.mark.parametrize(("command", "output"), _shown_outputs())
def test_readme_shows_real_output(command: str, output: str) -> None:
    (script,) = entry_points(group="console_scripts", name="costmodel")
    start = f"from {script.module} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *_arguments(command.removeprefix("$ "))],
        capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip
    assert [line.rstrip() for line in done.stdout.splitlines()] == output.rstrip().splitlines()


def test_readme_shows_an_output() -> None:
    assert _shown_outputs()
