"""What a measurement ran on, against folders and programs made for the purpose."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from costmodel.reference.harness.conditions import conditions, query_nvidia_smi
from costmodel.reference.harness.machine import cpu_cache_bytes, describe_machine, git_commit

SMI = """#!/bin/sh
case "$1" in *unknown*) echo "not a valid field" >&2; exit 2;; esac
case "$1" in *clocks.sm,power.draw*) echo "1410, 87.21";; *power.draw*) echo "87.21";;
*pstate*) echo "P0";; *) echo "1410";; esac
echo "$@" >> "$LOG"
"""


def test_caches_are_read_by_level(tmp_path: Path) -> None:
    for index, (kind, level, size) in enumerate(
        [("Data", 1, "48K"), ("Instruction", 1, "32K"), ("Unified", 2, "2M"), ("Unified", 3, "?")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert cpu_cache_bytes(tmp_path) == {"L1": 48 << 10, "L2": 2 << 20}
    assert cpu_cache_bytes(tmp_path / "none") == {}


@pytest.mark.verify
def test_this_machine_is_described() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
    machine = describe_machine("cpu")
    assert machine.gpu == "cpu"
    assert torch.__version__ in machine.software
    assert machine.processors == torch.get_num_threads()
    assert machine.memory_bytes > 1 << 28
    assert machine.cache_bytes >= 1 << 18
    assert set(machine.versions) >= {"torch", "numpy", "transformers", "cuda", "python"}


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_of_the_repository_that_tracks_the_file(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file = tmp_path / "part" / "module.py"
    file.parent.mkdir()
    file.write_text("a")
    assert git_commit(file) == ""
    git("init", "-q")
    assert git_commit(file) == ""
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert git_commit(file) == git("rev-parse", "HEAD")
    file.write_text("b")
    assert git_commit(file) == git("rev-parse", "HEAD") + "+"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.name != "posix":
        pytest.skip("a shell script stands in for nvidia-smi")
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "log"


def test_clocks_and_power_are_numbers(nvidia_smi: Path) -> None:
    found = query_nvidia_smi(("clocks.sm", "power.draw"))
    assert found == {"clocks.sm": 1410.0, "power.draw": 87.21}


def test_a_field_that_a_driver_does_not_know_costs_only_itself(nvidia_smi: Path) -> None:
    found = query_nvidia_smi(("clocks.sm", "unknown", "pstate"))
    assert found == {"clocks.sm": 1410.0, "pstate": "P0"}


@pytest.mark.parametrize(
    ("visible", "device", "asked"),
    [
        ("", "cuda", "0"),
        ("", "cuda:1", "1"),
        ("3,GPU-7", "cuda", "3"),
        ("3,GPU-7", "cuda:1", "GPU-7"),
    ],
)
def test_the_device_is_the_one_that_torch_means(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str, device: str, asked: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    query_nvidia_smi(("clocks.sm",), device)
    assert f"--id={asked}" in nvidia_smi.read_text().split()


def test_only_reading_is_asked_for(nvidia_smi: Path) -> None:
    conditions("cuda")
    for line in nvidia_smi.read_text().splitlines():
        assert all(word.startswith(("--query-gpu=", "--format=", "--id=")) for word in line.split())


def test_without_nvidia_smi_there_are_no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert query_nvidia_smi(("clocks.sm",)) == {}
    assert conditions("cpu")["at"]
