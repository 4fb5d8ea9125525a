"""Clocks and samples, against sleeps and counted calls."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import pytest

from costmodel.reference.harness.case import Runnable
from costmodel.reference.harness.clock import time_runnable
from costmodel.reference.harness.timing import LEAST_SAMPLES, Limits, Timing, collect

pytest.importorskip("torch", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

SLEEP_S = 0.003


def _runnable(run: Any, **rest: Any) -> Runnable:
    return Runnable(run, sets=4, set_bytes=1, **rest)


def test_a_sleep_takes_as_long_as_it_sleeps() -> None:
    timing = time_runnable(_runnable(lambda i: time.sleep(SLEEP_S)), "cpu", Limits(samples=9))
    columns = timing.columns()
    # A sleep wakes late, more so on a busy machine: only a wrong unit is caught above.
    assert SLEEP_S * 1e6 <= float(columns["time_us_min"]) < 100 * SLEEP_S * 1e6
    assert (columns["n_runs"], columns["calls_per_run"]) == (9, 1)
    assert columns["timer"] == "perf_counter"


def test_executions_in_one_call_are_divided_by() -> None:
    run = _runnable(lambda i: time.sleep(SLEEP_S), per_call=10)
    timing = time_runnable(run, "cpu", Limits(samples=5))
    assert SLEEP_S / 10 <= min(timing.samples_s) < 0.9 * SLEEP_S


class _Clock:
    """A clock that goes on when something runs, however busy the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_ns * 1e-9)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now_ns)


def test_short_calls_are_averaged_and_go_round_the_input_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers: list[int] = []
    clock = _Clock(monkeypatch)

    def run(number: int) -> None:
        numbers.append(number)
        clock.now_ns += 1000

    timing = time_runnable(_runnable(run), "cpu", Limits(samples=5, warm_up_s=0.005))
    # A sample takes 200 us.
    assert timing.calls == 200
    assert timing.samples_s == pytest.approx([1e-6] * 5)
    assert numbers == list(range(5000 + 5 * 200))


def test_one_stalled_warm_up_call_does_not_hide_that_calls_are_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)

    def run(number: int) -> None:
        clock.now_ns += 10_000_000 if number % 50 == 49 else 1000

    assert time_runnable(_runnable(run), "cpu", Limits(samples=3)).calls == 200


@pytest.mark.parametrize(
    "limits",
    [
        Limits(samples=1, seconds=1.0),
        Limits(samples=50, seconds=0.0),
        Limits(samples=50, deadline_s=0.0),
    ],
)
def test_there_is_a_spread_whatever_the_limits(limits: Limits) -> None:
    columns = time_runnable(_runnable(lambda i: sum(range(1000))), "cpu", limits).columns()
    assert columns["n_runs"] == LEAST_SAMPLES
    spread = [float(columns[f"time_us{part}"]) for part in ("", "_mean", "_min", "_max", "_std")]
    assert all(math.isfinite(value) for value in spread)
    assert spread[2] <= spread[0] <= spread[3]


def test_samples_end_with_the_time() -> None:
    def sample() -> float:
        time.sleep(0.01)
        return 0.01

    taken = collect(sample, Limits(samples=1000, seconds=0.1))
    assert len(taken) <= 10


def test_columns_are_what_statistics_says() -> None:
    samples = (4e-6, 1e-6, 9e-6, 2e-6)
    columns = Timing(samples, 1, "perf_counter").columns()
    assert columns["time_us"] == pytest.approx(statistics.median(samples) * 1e6)
    assert columns["time_us_mean"] == pytest.approx(statistics.mean(samples) * 1e6)
    assert columns["time_us_std"] == pytest.approx(statistics.stdev(samples) * 1e6)


def test_a_context_is_entered_once_around_all_calls() -> None:
    from contextlib import contextmanager

    seen: list[str] = []

    @contextmanager
    def context() -> Any:
        seen.append("in")
        yield
        seen.append("out")

    run = _runnable(lambda i: seen.append("run"), context=context)
    time_runnable(run, "cpu", Limits(samples=3, warm_up_s=0.001))
    assert (seen[0], seen[-1], seen.count("in")) == ("in", "out", 1)


def test_a_product_takes_what_torch_benchmark_says() -> None:
    """The fastest samples of both, which others on the machine disturb least."""
    import torch
    from torch.utils.benchmark import Timer as Benchmark

    x, w, y = torch.randn(512, 512), torch.randn(512, 512), torch.empty(512, 512)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(3):
        timing = time_runnable(
            _runnable(lambda i: torch.mm(x, w, out=y)), "cpu", Limits(samples=30)
        )
        ours += timing.samples_s
        names = {"torch": torch, "x": x, "w": w, "y": y}
        threads = torch.get_num_threads()
        timer = Benchmark("torch.mm(x, w, out=y)", globals=names, num_threads=threads)
        theirs += timer.blocked_autorange(min_run_time=0.1).times
    # Within a fifth where nobody else computes; on a busy machine only a wrong unit shows.
    assert 0.1 < min(ours) / min(theirs) < 10
