"""Which clock times what on a GPU; a device made of sleeps stands in where there is none.

The stand-in runs kernels in order on a clock of its own, ahead of which the host may be, and
launches one kernel of a graph after the other without the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from costmodel.reference.harness.case import Options, Runnable, Timer
from costmodel.reference.harness.clock import time_runnable
from costmodel.reference.harness.inputs import Inputs, Pool, Rotation
from costmodel.reference.harness.registry import load_suite
from costmodel.reference.harness.timing import Limits

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

HOST_S = 200e-6
"""What the host of the stand-in takes to launch a kernel."""


class Device:
    """Kernels one after the other; time is counted, not waited for."""

    def __init__(self) -> None:
        self.host_s = self.device_s = 0.0
        self.captured: list[float] | None = None
        self.captures = 0

    def launch(self, kernel_s: float) -> None:
        if self.captured is not None:
            self.captured.append(kernel_s)
            return
        self.host_s += HOST_S
        self.device_s = max(self.device_s, self.host_s) + kernel_s

    def replay(self, kernels: list[float]) -> None:
        self.host_s += HOST_S
        self.device_s = max(self.device_s, self.host_s) + sum(kernels)

    def wait(self) -> None:
        self.host_s = self.device_s = max(self.device_s, self.host_s)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_s = max(found.device_s, found.host_s)

        def synchronize(self) -> None:
            found.wait()

        def elapsed_time(self, other: Event) -> float:
            return (other.at_s - self.at_s) * 1e3

    class Graph:
        kernels: list[float]

        def replay(self) -> None:
            found.replay(self.kernels)

    @contextmanager
    def capture(graph: Graph) -> Any:
        found.captured, found.captures = [], found.captures + 1
        yield
        graph.kernels, found.captured = found.captured, None

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes: dict[str, Any] = {
        "Event": Event, "CUDAGraph": Graph, "graph": capture, "synchronize": found.wait,
        "Stream": lambda: stream, "current_stream": lambda: stream, "stream": _nothing,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(time, "perf_counter", lambda: found.host_s)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(found.host_s * 1e9))
    return found


@contextmanager
def _nothing(stream: object) -> Any:
    yield


def _timing(device: Device, kernel_s: float, **rest: Any) -> Any:
    run: Callable[[int], None] = lambda i: device.launch(kernel_s)  # noqa: E731
    runnable = Runnable(run, sets=rest.pop("sets", 300), set_bytes=1, **rest)
    return time_runnable(runnable, "cuda", Limits(samples=5, warm_up_s=0.001))


def test_without_a_graph_the_gaps_of_a_slow_host_count(device: Device) -> None:
    timing = _timing(device, 3e-6, graph=False)
    assert (timing.timer, device.captures) == ("cuda_events", 0)
    assert min(timing.samples_s) > 0.9 * HOST_S


@pytest.mark.parametrize("host_s", [5e-6, 200e-6])
def test_a_graph_sees_the_kernel_alone(
    device: Device, monkeypatch: pytest.MonkeyPatch, host_s: float
) -> None:
    monkeypatch.setitem(globals(), "HOST_S", host_s)
    timing = _timing(device, 3e-6)
    assert (timing.timer, device.captures) == ("cuda_graph", 1)
    assert timing.calls >= 300
    assert min(timing.samples_s) == pytest.approx(3e-6)


def test_a_long_kernel_is_timed_by_events(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "HOST_S", 5e-6)
    timing = _timing(device, 4e-3)
    assert (timing.timer, timing.calls, device.captures) == ("cuda_events", 1, 0)
    assert min(timing.samples_s) == pytest.approx(4e-3, rel=0.02)


@pytest.mark.parametrize(("timer", "expected_s"), [("host", 5e-6), ("wait", 3e-6), ("wall", 8e-6)])
def test_clocks_of_the_host(
    device: Device, monkeypatch: pytest.MonkeyPatch, timer: Timer, expected_s: float
) -> None:
    monkeypatch.setitem(globals(), "HOST_S", 5e-6)
    timing = _timing(device, 3e-6, timer=timer)
    assert timing.timer == timer
    assert min(timing.samples_s) == pytest.approx(expected_s, abs=2e-9)


def test_launch_costs_run_with_the_clock_that_they_ask_for(device: Device) -> None:
    found = {}
    for case in load_suite("launch").cases(Options(device="cuda", dtypes=("fp16",))):
        runnable = case.prepare(Inputs(Pool("cpu"), "fp16", Rotation(1, 1)))
        timing = time_runnable(runnable, "cuda", Limits(samples=3, warm_up_s=0.0))
        found[case.key["runtime"], case.key["op"]] = (timing.timer, timing.calls)
    assert found == {
        ("eager", "launch"): ("host", 500),
        ("eager", "view"): ("host", 500),
        ("eager", "sync"): ("wait", 1),
        ("eager", "launch_rate"): ("wall", 1),
        ("eager", "read_back"): ("wall", 1),
        ("cuda-graph", "launch"): ("host", 8),
        ("cuda-graph", "start"): ("host", 8),
        ("cuda-graph", "sync"): ("wait", 1),
        ("cuda-graph", "replay"): ("wall", 1),
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_kernel_of_known_length_on_a_gpu() -> None:
    """A kernel that spins takes the cycles it was told, at the clock that events see."""
    torch.cuda.init()
    limits = Limits(samples=10)
    times = {
        cycles: min(
            time_runnable(
                Runnable(lambda i, cycles=cycles: torch.cuda._sleep(cycles), 1, 1),  # type: ignore[misc]
                "cuda", limits,
            ).samples_s
        )
        for cycles in (20_000, 200_000, 2_000_000)
    }  # fmt: skip
    assert times[200_000] / times[20_000] == pytest.approx(10, rel=0.2)
    assert times[2_000_000] / times[200_000] == pytest.approx(10, rel=0.1)
