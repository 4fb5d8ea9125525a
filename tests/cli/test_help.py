"""Help, version, completion, start-up and the generated reference."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

COMMAND = str(Path(sys.executable).with_name("costmodel"))
NAMES = (
    "models", "gpus", "methods", "estimate", "compare", "formulas", "roofline", "completion",
)  # fmt: skip

Text = Callable[..., str]


def _command(group: click.Group, name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


def test_these_are_the_first_commands(group: click.Group) -> None:
    assert set(NAMES) <= set(group.list_commands(click.Context(group)))


def test_no_command_is_help(ok: Text) -> None:
    assert ok("") == ok("--help")


def test_help_lists_every_command_with_its_first_line(group: click.Group, ok: Text) -> None:
    context = click.Context(group)
    text = " ".join(ok("--help").replace("│", " ").split())
    for name in group.list_commands(context):
        first = inspect.cleandoc(_command(group, name).help or "").splitlines()[0]
        assert f"{name} {first}" in text


def test_every_command_has_help_with_an_example_that_parses(
    group: click.Group, ok: Text, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in group.list_commands(click.Context(group)):
        assert "Usage:" in ok(f"{name} --help")
        assert "Usage:" in ok(f"{name} -h")
        found = re.search(r"Example: (.*)", " ".join((_command(group, name).help or "").split()))
        assert found is not None, f"{name} has no example"
        words = shlex.split(found[1].partition(" > ")[0])
        assert words[:2] == ["costmodel", name]
        with monkeypatch.context() as patch:
            patch.setattr(click.Command, "invoke", lambda self, ctx: None)
            patch.chdir(tmp_path)
            assert CliRunner().invoke(group, words[1:]).exit_code == 0


def test_every_option_has_help(group: click.Group) -> None:
    for name in group.list_commands(click.Context(group)):
        options = [p for p in _command(group, name).params if isinstance(p, click.Option)]
        assert [option.name for option in options if not option.help] == []


def test_reference_is_up_to_date(repo_root: Path) -> None:
    path = repo_root / "docs" / "generate_cli.py"
    spec = importlib.util.spec_from_file_location("generate_cli", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (repo_root / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == module.reference(), "run: python docs/generate_cli.py"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(ok: Text, shell: str) -> None:
    assert "_COSTMODEL_COMPLETE" in ok(f"completion {shell}")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("est", {"estimate"}),
        ("estimate llava-1", {"llava-1.5-7b", "llava-1.5-13b"}),
        ("estimate llava-1.5-7b --gpu a40,h100", {"a40,h100-sxm", "a40,h100-pcie"}),
        ("estimate llava-1.5-7b --compress clu", {"cluster"}),
        ("estimate llava-1.5-7b --runtime e", {"eager"}),
        ("estimate llava-1.5-7b --time-model id", {"ideal"}),
        ("compare llava-1.5-7b --methods random,spat", {"random,spatial"}),
        ("gpus rtx-a", {"rtx-a6000"}),
        ("methods show mbtf+", {"mbtf+stf"}),
        ("models show vila", {"vila-1.5-3b"}),
        ("estimate --text-t", {"--text-tokens"}),
    ],
)
def test_completion(group: click.Group, typed: str, offered: set[str]) -> None:
    environment = {
        "_COSTMODEL_COMPLETE": "bash_complete",
        "COMP_WORDS": f"costmodel {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    result = CliRunner().invoke(group, [], prog_name="costmodel", env=environment)
    assert {line.partition(",")[2] for line in result.stdout.splitlines()} == offered


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_imports_no_library_that_is_slow() -> None:
    done = _python(
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "(script,) = entry_points(group='console_scripts', name='costmodel')\n"
        "try:\n    script.load()(['--help'], prog_name='costmodel')\n"
        "except SystemExit:\n    pass\n"
        "slow = {'numpy', 'sympy', 'pandas', 'pydantic', 'plotly', 'yaml'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(slow)) or 0)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "estimate" in done.stdout


def _run(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **options}
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_installed_command_version() -> None:
    done = _run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"costmodel \d+\.\d+\.\d+\S*\n", done.stdout)


def test_installed_command_estimates() -> None:
    done = _run("estimate", "llava-1.5-7b", "--gpu", "A100-SXM4-80GB", "--text-tokens", "64")
    assert (done.returncode, done.stderr) == (0, "")
    assert "TTFT" in done.stdout
    assert "\x1b" not in done.stdout


def test_installed_command_refuses_in_one_line() -> None:
    done = _run("estimate", "llava-1.5-7b", "--gpu", "a40", "--text-tokens", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: text-tokens: '' is not valid; expected a whole number from 1 to 100,000,000\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes of a POSIX shell")
def test_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        f"'{COMMAND}' gpus --format json | true",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""


def test_any_encoding_of_the_terminal_will_do() -> None:
    done = _run("gpus", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "a100-80gb-sxm" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "methods"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "Error: No space left on device\n"
