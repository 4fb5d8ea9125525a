"""Progress on stderr: a bar where someone watches, a line now and then elsewhere."""

from __future__ import annotations

import math
import shutil
import time
from typing import TextIO

__all__ = ["Progress", "duration_text"]

_EVERY_S = 10.0
_BAR = 24


def duration_text(seconds: float) -> str:
    """Return a duration in words.

    Examples
    --------
    >>> duration_text(7.2), duration_text(83), duration_text(3720)
    ('7 s', '1 min 23 s', '1 h 2 min')
    """
    whole = max(0, math.ceil(seconds - 0.5))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Tells how far a run is and how long it still takes.

    Parameters
    ----------
    stream : TextIO
        Where to.
    total : int
        Cases to be measured.
    budget_s : float
        After which no case is started [s].
    """

    def __init__(self, stream: TextIO, total: int, budget_s: float) -> None:
        self._stream, self._total, self._budget_s = stream, total, budget_s
        self._is_tty = stream.isatty()
        self._start = self._told = time.monotonic()

    def update(self, done: int, label: str) -> None:
        """Tell that `done` cases are through and which is next."""
        now = time.monotonic()
        if self._is_tty:
            filled = _BAR * done // max(self._total, 1)
            bar = "#" * filled + "-" * (_BAR - filled)
            line = f"[{bar}] {self._text(done, now)}  {label}"
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{line[:width]:<{width}}")
            self._stream.flush()
        elif now - self._told >= _EVERY_S:
            self._told = now
            self._stream.write(f"{self._text(done, now)}  {label}\n")
            self._stream.flush()

    def close(self) -> None:
        """End the line of the bar."""
        if self._is_tty:
            self._stream.write("\n")
            self._stream.flush()

    def left_s(self, done: int, now: float) -> float:
        """Return the expected time left [s]; NaN before the first case is through."""
        elapsed = now - self._start
        rest = elapsed / done * (self._total - done) if done else math.nan
        return min(rest, max(self._budget_s - elapsed, 0.0))

    def _text(self, done: int, now: float) -> str:
        left = self.left_s(done, now)
        return f"{done}/{self._total}" + (
            "" if math.isnan(left) else f", {duration_text(left)} left"
        )
