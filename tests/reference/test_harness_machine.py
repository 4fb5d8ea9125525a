"""What a measurement ran on, against folders and programs made for the purpose."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import costmodel.reference.harness.conditions as conditions_module
from costmodel.reference.harness.conditions import conditions, query_nvidia_smi
from costmodel.reference.harness.machine import (
    _gpu_cache_bytes,
    cpu_cache_bytes,
    describe_machine,
    git_commit,
)

SMI = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1" in *unknown*) echo "not a valid field" >&2; exit 2;; *slow*) exec sleep 60;; esac
case "$1" in *clocks.sm,power.draw*) echo "1410, 87.21";; *power.draw*) echo "87.21";;
*pstate*) echo "P0";; *temperature*) echo "[N/A]";; *) echo "1410";; esac
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
    monkeypatch.setattr(conditions_module, "_known", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "log"


def test_clocks_and_power_are_numbers(nvidia_smi: Path) -> None:
    found = query_nvidia_smi(("clocks.sm", "power.draw"))
    assert found == {"clocks.sm": 1410.0, "power.draw": 87.21}


def test_a_field_that_a_driver_does_not_know_costs_only_itself(nvidia_smi: Path) -> None:
    found = query_nvidia_smi(("clocks.sm", "unknown", "pstate"))
    assert found == {"clocks.sm": 1410.0, "pstate": "P0"}


def test_a_field_that_a_driver_does_not_know_is_asked_for_once(nvidia_smi: Path) -> None:
    for _ in range(3):
        query_nvidia_smi(("clocks.sm", "unknown", "pstate"))
    # All together, one by one, then those that were answered.
    assert len(nvidia_smi.read_text().splitlines()) == 1 + 3 + 2


def test_what_a_device_does_not_have_is_left_out(nvidia_smi: Path) -> None:
    assert query_nvidia_smi(("temperature.gpu",)) == {}


def test_a_slow_nvidia_smi_costs_one_wait(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions_module, "_TIMEOUT_S", 0.5)
    for _ in range(3):
        assert query_nvidia_smi(("clocks.sm", "slow")) == {}
    assert len(nvidia_smi.read_text().splitlines()) == 1


def test_the_uuid_is_the_one_that_torch_means(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch counts the fastest first, nvidia-smi by place."""
    names = {0: "NVIDIA H100 80GB HBM3", 1: "NVIDIA A100-SXM4-80GB MIG 3g.40gb"}
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_properties=lambda index: SimpleNamespace(name=names[index], uuid="12-34"),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-7")
    query_nvidia_smi(("clocks.sm",), "cuda:0")
    query_nvidia_smi(("clocks.sm",), "cuda:1")
    asked = [line.split()[-1] for line in nvidia_smi.read_text().splitlines()]
    assert asked == ["--id=GPU-12-34", "--id=MIG-7"]


@pytest.mark.verify
def test_an_older_torch_does_not_know_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
    assert _gpu_cache_bytes(SimpleNamespace(L2_cache_size=50 << 20)) == 50 << 20

    class Driver:
        @staticmethod
        def cuDeviceGetAttribute(value: object, attribute: int, device: int) -> int:  # noqa: N802
            assert (attribute, device) == (38, 0)
            ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = 40 << 20  # type: ignore[arg-type]
            return 0

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver)
    assert _gpu_cache_bytes(SimpleNamespace()) == 40 << 20

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert _gpu_cache_bytes(SimpleNamespace()) >= 128 << 20


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
