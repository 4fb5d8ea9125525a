"""Runs on a GPU that runs out of memory, is lost or hangs; a stand-in of `conftest`."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import costmodel.reference.harness.runner as runner_module
from costmodel.reference.harness.attempts import ENDED
from costmodel.reference.harness.case import Case, Runnable
from costmodel.reference.harness.inputs import Rotation
from costmodel.reference.harness.measuring import Measured
from costmodel.reference.harness.runner import LOST_DEVICE, Outcome, Runner
from costmodel.reference.harness.store import Layout, Store
from costmodel.reference.harness.timing import Limits
from costmodel.reference.harness.watchdog import Watchdog

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

Device = Any
ILLEGAL = "CUDA error: an illegal memory access was encountered"


def _case(number: int, run: Callable[[int], Any], **notes: Any) -> Case:
    key = {"dtype": "fp16", "m": number, **notes}
    return Case("s", "gemm", key, lambda _: Runnable(run, 1, 4, graph=False))


def _runner(folder: Path, watchdog: Watchdog | None = None, **rest: Any) -> Runner:
    layout = Layout(folder, ["gemm"])
    store = Store(layout, ["gemm"], {"gpu": "g", "source": "", "software": ""}, {"run": "r"})
    limits = Limits(samples=3, warm_up_s=0.0)
    return Runner("cuda", store, layout, Rotation(1, 1), limits, watchdog=watchdog, **rest)


def _run(folder: Path, cases: list[Case], budget_s: float = math.inf) -> Outcome:
    return _runner(folder).run(cases, budget_s, io.StringIO())


def _measured(folder: Path) -> list[int]:
    return [row["m"] for row in pq.read_table(folder / "gemm.parquet").to_pylist()]


def _failures(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "failures.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_case_that_loses_the_device_is_not_tried_again(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clocks are noted after every case, under a load.
    monkeypatch.setattr(runner_module, "_CONDITIONS_S", 0.0)
    tried = []

    def lose(i: int) -> None:
        tried.append(i)
        device.lost = ILLEGAL
        device.wait()

    def fine(i: int) -> None:
        device.launch(1e-3)

    cases = [_case(1, fine), _case(2, lose), _case(3, fine)]
    outcome = _run(tmp_path, cases)
    assert (outcome.measured, outcome.failed, outcome.left) == (1, 1, 1)
    assert outcome.broken == f"RuntimeError: {ILLEGAL}"
    assert _measured(tmp_path) == [1]
    device.lost = ""
    again = _run(tmp_path, cases)
    assert (again.skipped, again.measured, again.given_up, again.left) == (1, 1, 1, 0)
    assert (len(tried), again.broken) == (1, "")
    assert _measured(tmp_path) == [1, 3]
    done = Measured(again, (), 1.0)
    assert done.exit_code == 0
    assert any("remove failures.jsonl" in line for line in done.lines())
    (tmp_path / "failures.jsonl").unlink()
    assert _run(tmp_path, cases).failed == 1


def test_what_failed_in_two_runs_is_left_alone(device: Device, tmp_path: Path) -> None:
    def refuse(i: int) -> None:
        raise RuntimeError("No available kernel. Aborting execution.")

    outcomes = [_run(tmp_path, [_case(1, refuse)]) for _ in range(3)]
    assert [(one.failed, one.given_up) for one in outcomes] == [(1, 0), (1, 0), (0, 1)]
    assert Measured(outcomes[-1], (), 1.0).exit_code == 1
    # What another card or version refused says nothing of this one.
    layout = Layout(tmp_path, ["gemm"])
    other = Store(layout, ["gemm"], {"gpu": "other", "source": "", "software": ""}, {"run": "r"})
    limits = Limits(samples=3, warm_up_s=0.0)
    runner = Runner("cuda", other, layout, Rotation(1, 1), limits)
    assert runner.run([_case(1, refuse)], math.inf, io.StringIO()).failed == 1


def test_memory_that_others_held_is_given_back_and_the_case_tried_again(
    device: Device, tmp_path: Path
) -> None:
    device.limit_bytes = 10_000
    kept: list[Any] = []

    class Hoard:
        """What stays in memory until garbage is collected."""

        def __init__(self) -> None:
            self.me, self.block = self, device.result(8000)

    def hoard(i: int) -> None:
        kept[:] = [device.result(10, 1e-3)]

    def need(i: int) -> None:
        kept[:] = []
        kept[:] = [device.result(5000, 1e-3)]

    Hoard()
    outcome = _run(tmp_path, [_case(1, hoard), _case(2, need)])
    assert (outcome.measured, outcome.failed) == (2, 0)


@pytest.mark.parametrize(
    ("said", "tries"), [("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", 2), ("no", 1)]
)
def test_libraries_say_that_memory_ran_out_in_their_own_words(
    device: Device, tmp_path: Path, said: str, tries: int
) -> None:
    tried: list[int] = []

    def run(i: int) -> None:
        tried.append(i)
        raise RuntimeError(said)

    assert _run(tmp_path, [_case(1, run)]).failed == 1
    assert len(tried) == tries


def test_a_failure_holds_no_memory(device: Device, tmp_path: Path) -> None:
    device.limit_bytes = 10_000

    def fail(i: int) -> None:
        mine = device.result(8000)
        assert mine
        raise ValueError("no")

    def need(i: int) -> None:
        device.result(9000, 1e-3)

    outcome = _run(tmp_path, [_case(1, fail), _case(2, need)])
    assert (outcome.measured, outcome.failed) == (1, 1)
    assert device.peak_bytes == 9000


def test_memory_that_is_not_there_is_one_failure(device: Device, tmp_path: Path) -> None:
    device.limit_bytes = 10_000
    cases = [_case(1, lambda i: device.result(20_000)), _case(2, lambda i: device.launch(1e-3))]
    outcome = _run(tmp_path, cases)
    assert (outcome.measured, outcome.failed, outcome.broken) == (1, 1, "")
    (entry,) = _failures(tmp_path)
    assert entry["reason"].startswith("OutOfMemoryError: CUDA out of memory")


class _LeftError(BaseException):
    """The process would have ended."""


def _leaving(codes: list[int], release: Any) -> Callable[[int], None]:
    def leave(code: int) -> None:
        codes.append(code)
        release()

    return leave


def test_a_case_that_hangs_ends_the_process_with_all_rows(device: Device, tmp_path: Path) -> None:
    import threading

    released, codes = threading.Event(), list[int]()

    def hang(i: int) -> None:
        assert released.wait(60)
        raise _LeftError

    leave = _leaving(codes, released.set)
    runner = _runner(tmp_path, Watchdog(most_s=0.3), leave=leave)
    stream = io.StringIO()
    cases = [_case(1, lambda i: device.launch(1e-3)), _case(2, hang)]
    with pytest.raises(_LeftError):
        runner.run(cases, math.inf, stream)
    assert codes == [LOST_DEVICE]
    assert _measured(tmp_path) == [1]
    assert "took longer than 0.3 s" in stream.getvalue()
    again = _run(tmp_path, cases)
    assert (again.skipped, again.given_up, again.failed) == (1, 1, 0)


def test_a_case_that_runs_past_the_end_may_be_tried_again(device: Device, tmp_path: Path) -> None:
    import threading

    released, codes = threading.Event(), list[int]()

    def compile_long(i: int) -> None:
        assert released.wait(60)
        raise _LeftError

    runner = _runner(tmp_path, Watchdog(grace_s=0.2), leave=_leaving(codes, released.set))
    with pytest.raises(_LeftError):
        runner.run([_case(1, compile_long)], 3.0, io.StringIO())
    assert codes == [LOST_DEVICE]
    assert not (tmp_path / "failures.jsonl").exists()
    assert _run(tmp_path, [_case(1, lambda i: device.launch(1e-3))]).measured == 1


def test_what_ended_a_process_twice_is_not_tried_a_third_time(
    device: Device, tmp_path: Path
) -> None:
    def end(i: int) -> None:
        raise _LeftError

    case = _case(1, end)
    for _ in range(2):
        runner = _runner(tmp_path)
        runner._attempts.start(case)
    outcome = _run(tmp_path, [case])
    assert (outcome.given_up, [one["reason"] for one in _failures(tmp_path)]) == (1, [ENDED] * 2)


def test_long_cases_are_not_started_when_no_time_is_left(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def taking(seconds: float) -> Callable[[int], None]:
        def run(i: int) -> None:
            nonlocal now
            # Four of warm-up, one ahead of the samples, three samples.
            now += seconds / 8
            device.host_s += seconds / 8

        return run

    cases = [
        _case(1, taking(80.0), runtime="compiled"),
        _case(2, taking(80.0), runtime="compiled"),
        _case(3, taking(8.0), runtime="eager"),
    ]
    outcome = _run(tmp_path, cases, budget_s=120.0)
    assert _measured(tmp_path) == [1, 3]
    assert (outcome.measured, outcome.left) == (2, 1)
