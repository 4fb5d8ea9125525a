"""Runs cases one after the other: budget, interruption, failures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from .case import Case
from .clock import time_runnable
from .conditions import conditions
from .inputs import Inputs, Pool, Rotation
from .progress import Progress
from .store import Layout, Store
from .timing import Limits

__all__ = ["Outcome", "Runner"]

_CONDITIONS_S = 10.0

Conditions = dict[str, str | float]


@dataclass
class Outcome:
    """What came of a run.

    Attributes
    ----------
    measured, skipped, failed, left : int
        Cases that were timed, were there already, could not run, were not started.
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
    ) -> None:
        self._device, self._store, self._rotation, self._limits = device, store, rotation, limits
        self._failures = layout.beside("failures.jsonl")
        self._pool = Pool(device, seed)
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
        self._note(every_s=0.0)
        done = 0
        try:
            for done, case in enumerate(wanted):
                if time.monotonic() - start >= budget_s or outcome.broken:
                    break
                progress.update(done, case.label)
                self._one(case, limits, outcome)
                self._note(_CONDITIONS_S)
            else:
                progress.update(len(wanted), "done")
        except KeyboardInterrupt:
            outcome.interrupted = True
        finally:
            progress.close()
            self._note(every_s=0.0)
            self._store.flush()
        outcome.left = len(wanted) - outcome.measured - outcome.failed
        return outcome

    def _one(self, case: Case, limits: Limits, outcome: Outcome) -> None:
        try:
            measured = self._measure(case, limits)
        except Exception as error:
            # Whatever it was, the other cases can still be measured; it is written down.
            reason = _first_line(error)
            self._pool.clear()
            outcome.failed += 1
            outcome.reasons[reason] = outcome.reasons.get(reason, 0) + 1
            outcome.broken = self._broken()
            self._fail(case, reason)
        else:
            self._store.add(case, measured)
            outcome.measured += 1

    def _measure(self, case: Case, limits: Limits) -> dict[str, Any]:
        import torch

        inputs = Inputs(self._pool, case.dtype, self._rotation)
        with torch.inference_mode():
            runnable = case.prepare(inputs)
        timing = time_runnable(runnable, self._device, limits)
        total = runnable.rotation_bytes
        return {
            **timing.columns(),
            **runnable.columns,
            "rotation_sets": runnable.sets,
            "rotation_bytes": total,
            "cache_bytes": self._rotation.cache_bytes,
            "rotates_beyond_cache": self._rotation.exceeds_cache(total),
        }

    def _broken(self) -> str:
        """Return why the device can run nothing more; empty if it can."""
        if not self._device.startswith("cuda"):
            return ""
        import torch

        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            return _first_line(error)
        return ""

    def _fail(self, case: Case, reason: str) -> None:
        entry = {"suite": case.suite, "kind": case.kind, "key": dict(case.key), "reason": reason}
        with self._failures.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "at": round(time.time(), 3)}) + "\n")

    def _note(self, every_s: float) -> None:
        """Note clocks and temperatures, if the last time was long ago."""
        if time.monotonic() - self._noted >= every_s or not self.conditions:
            self.conditions.append(conditions(self._device))
            self._noted = time.monotonic()
            self._told(self.conditions)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
