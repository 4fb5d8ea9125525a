"""Starts the measuring process anew when a case takes it, or the GPU, with it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from .runner import LOST_DEVICE

__all__ = ["supervise"]

_MOST_STARTS = 20
# Not all systems have all signals.
_STOPPED = {getattr(signal, name, 0) for name in ("SIGINT", "SIGTERM", "SIGKILL", "SIGHUP")}


def supervise(
    command: Sequence[str],
    budget_s: float,
    stream: TextIO,
    most: int = _MOST_STARTS,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run a command again and again until it is through.

    A GPU that reported an illegal access or hangs serves no process that it happened in.  The
    files say what was measured and what cannot be, so that every start gets further.

    Parameters
    ----------
    command : sequence of str
        Program and words; ``--budget SECONDS`` is added.
    budget_s : float
        Time for all starts together [s].
    stream : TextIO
        Told about new starts.
    most : int
        Starts.
    clock : callable
        Seconds that go on.

    Returns
    -------
    int
        Exit code of the last start; 0 if the time was up.
    """
    end, code = clock() + budget_s, LOST_DEVICE
    for start in range(most):
        left_s = end - clock()
        if left_s <= 0:
            return 0
        if start:
            stream.write(f"the process ended ({code}); starting anew\n")
            stream.flush()
        budget = [] if math.isinf(left_s) else ["--budget", f"{left_s:.1f}"]
        code = _run([*command, *budget])
        crashed = code < 0 and -code not in _STOPPED
        if code != LOST_DEVICE and not crashed:
            return code if code >= 0 else 128 - code
    return 1


def _run(command: Sequence[str]) -> int:
    """Return the exit code; a signal to this process is the other's matter."""
    process = subprocess.Popen(command, stdout=sys.stdout, stderr=sys.stderr)
    before = {
        number: signal.signal(number, lambda number, _: _pass_on(process, number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(process: subprocess.Popen[bytes], number: int) -> None:
    # Ctrl-C reaches all processes of a terminal; a second one does no harm.
    if process.poll() is None and number == signal.SIGTERM:
        process.send_signal(signal.SIGINT)
