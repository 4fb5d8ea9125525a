"""Runs the steps of a plan one after the other, each in a process of its own.

A step that fails, crashes or hangs does not stop the next.  Nothing of the project is imported:
the folder costmodel/reference is started as ``python -m reference``, beside a link to it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks.loop.plan import SMOKE_SHARE, Step, budget_s

__all__ = ["Options", "StepResult", "run_session"]

REFERENCE = Path(__file__).resolve().parents[2] / "costmodel" / "reference"
CHECK, SMOKE = Step("check", "", 0), Step("smoke", "", 0)
_CHECK_S, _SMOKE_S = 90.0, 45.0
_GRACE_S = 60.0
"""For the case in flight when a budget ends, as a pass that is compiled: the harness itself ends
a process 45 s after its budget, having saved what there is."""
_STOP_S = 20.0
_LEAST_S = 5.0
_LAST_LINES = 40


@dataclass(frozen=True)
class Options:
    """Of a session.

    Attributes
    ----------
    work : Path
        Where timings and logs go; a session that is started again goes on there.
    minutes : float
        For everything.
    device, model, dtype : str
        Of the harness.
    run : int
        Which of the independent runs; sets the seed of random inputs.
    commit : str
        Of the checkout, where the device has no git.
    threads : int
        Of a processor; 0 for torch's own choice.
    quick : bool
        Small sizes and few samples everywhere, to rehearse.
    """

    work: Path
    minutes: float
    device: str = "cuda"
    model: str = "llava-1.5-7b"
    dtype: str = "bf16"
    run: int = 1
    commit: str = ""
    threads: int = 0
    quick: bool = False

    @property
    def timings(self) -> Path:
        """Folder of the timings that count."""
        return self.work / "timings"


@dataclass
class StepResult:
    """What came of a step.

    Attributes
    ----------
    name : str
        Of the step.
    budget_s, took_s : float
        Seconds it had, and took.
    code : int or None
        Exit code; negative for a signal, None where there was no time for it.
    lines : list of str
        What it said at the end.
    """

    name: str
    budget_s: float
    took_s: float = 0.0
    code: int | None = None
    lines: list[str] = field(default_factory=list)


def run_session(
    steps: Sequence[Step],
    options: Options,
    after_step: Callable[[list[StepResult]], None] = lambda results: None,
) -> list[StepResult]:
    """Ask what can be measured, try every suite, then measure.

    Parameters
    ----------
    steps : sequence of Step
        In the order to run.
    options : Options
        Where and for how long.
    after_step : callable
        Called after each with all results, so that whatever was measured can be kept.

    Returns
    -------
    list of StepResult
        Those of the check and of the trial first.
    """
    end = time.monotonic() + 60 * options.minutes
    (options.work / "logs").mkdir(parents=True, exist_ok=True)
    link = options.work / "reference"
    if not link.exists():
        link.symlink_to(REFERENCE, target_is_directory=True)
    budget = min(_SMOKE_S, SMOKE_SHARE * 60 * options.minutes)
    suites = ",".join(dict.fromkeys(step.suite for step in steps))
    results = []
    for step, seconds in ((CHECK, _CHECK_S), (replace(SMOKE, suite=suites), budget)):
        results.append(_run(step, replace(options, quick=True), seconds, end))
        _told(results, options, after_step)
    for index, step in enumerate(steps):
        left = end - time.monotonic() - _STOP_S
        budget = max(budget_s(steps[index:], left), _LEAST_S)
        if left < _LEAST_S:
            results.append(StepResult(step.name, 0.0, lines=["no time left"]))
        else:
            results.append(_run(step, options, budget, end))
        _told(results, options, after_step)
    return results


def _told(
    results: list[StepResult],
    options: Options,
    after_step: Callable[[list[StepResult]], None],
) -> None:
    last = results[-1]
    print(f"== {last.name}: {last.took_s:.0f} of {last.budget_s:.0f} s, exit code {last.code}")
    print("\n".join(f"   {line}" for line in last.lines), flush=True)
    _record(results, options)
    after_step(results)


def _record(results: list[StepResult], options: Options) -> None:
    """Put the steps of this session behind those of earlier ones in the same folder."""
    path = options.work / "session.json"
    sessions = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if len(results) > 1:
        sessions.pop()
    asked = {name: str(value) for name, value in asdict(options).items() if name != "work"}
    sessions.append({"options": asked, "steps": [asdict(one) for one in results]})
    path.write_text(json.dumps(sessions, indent=2) + "\n", encoding="utf-8")


def _words(step: Step, options: Options, budget: float) -> list[str]:
    trial = step.name == SMOKE.name
    words = [sys.executable, "-m", "reference", "--device", options.device]
    words += ["--dtype", options.dtype]
    if step.name == CHECK.name:
        return [*words, "--check"]
    words += ["--suite", step.suite, "--seed", str(options.run - 1)]
    words += ["--budget", f"{budget:.0f}", "-o", "trial" if trial else options.timings.name]
    if not trial:
        words += ["--model", step.model or options.model]
    if options.quick:
        words += ["--quick"]
    if options.threads:
        words += ["--threads", str(options.threads)]
    return words + (["--tokens", ",".join(map(str, step.tokens))] if step.tokens else [])


def _run(step: Step, options: Options, budget: float, end: float) -> StepResult:
    """Run the harness; stop it in earnest when its budget is long over or all time is up."""
    start = time.monotonic()
    log = options.work / "logs" / f"{step.name}.log"
    with log.open("a", encoding="utf-8") as file:
        before = file.tell()
        process = subprocess.Popen(
            _words(step, options, budget),
            cwd=options.work,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        longest = min(budget + _GRACE_S, end - _STOP_S - start)
        code = _wait(process, max(longest, _LEAST_S))
    lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
    return StepResult(step.name, budget, time.monotonic() - start, code, lines[-_LAST_LINES:])


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        # As Ctrl-C: rows are written before it ends.  Compilers are in its group.
        os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
