"""The same bytes whoever computes: this process, two processes, a cluster that loses a worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costmodel.errors import InputError, SpecError
from costmodel.sweep.running import run_sweep

Command = Callable[..., "subprocess.Popen[bytes]"]
Wait = Callable[..., None]


def test_two_processes_write_the_same(large: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    run_sweep(large, one)
    run_sweep(large, two, workers=2)
    assert one.read_bytes() == two.read_bytes()


def children(pid: int) -> list[int]:
    """Return the processes that another one started, helpers of multiprocessing left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            line = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"resource_tracker" not in line:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_process_is_an_error_and_the_rest_is_resumed(
    large: Path, tmp_path: Path, run_command: Command, wait_for_parts: Wait
) -> None:
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    run_sweep(large, whole)
    process = run_command("sweep", str(large), "-o", str(output), "--workers", "2")
    wait_for_parts(output, 1, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.startswith(b"Error: workers: a process was killed"), errors
    summary = run_sweep(large, output, workers=2, resume=True)
    assert summary.resumed > 0
    assert output.read_bytes() == whole.read_bytes()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler with two workers, each a process of its own."""
    pytest.importorskip("distributed", reason="needs the extra 'distributed'")
    log = tmp_path / "scheduler.log"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        module = f"distributed.cli.dask_{name.partition('-')[0]}"
        with (tmp_path / f"{name}.log").open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", module, *words],
                stdout=out, stderr=out, env=environment, cwd=tmp_path,
            )  # fmt: skip

    scheduler = start(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter"
    )
    address = ""
    for _ in range(600):
        if found := re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text()):
            address = found[1]
            break
        assert scheduler.poll() is None, log.read_text()
        time.sleep(0.1)
    workers = [
        start(
            f"worker-{i}", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--host", "127.0.0.1", "--memory-limit", "0",
        )
        for i in range(2)
    ]  # fmt: skip
    from distributed import Client

    with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
    yield address, workers
    for process in [*workers, scheduler]:
        process.terminate()
        process.wait()


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_writes_the_same(
    large: Path,
    tmp_path: Path,
    cluster: tuple[str, list[subprocess.Popen[bytes]]],
    run_command: Command,
    wait_for_parts: Wait,
) -> None:
    address, workers = cluster
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    run_sweep(large, whole)
    process = run_command("sweep", str(large), "-o", str(output), "--scheduler", address)
    wait_for_parts(output, 1, process)
    workers[0].kill()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert workers[0].wait() == -9
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_no_scheduler(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra 'distributed'")
    spec: dict[str, Any] = {"model": "llava-1.5-7b", "gpu": "a40", "text_tokens": 1}
    with pytest.raises(InputError, match="the address of a dask scheduler"):
        run_sweep(spec, tmp_path / "out.csv", scheduler="nonsense://x")


def test_scheduler_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    spec: dict[str, Any] = {"model": "llava-1.5-7b", "gpu": "a40", "text_tokens": 1}
    with pytest.raises(SpecError, match=r"costmodel\[distributed\]"):
        run_sweep(spec, tmp_path / "out.csv", scheduler="tcp://127.0.0.1:1")
