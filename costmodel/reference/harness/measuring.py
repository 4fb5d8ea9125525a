"""From a request to files: what `costmodel measure` and ``python -m reference`` both call."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .case import Case
from .choosing import chosen
from .errors import MeasureError
from .inputs import Rotation
from .machine import describe_machine
from .order import coarse_first, merged
from .profile import write_cpu_profile
from .progress import duration_text
from .registry import load_suite, suite_names
from .request import Request
from .runner import Outcome, Runner
from .store import Layout, Store
from .timing import Limits

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """What a measurement left behind.

    Attributes
    ----------
    outcome : Outcome
        Counts.
    files : tuple of Path
        Timing files with rows, and the profile of a CPU.
    seconds : float
        How long it took [s].
    """

    outcome: Outcome
    files: tuple[Path, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """130 after an interruption, 1 where nothing could be measured, else 0."""
        if self.outcome.interrupted:
            return 130
        nothing = not (self.outcome.measured or self.outcome.skipped)
        in_vain = self.outcome.failed + self.outcome.given_up
        return int(bool(self.outcome.broken) or (in_vain > 0 and nothing))

    def lines(self) -> list[str]:
        """Return the result in words."""
        counts = self.outcome
        text = f"{counts.measured} measured in {duration_text(self.seconds)}"
        text += f", {counts.skipped} there already" if counts.skipped else ""
        text += f", {counts.failed} failed" if counts.failed else ""
        text += f", {counts.given_up} that failed before not tried" if counts.given_up else ""
        text += f", {counts.left} left: run the same again to go on" if counts.left else ""
        lines = ["interrupted: " + text if counts.interrupted else text]
        lines += [f"failed ({n}): {reason}" for reason, n in counts.reasons.items()]
        if counts.given_up:
            lines.append("to try what failed before once more, remove failures.jsonl")
        if counts.broken:
            lines.append(f"stopped, because the device runs nothing more: {counts.broken}")
        return [*lines, *(f"wrote {path}" for path in self.files)]


def measure(request: Request, stream: TextIO) -> Measured:
    """Measure, or go on where an earlier run stopped.

    Parameters
    ----------
    request : Request
        What to measure.
    stream : TextIO
        For progress.

    Returns
    -------
    Measured

    Raises
    ------
    MeasureError
        If the request cannot be met, before anything is measured.
    """
    request.check()
    start = time.monotonic()
    cases = _cases(request)
    kinds = sorted({case.kind for case in cases})
    layout = Layout(request.output, kinds)
    layout.prepare()
    with _settings(request.threads):
        if request.device != "cpu":
            import torch

            torch.cuda.set_device(int(request.device.partition(":")[2] or 0))
        machine = describe_machine(request.device)
        run = uuid.uuid4().hex[:12]
        store = Store(
            layout,
            kinds,
            where={"gpu": machine.gpu, "source": request.source, "software": machine.software},
            run={"run": run, "threads": machine.settings["threads"]},
        )
        record = machine.record()
        store.record(run, record)
        rotation = Rotation(machine.cache_bytes, request.cap_bytes(machine.memory_bytes))
        limits = Limits(samples=request.samples, seconds=request.seconds)
        runner = Runner(
            request.device,
            store,
            layout,
            rotation,
            limits,
            request.seed,
            told=lambda noted: store.record(run, {**record, "conditions": noted}),
        )
        outcome = runner.run(cases, request.budget_s, stream)
    files = [layout.parquet(kind) for kind in kinds if store.rows(kind)]
    if machine.gpu == "cpu":
        files += write_cpu_profile(layout.beside("cpu.yaml"), machine, store)
    return Measured(outcome, tuple(files), time.monotonic() - start)


def _cases(request: Request) -> list[Case]:
    """Return the cases of all suites, each once, in the order to run."""
    lists = []
    for name in request.suites or suite_names():
        suite = load_suite(name)
        made = suite.cases(request.options)
        once = {(case.kind, *sorted(case.key.items())): case for case in reversed(made)}
        distinct = list(reversed(once.values()))
        lists.append(distinct if suite.ordered else coarse_first(distinct))
    cases = merged([some for some in lists if some])
    if not cases:
        raise MeasureError("suite: the chosen suites have no case for these options")
    return chosen(cases, request.where)


@contextlib.contextmanager
def _settings(threads: int | None) -> Iterator[None]:
    """Set torch's threads, and its choice of attention, for a while.

    Where whole models leave the choice to torch it shall be the flash attention whose kernels are
    timed; from torch 2.10 on it may prefer that of cuDNN on Hopper and later.
    """
    import torch

    before = torch.get_num_threads()
    is_cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cuda.enable_cudnn_sdp(is_cudnn)
