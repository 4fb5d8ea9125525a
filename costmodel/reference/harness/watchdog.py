"""Ends a process that a case holds on to: code that hangs, or compiles past the end of the run."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Watchdog"]


class Watchdog:
    """Calls for help when a case takes too long.

    Nothing can interrupt a wait for a GPU, so that all that is left is to save what there is and
    to end the process; Python code runs in another thread meanwhile.

    Parameters
    ----------
    most_s : float
        What a case may take [s].
    grace_s : float
        How long after the end of the run one may still run [s].
    """

    def __init__(self, most_s: float = 300.0, grace_s: float = 45.0) -> None:
        self.most_s, self.grace_s = most_s, grace_s
        self._lock = threading.Lock()

    @contextmanager
    def over(self, deadline_s: float, help_me: Callable[[bool], None]) -> Iterator[None]:
        """Watch over one case.

        Parameters
        ----------
        deadline_s : float
            End of the run, on `time.monotonic` [s].
        help_me : callable
            Called from another thread, and told whether the case itself took too long, rather
            than came too late.  The case does not go on until it returns, if ever.
        """
        late_s = deadline_s + self.grace_s - time.monotonic()
        seconds = min(self.most_s, max(late_s, 0.0))
        if math.isinf(seconds):
            yield
            return
        done = False

        def bark() -> None:
            with self._lock:
                if not done:
                    help_me(self.most_s <= late_s)

        timer = threading.Timer(seconds, bark)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                done = True
