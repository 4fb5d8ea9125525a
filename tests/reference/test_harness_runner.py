"""Runs: budget, failures, Ctrl-C, and a process that is killed."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import costmodel.reference.harness.runner as runner_module
from costmodel.reference.harness.case import Case, Runnable
from costmodel.reference.harness.inputs import Rotation
from costmodel.reference.harness.measuring import Measured, measure
from costmodel.reference.harness.progress import Progress, duration_text
from costmodel.reference.harness.request import Request
from costmodel.reference.harness.runner import Outcome, Runner
from costmodel.reference.harness.store import Layout, Store
from costmodel.reference.harness.timing import Limits

pytest.importorskip("torch", reason="needs the extra 'measure'")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

REFERENCE = Path(runner_module.__file__).parents[1]
SUITE = """
import os
import time
from pathlib import Path

from ..harness.case import Case, Runnable, Suite


def prepare(number):
    def make(inputs):
        with Path(os.environ["STARTED"]).open("a") as file:
            file.write(f"{number}\\n")
        while number == int(os.environ["STOP_AT"]):
            time.sleep(0.1)
        return Runnable(lambda i: inputs.normal(1), 1, 4)
    return make


def cases(options):
    return [Case("counted", "counted", {"dtype": "fp32", "n": n}, prepare(n)) for n in range(200)]


SUITE = Suite("counted", "Says what it starts.", cases)
"""


def _case(number: int, run: Callable[[int], Any]) -> Case:
    return Case("s", "gemm", {"dtype": "fp32", "m": number}, lambda _: Runnable(run, 1, 4))


def _run(folder: Path, cases: list[Case], budget_s: float = math.inf, **limits: Any) -> Outcome:
    layout = Layout(folder, ["gemm"])
    store = Store(layout, ["gemm"], {"gpu": "cpu", "source": "", "software": ""}, {"run": "r"})
    made = Limits(**{"samples": 3, "warm_up_s": 0.0, **limits})
    runner = Runner("cpu", store, layout, Rotation(1, 1), made)
    outcome = runner.run(cases, budget_s, io.StringIO())
    assert runner.conditions
    return outcome


def _measured(folder: Path) -> list[int]:
    return [row["m"] for row in pq.read_table(folder / "gemm.parquet").to_pylist()]


class _Clock:
    """A clock that goes on when something runs, however busy the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: round(self.now_s * 1e9))


def test_a_budget_is_kept_to_within_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)

    def run(number: int) -> None:
        clock.now_s += 0.02

    cases = [_case(number, run) for number in range(100)]
    # Two calls of warm-up and three samples take 0.1 s.
    outcome = _run(tmp_path, cases, budget_s=0.45)
    assert outcome.measured == len(_measured(tmp_path)) == 5
    assert outcome.left == 95
    assert clock.now_s == pytest.approx(100.5)
    again = _run(tmp_path, cases, budget_s=0.25)
    assert (again.skipped, again.measured, again.left) == (5, 3, 92)
    assert len(set(_measured(tmp_path))) == len(_measured(tmp_path)) == 8


def test_a_failure_is_written_down_and_the_rest_goes_on(tmp_path: Path) -> None:
    def fail(i: int) -> None:
        raise RuntimeError("out of memory\nand more")

    outcome = _run(tmp_path, [_case(1, len([]).__add__), _case(2, fail), _case(3, abs)])
    assert (outcome.measured, outcome.failed, outcome.left) == (2, 1, 0)
    assert outcome.reasons == {"RuntimeError: out of memory": 1}
    (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["key"]["m"], entry["reason"]) == (2, "RuntimeError: out of memory")
    assert _measured(tmp_path) == [1, 3]


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    def interrupt(i: int) -> None:
        raise KeyboardInterrupt

    outcome = _run(tmp_path, [_case(1, abs), _case(2, interrupt), _case(3, abs)])
    assert (outcome.interrupted, outcome.measured, outcome.left) == (True, 1, 2)
    assert _measured(tmp_path) == [1]
    done = Measured(outcome, (), 1.0)
    assert done.exit_code == 130
    assert "2 left" in done.lines()[0]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(measured=1), 0),
        (Outcome(measured=1, failed=3), 0),
        (Outcome(skipped=2), 0),
        (Outcome(failed=3), 1),
        (Outcome(measured=1, broken="illegal memory access"), 1),
    ],
)
def test_exit_codes(outcome: Outcome, code: int) -> None:
    assert Measured(outcome, (), 1.0).exit_code == code


def _copied(folder: Path) -> Path:
    shutil.copytree(REFERENCE, folder / "reference", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _python(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n"
         "from reference.harness.command import main; sys.exit(main(sys.argv[1:]))", *words],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "", **environment},
    )  # fmt: skip


def test_a_killed_process_loses_at_most_one_case_and_doubles_none(tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    (folder / "reference" / "suites" / "counted.py").write_text(SUITE)
    log = folder / "started"
    words = ("--suite", "counted", "-o", "out", "--quick")
    # Cases are measured coarse first, so that this one is somewhere within.
    process = _python(folder, *words, STARTED=str(log), STOP_AT="60")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and "60" in log.read_text().split():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    started = log.read_text().split()
    kept = _kept(folder / "out")
    assert started[-1] == "60"
    assert 0 < len(kept) == len(started) - 1 < 199
    again = _python(folder, *words, STARTED=str(log), STOP_AT="-1")
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f"{len(kept)} there already" in said
    rows = pq.read_table(folder / "out" / "counted.parquet").to_pylist()
    assert sorted(row["n"] for row in rows) == list(range(200))
    times = {row["n"]: row["time_us"] for row in rows}
    assert all(times[row["n"]] == row["time_us"] for row in kept)


def _kept(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that a process left: a slow one has moved some from journal to parquet."""
    journal, parquet = folder / "journal.jsonl", folder / "counted.parquet"
    lines = journal.read_text().splitlines() if journal.exists() else []
    rows = pq.read_table(parquet).to_pylist() if parquet.exists() else []
    return [*rows, *(json.loads(line)["row"] for line in lines)]


def test_a_copy_of_the_folder_measures_alone(tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "reference", "--device", "cpu", "--suite", "launch", "--quick",
         "-o", "out/", "--dtype", "fp32", "--dtype", "bf16"],
        cwd=folder, text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(folder / "out" / "launch.parquet").to_pylist()
    assert {(row["op"], row["dtype"]) for row in rows} == {
        (op, dtype) for op in ("launch", "view") for dtype in ("fp32", "bf16")
    }
    record = json.loads((folder / "out" / "machine.json").read_text())[rows[0]["run"]]
    assert record["versions"]["torch"] in record["software"]
    assert record["host"]["cpu"]
    assert len(record["conditions"]) >= 2


def test_a_request_can_be_measured_from_python(tmp_path: Path) -> None:
    request = Request(tmp_path / "t.parquet", suites=("launch",), quick=True, threads=1)
    done = measure(request, io.StringIO())
    assert done.files == (tmp_path / "t.parquet",)
    (row, *_) = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert (row["gpu"], row["threads"]) == ("cpu", 1)
    assert row["software"].endswith(", 1 thread")
    assert measure(request, io.StringIO()).outcome == Outcome(skipped=2)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = _Terminal()
    progress = Progress(stream, 4, budget_s=1000.0)
    now = 160.0
    progress.update(2, "gemm")
    assert "[############------------] 2/4, 1 min 0 s left  gemm" in stream.getvalue()
    assert progress.left_s(1, 160.0) == 180.0


def test_a_budget_bounds_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert Progress(io.StringIO(), 100, budget_s=50.0).left_s(1, 10.0) == 40.0


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = Progress(stream, 100, math.inf)
    for done in range(100):
        now += 0.5
        progress.update(done, "x")
    assert len(stream.getvalue().splitlines()) == 5


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (3599.9, "1 h 0 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
