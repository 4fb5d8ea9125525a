"""Which clock times what on a GPU; a stand-in of `conftest` where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from costmodel.reference.graphs import CaptureError
from costmodel.reference.harness.case import Options, Runnable, Timer
from costmodel.reference.harness.clock import time_runnable
from costmodel.reference.harness.inputs import Inputs, Pool, Rotation
from costmodel.reference.harness.registry import load_suite
from costmodel.reference.harness.timing import Limits

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
# Before anything of torch is replaced, which it looks at when it is imported.
pytest.importorskip("transformers.models.llama", reason="needs the extra 'measure'")

from costmodel.reference.models import runtimes  # noqa: E402

pytestmark = pytest.mark.verify

Device = Any


def _time(run: Callable[[int], object], sets: int = 300, **rest: Any) -> Any:
    runnable = Runnable(run, sets=sets, set_bytes=1, **rest)
    return time_runnable(runnable, "cuda", Limits(samples=5, warm_up_s=0.001))


def _timing(device: Device, kernel_s: float, **rest: Any) -> Any:
    return _time(lambda i: device.launch(kernel_s), **rest)


def test_without_a_graph_the_gaps_of_a_slow_host_count(device: Device) -> None:
    timing = _timing(device, 3e-6, graph=False)
    assert (timing.timer, device.captures) == ("cuda_events", 0)
    assert min(timing.samples_s) > 0.9 * device.launch_s


@pytest.mark.parametrize("host_s", [5e-6, 200e-6])
def test_a_graph_sees_the_kernel_alone(device: Device, host_s: float) -> None:
    device.launch_s = host_s
    timing = _timing(device, 3e-6)
    assert (timing.timer, device.captures) == ("cuda_graph", 1)
    assert timing.calls >= 300
    # In all samples: none has the host's start of a replay in it.
    assert timing.samples_s == pytest.approx([3e-6] * 5)


@pytest.mark.parametrize("kernel_s", [1.2e-3, 4e-3])
def test_a_long_kernel_is_timed_without_the_hosts_launch(device: Device, kernel_s: float) -> None:
    timing = _timing(device, kernel_s)
    assert (timing.timer, timing.calls, device.captures) == ("cuda_events", 1, 0)
    assert timing.samples_s == pytest.approx([kernel_s] * 5)


def test_a_very_long_kernel_runs_once_before_its_samples(device: Device) -> None:
    ran = []

    def run(i: int) -> None:
        ran.append(i)
        device.launch(0.5)

    timing = time_runnable(Runnable(run, 1, 1), "cuda", Limits(samples=5, warm_up_s=0.0))
    # Warm-up is three calls and one timed; then the one that keeps the device busy.
    assert len(ran) == 4 + 1 + len(timing.samples_s)
    assert timing.samples_s == pytest.approx([0.5] * 5, rel=1e-3)


def test_code_that_compiles_for_every_set_is_still_captured(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An estimate with a compilation in it would look like a call too long for a graph."""
    monkeypatch.setattr(time, "monotonic", lambda: device.host_s)
    compiled: set[int] = set()

    def run(i: int) -> None:
        if i % 16 not in compiled:
            assert device.captured is None
            compiled.add(i % 16)
            device.host_s += 10.0
        device.launch(3e-6)

    assert _time(run, sets=16).timer == "cuda_graph"


def test_results_rotate_as_inputs_do(device: Device) -> None:
    """One result dropped at once would give its place in the cache to the next."""
    device.launch_s = 5e-6
    timing = _time(lambda i: device.result(1000), sets=20)
    assert timing.calls > 20
    assert 20 * 1000 <= device.peak_bytes <= 21 * 1000
    assert device.alive_bytes == 0


def test_a_wait_in_a_capture_is_told_as_what_it_was(device: Device) -> None:
    def run(i: int) -> None:
        device.launch(3e-6)
        if device.captured is not None:
            torch.cuda.synchronize()

    with pytest.raises(CaptureError, match=r"cannot be captured: .*not permitted when stream is"):
        _time(run)
    assert device.stream == "default"
    assert _timing(device, 3e-6).samples_s == pytest.approx([3e-6] * 5)


def test_memory_that_ends_in_a_capture_is_told_as_such(device: Device) -> None:
    device.limit_bytes = 5000
    try:
        _time(lambda i: device.result(1000), sets=20)
    except torch.cuda.OutOfMemoryError as error:
        assert "Tried to allocate 1000" in str(error)  # noqa: PT017
    assert (device.stream, device.alive_bytes) == ("default", 0)


@pytest.mark.parametrize(("timer", "expected_s"), [("host", 5e-6), ("wait", 3e-6), ("wall", 8e-6)])
def test_clocks_of_the_host(device: Device, timer: Timer, expected_s: float) -> None:
    device.launch_s = 5e-6
    timing = _timing(device, 3e-6, timer=timer)
    assert timing.timer == timer
    assert min(timing.samples_s) == pytest.approx(expected_s, abs=2e-9)


def test_queued_kernels_are_timed_without_the_host(device: Device) -> None:
    device.launch_s = 5e-6
    timing = _timing(device, 3e-6, timer="queued", queue=200)
    assert (timing.timer, timing.calls) == ("queued", 200)
    assert timing.samples_s == pytest.approx([3e-6] * 5)
    device.launch_s = 200e-6
    with pytest.raises(RuntimeError, match="took longer to enqueue 200 calls"):
        _timing(device, 3e-6, timer="queued", queue=200)


def test_a_graph_of_a_runtime_is_captured_once(device: Device) -> None:
    graph = runtimes._Graph(lambda: device.launch(3e-6))
    for _ in range(3):
        graph()
    assert device.captures == 1


def test_launch_costs_run_with_the_clock_that_they_ask_for(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_compiled", lambda run, backend: run)
    found = {}
    device.launch_s = 5e-6
    for case in load_suite("launch").cases(Options(device="cuda", dtypes=("fp16",))):
        runnable = case.prepare(Inputs(Pool("cpu"), "fp16", Rotation(1, 1)))
        timing = time_runnable(runnable, "cuda", Limits(samples=3, warm_up_s=0.0))
        place = case.key["runtime"], case.key["op"], case.key["kernels"]
        found[place] = (timing.timer, timing.calls)
    graphs = {
        ("cuda-graph", op, kernels): (timer, 1)
        for op, timer in (("call", "host"), ("replay", "wall"))
        for kernels in (1, 10, 100, 1000)
    }
    assert found.pop(("cuda-graph", "kernel", 1))[0] == "cuda_graph"
    assert found == graphs | {
        ("eager", "launch", 1): ("host", 500),
        ("eager", "view", 1): ("host", 500),
        ("eager", "sync", 1): ("wait", 1),
        ("eager", "queued", 1): ("queued", 200),
        ("eager", "call", 1): ("host", 3),
        ("eager", "call", 2): ("host", 2),
        ("eager", "call", 8): ("host", 1),
        ("eager", "launch_rate", 1): ("wall", 1),
        ("eager", "read_back", 1): ("wall", 1),
        ("cuda-graph", "sync", 1): ("wait", 1),
        ("compiled", "call", 2): ("host", 100),
        ("compiled", "call", 20): ("host", 10),
        ("compiled", "call", 100): ("host", 2),
    }


def test_a_compiled_stage_has_as_many_kernels_as_it_says() -> None:
    (case,) = (
        case
        for case in load_suite("launch").cases(Options(device="cuda", dtypes=("fp32",)))
        if (case.key["runtime"], case.key["kernels"]) == ("compiled", 20)
    )
    from torch.utils._python_dispatch import TorchDispatchMode

    called: list[str] = []

    class Count(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            called.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(runtimes, "_compiled", lambda run, backend: run)
        runnable = case.prepare(Inputs(Pool("cpu"), "fp32", Rotation(1, 1)))
        with Count():
            runnable.run(0)
    assert called == ["mm", "relu"] * 10


def test_layers_say_how_many_kernels_they_have() -> None:
    """Those of one more layer are as many as the cost model counts for eager code, or so."""
    counted: list[tuple[Any, Any]] = []
    for case in load_suite("launch").cases(Options(device="cuda", dtypes=("bf16",))):
        if (case.key["runtime"], case.key["op"]) == ("eager", "call"):
            with torch.inference_mode():
                runnable = case.prepare(Inputs(Pool("cpu"), "bf16", Rotation(1, 1)))
                runnable.run(0)
            counted.append((case.key["kernels"], runnable.columns["kernels"]))
    (one, first), (two, second), (eight, last) = counted
    assert (one, two, eight) == (1, 2, 8)
    assert last - second == 6 * (second - first)
    # 7 products, 2 norms of at least 4 operators, attention, rotary, activation, 2 additions.
    assert 25 <= second - first <= 50


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
