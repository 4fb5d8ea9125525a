"""What was tried in vain: written down, and left out where trying again would cost a run."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .case import Case
from .store import Layout, Store

__all__ = ["ENDED", "Attempts"]

ENDED = "the process ended while this was measured"
"""Reason of a case in flight that no reason was written down for."""

_MOST = 2
_FILE, _IN_FLIGHT = "failures.jsonl", "in-flight.json"


class Attempts:
    """Failures of this run and of earlier ones into the same files.

    A case that failed twice is not tried a third time, nor is one again after which the device
    was lost.  Whoever has put things right removes ``failures.jsonl``.

    Parameters
    ----------
    layout : Layout
        Where they are written.
    store : Store
        Tells cases of one machine and software from those of another.
    """

    def __init__(self, layout: Layout, store: Store) -> None:
        self._file, self._in_flight = layout.beside(_FILE), layout.beside(_IN_FLIGHT)
        self._store = store
        self._write_what_ended_a_process()
        self._times: Counter[str] = Counter()
        for entry in _entries(self._file):
            self._times[str(entry.get("case", ""))] += _MOST if entry.get("lost_device") else 1

    def is_given_up(self, case: Case) -> bool:
        """Whether earlier runs tried a case often enough."""
        return self._times[self._identity(case)] >= _MOST

    def start(self, case: Case) -> None:
        """Say that a case is being measured, should the process end."""
        self._in_flight.write_text(json.dumps(self._entry(case)), encoding="utf-8")

    def end(self) -> None:
        """Say that no case is being measured."""
        with contextlib.suppress(FileNotFoundError):
            self._in_flight.unlink()

    def fail(self, case: Case, reason: str, lost_device: bool = False) -> None:
        """Write down why a case has no row."""
        self._append({**self._entry(case), "reason": reason, "lost_device": lost_device})

    def _identity(self, case: Case) -> str:
        return f"{case.kind} {self._store.identity(case)}"

    def _entry(self, case: Case) -> dict[str, Any]:
        key = dict(case.key)
        return {"suite": case.suite, "kind": case.kind, "key": key, "case": self._identity(case)}

    def _write_what_ended_a_process(self) -> None:
        for entry in _entries(self._in_flight):
            self._append({**entry, "reason": ENDED, "lost_device": False})
        self.end()

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "at": round(time.time(), 3)}) + "\n")


def _entries(path: Any) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found
