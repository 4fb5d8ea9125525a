"""A GPU made of clocks, where there is none: time is counted, not waited for.

It runs kernels in order on a clock of its own, ahead of which the host may be, and launches one
kernel of a graph after the other without the host.  As a real one it refuses to be waited for
while a graph is captured, and is left in disorder by a capture that fails: torch stays on the
captured stream.  Memory is counted: what a result holds is free again once it is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

CAPTURED = "CUDA error: operation not permitted when stream is capturing"
ENDED = "CUDA error: operation failed due to a previous error during capture"
CYCLES_PER_S = 2e9


class Block:
    """Memory of a result."""

    def __init__(self, device: Device, size: int) -> None:
        if device.alive_bytes + size > device.limit_bytes:
            import torch

            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size}.")
        self._device, self._size = device, size
        device.alive_bytes += size
        device.peak_bytes = max(device.peak_bytes, device.alive_bytes)

    def __del__(self) -> None:
        if hasattr(self, "_size"):
            self._device.alive_bytes -= self._size


class Device:
    """Kernels one after the other, and what they leave in memory."""

    def __init__(self) -> None:
        self.host_s = self.device_s = 0.0
        self.launch_s = 200e-6
        self.captured: list[float] | None = None
        self.captures = 0
        self.is_valid = True
        self.stream: Any = "default"
        self.alive_bytes = self.peak_bytes = 0
        self.limit_bytes = 1 << 40
        self.lost = ""

    def launch(self, kernel_s: float) -> None:
        if self.captured is not None:
            self.captured.append(kernel_s)
            return
        self.host_s += self.launch_s
        self.device_s = max(self.device_s, self.host_s) + kernel_s

    def result(self, size: int, kernel_s: float = 3e-6) -> Block:
        """Launch a kernel that writes so many bytes."""
        self.launch(kernel_s)
        return Block(self, size)

    def replay(self, kernels: list[float]) -> None:
        self.host_s += self.launch_s
        self.device_s = max(self.device_s, self.host_s) + sum(kernels)

    def wait(self) -> None:
        if self.lost:
            raise RuntimeError(self.lost)
        if self.captured is not None:
            self.is_valid = False
            raise RuntimeError(CAPTURED)
        self.host_s = self.device_s = max(self.device_s, self.host_s)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
    from costmodel.reference import graphs
    from costmodel.reference.harness import cuda_clock

    found = Device()

    class Event:
        at_s: float

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_s = max(found.device_s, found.host_s)

        def query(self) -> bool:
            return found.host_s >= self.at_s

        def synchronize(self) -> None:
            found.host_s = max(found.host_s, self.at_s)

        def elapsed_time(self, other: Event) -> float:
            assert other.query()
            return (other.at_s - self.at_s) * 1e3

    class Graph:
        kernels: list[float]

        def replay(self) -> None:
            found.replay(self.kernels)

    @contextmanager
    def capture(graph: Graph, stream: object, capture_error_mode: str) -> Any:
        found.wait()
        found.captured, found.captures, found.stream = [], found.captures + 1, stream
        try:
            yield
        finally:
            graph.kernels, found.captured = found.captured, None
            if not found.is_valid:
                found.is_valid = True
                raise RuntimeError(ENDED)
            found.stream = "default"

    def sleep(cycles: int) -> None:
        found.launch(cycles / CYCLES_PER_S)

    @contextmanager
    def on(stream: object) -> Any:
        before, found.stream = found.stream, stream
        yield
        found.stream = before

    class Stream:
        def __init__(self, device: int = 0) -> None:
            self.device = device

        def wait_stream(self, other: Stream) -> None:
            """Nothing runs beside anything else here."""

    before = Stream()
    fakes: dict[str, Any] = {
        "Event": Event, "CUDAGraph": Graph, "graph": capture, "synchronize": found.wait,
        "Stream": Stream, "current_stream": lambda: before, "stream": on,
        "current_device": lambda: 0, "_sleep": sleep, "default_generators": (SimpleNamespace(),),
        "set_stream": lambda stream: setattr(found, "stream", "default"),
        "empty_cache": lambda: None,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def busy() -> None:
        if found.lost:
            raise RuntimeError(found.lost)
        found.launch(0.3)

    load = SimpleNamespace(wake=lambda: None, start=busy)
    monkeypatch.setattr(cuda_clock, "Load", lambda device: load)
    monkeypatch.setattr(torch, "rand", lambda size, device: found.wait())
    monkeypatch.setattr(time, "perf_counter", lambda: found.host_s)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(found.host_s * 1e9))
    graphs._stream.cache_clear()
    yield found
    graphs._stream.cache_clear()
    graphs._broken.clear()
