"""Specs and runs that the tests of sweeps share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

LARGE: dict[str, Any] = {
    "model": "llava-1.5-7b",
    "gpus": ["a100-80gb-sxm", "a40"],
    "methods": ["none", "cluster"],
    "visual_tokens_kept": {"range": [64, 128, 1]},
    "batch": [1, 2, 3, 8],
    "text_tokens": {"range": [1, 5000, 1]},
    "time_model": "ideal",
    "outputs": ["times", "memory"],
}
"""2,640,000 points: eleven parts."""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(LARGE))
    return path


def started(*words: str) -> subprocess.Popen[bytes]:
    """Start the command as people do."""
    code = "from importlib.metadata import entry_points as e\n"
    code += "e(group='console_scripts', name='costmodel')['costmodel'].load()()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def lines_of(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.fixture
def run_command() -> Callable[..., subprocess.Popen[bytes]]:
    return started


@pytest.fixture
def wait_for_parts() -> Callable[..., None]:
    """Wait until some parts of a sweep are complete."""

    def wait(output: Path, parts: int, process: subprocess.Popen[bytes]) -> None:
        journal = output.with_name(output.name + ".journal")
        for _ in range(60_000):
            if lines_of(journal) > parts:
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        raise AssertionError("the sweep makes no progress")

    return wait


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run the installed command in this process."""
    (script,) = entry_points(group="console_scripts", name="costmodel")

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(script.load(), list(words), prog_name="costmodel")

    return invoke
