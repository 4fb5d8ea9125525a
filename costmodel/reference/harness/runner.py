"""Runs cases one after the other: budget, interruption, failures."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TextIO

from .attempts import Attempts
from .case import Case
from .conditions import conditions
from .inputs import Rotation
from .progress import Progress
from .store import Layout, Store
from .timing import Limits
from .trial import Trial
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .cuda_clock import Load

__all__ = ["LOST_DEVICE", "Outcome", "Runner"]

LOST_DEVICE = 75
"""Exit code of a process that a case held on to: a new one can go on (sysexits' EX_TEMPFAIL)."""

_CONDITIONS_S = 10.0
_PATIENCE_S = 5.0

Conditions = dict[str, str | float]


@dataclass
class Outcome:
    """What came of a run.

    Attributes
    ----------
    measured, skipped, failed, left : int
        Cases that were timed, were there already, could not run, were not started.
    given_up : int
        Cases that failed too often in earlier runs.
    interrupted : bool
        Whether the user stopped it.
    broken : str
        Why the device can run nothing more; empty if it can.
    reasons : dict of str to int
        Why cases failed, and how many for that reason.
    """

    measured: int = 0
    skipped: int = 0
    failed: int = 0
    left: int = 0
    given_up: int = 0
    interrupted: bool = False
    broken: str = ""
    reasons: dict[str, int] = field(default_factory=dict)


class Runner:
    """Times cases and stores the rows.

    Parameters
    ----------
    device : str
        As torch names it.
    store : Store
        Where rows go.
    layout : Layout
        Where failures go.
    rotation : Rotation
        Cache and memory.
    limits : Limits
        Of one case.
    seed : int
        Of random inputs.
    told : callable, optional
        Called with all notes of clocks and temperatures when there is a new one.
    watchdog : Watchdog, optional
        Looks after cases on a GPU.
    leave : callable, optional
        Ends the process at once with a code, when a case can be ended in no other way.

    Attributes
    ----------
    conditions : list of dict
        Those notes.
    """

    def __init__(
        self,
        device: str,
        store: Store,
        layout: Layout,
        rotation: Rotation,
        limits: Limits,
        seed: int = 0,
        told: Callable[[list[Conditions]], None] = lambda noted: None,
        watchdog: Watchdog | None = None,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._device, self._store, self._limits = device, store, limits
        self._trial = Trial(device, rotation, seed)
        self._attempts = Attempts(layout, store)
        self._watchdog, self._leave = watchdog or Watchdog(), leave
        self._load: Load | None = None
        self._longest_s: dict[tuple[str, object], float] = {}
        self._told, self._noted = told, 0.0
        self.conditions: list[Conditions] = []

    def run(self, cases: Sequence[Case], budget_s: float, stream: TextIO) -> Outcome:
        """Time all cases that are not stored yet.

        Parameters
        ----------
        cases : sequence of Case
            In the order to run.
        budget_s : float
            After which no case is started [s].
        stream : TextIO
            For progress.

        Returns
        -------
        Outcome
        """
        start = time.monotonic()
        limits = replace(self._limits, deadline_s=start + budget_s)
        wanted = [case for case in cases if not self._store.has(case)]
        outcome = Outcome(skipped=len(cases) - len(wanted))
        progress = Progress(stream, len(wanted), budget_s)
        try:
            self._get_ready()
            self._note(every_s=0.0)
            for done, case in enumerate(wanted):
                if time.monotonic() - start >= budget_s or outcome.broken:
                    break
                if self._attempts.is_given_up(case):
                    outcome.given_up += 1
                elif self._fits(case, limits):
                    progress.update(done, case.label)
                    self._one(case, limits, outcome, stream)
                    if not outcome.broken:
                        self._note(_CONDITIONS_S)
            else:
                progress.update(len(wanted), "done")
        except KeyboardInterrupt:
            outcome.interrupted = True
        finally:
            progress.close()
            self._attempts.end()
            # A load would wait for a device that may be lost.
            self._load = None
            self._note(every_s=0.0)
            self._store.flush()
            gc.unfreeze()
        outcome.left = len(wanted) - outcome.measured - outcome.failed - outcome.given_up
        return outcome

    @property
    def _on_gpu(self) -> bool:
        return self._device.startswith("cuda")

    def _get_ready(self) -> None:
        # Every capture of a graph collects garbage, through all objects of all imported modules.
        gc.collect()
        gc.freeze()
        if self._on_gpu:
            from .cuda_clock import Load

            self._load = Load(self._device)
            self._load.wake()

    def _fits(self, case: Case, limits: Limits) -> bool:
        """Whether a case is through before the end if it takes as long as the longest of its kind.

        Compiling may take a minute; other kinds can still use it.
        """
        longest = self._longest_s.get(_kind(case), 0.0)
        return longest <= _PATIENCE_S or time.monotonic() + longest <= limits.deadline_s

    def _one(self, case: Case, limits: Limits, outcome: Outcome, stream: TextIO) -> None:
        begin = time.monotonic()
        self._attempts.start(case)
        try:
            if self._on_gpu:
                with self._watchdog.over(
                    limits.deadline_s, lambda hangs: self._abandon(case, hangs, stream)
                ):
                    measured, reason = self._trial.run(case, limits)
            else:
                measured, reason = self._trial.run(case, limits)
        finally:
            took = time.monotonic() - begin
            self._longest_s[_kind(case)] = max(took, self._longest_s.get(_kind(case), 0.0))
        if reason:
            outcome.failed += 1
            outcome.reasons[reason] = outcome.reasons.get(reason, 0) + 1
            outcome.broken = self._trial.lost()
            self._attempts.fail(case, reason, bool(outcome.broken))
        else:
            self._store.add(case, measured)
            outcome.measured += 1
        self._attempts.end()

    def _abandon(self, case: Case, hangs: bool, stream: TextIO) -> None:
        """Save what there is and end the process: the case cannot be ended otherwise."""
        if hangs:
            reason = f"took longer than {self._watchdog.most_s:g} s"
            self._attempts.fail(case, reason, lost_device=True)
        else:
            reason = "was not through when the time was up"
        self._attempts.end()
        self._store.flush()
        stream.write(f"\n{case.label}: {reason}\n")
        stream.flush()
        self._leave(LOST_DEVICE)

    def _note(self, every_s: float) -> None:
        """Note clocks and temperatures, if the last time was long ago."""
        if time.monotonic() - self._noted >= every_s or not self.conditions:
            if self._load is not None:
                # Between two cases the device would be idle, and its clock on the way down.
                self._load.start()
            self.conditions.append(conditions(self._device))
            self._noted = time.monotonic()
            self._told(self.conditions)


def _kind(case: Case) -> tuple[str, object]:
    return case.suite, case.key.get("runtime")
