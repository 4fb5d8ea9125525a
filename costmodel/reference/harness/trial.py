"""One case: its row, or the reason why there is none and a device that can go on."""

from __future__ import annotations

import gc
from typing import Any

from .case import Case
from .clock import time_runnable
from .inputs import Inputs, Pool, Rotation
from .timing import Limits

__all__ = ["Trial"]


class Trial:
    """Measures cases on a device, and clears up after those that fail.

    Parameters
    ----------
    device : str
        As torch names it.
    rotation : Rotation
        Cache and memory.
    seed : int
        Of random inputs.
    """

    def __init__(self, device: str, rotation: Rotation, seed: int = 0) -> None:
        self._device, self._rotation = device, rotation
        self._pool = Pool(device, seed)

    def run(self, case: Case, limits: Limits) -> tuple[dict[str, Any], str]:
        """Measure a case, twice if memory ran out: the second time it has all there is.

        Parameters
        ----------
        case : Case
            To be measured.
        limits : Limits
            When to stop.

        Returns
        -------
        columns : dict
            Of the row; empty if there is none.
        reason : str
            Why there is none; empty if there is one.
        """
        columns, reason, was_memory = self._caught(case, limits)
        if reason:
            self._free()
        if was_memory and not self.lost():
            columns, reason, _ = self._caught(case, limits)
            if reason:
                self._free()
        return columns, reason

    def lost(self) -> str:
        """Return why the device can run nothing more; empty if it can."""
        if not self._device.startswith("cuda"):
            return ""
        import torch

        try:
            torch.cuda.synchronize()
            # A capture that failed may leave the generator unusable.
            torch.rand(1, device=self._device)
            torch.cuda.synchronize()
        except RuntimeError as error:
            return _first_line(error)
        return ""

    def _caught(self, case: Case, limits: Limits) -> tuple[dict[str, Any], str, bool]:
        try:
            return self._measure(case, limits), "", False
        except Exception as error:
            # Whatever it was, the other cases can still be measured; it is written down.  The
            # error itself goes no further: its traceback holds the tensors of the case.
            return {}, _first_line(error), _is_memory(error)

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

    def _free(self) -> None:
        """Give back whatever a failed case or those before it have taken."""
        import torch

        self._pool.clear()
        gc.collect()
        if self._device.startswith("cuda"):
            try:
                torch.cuda.empty_cache()
            except RuntimeError:
                # Of a lost device, which `lost` tells.
                return


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, also where a library or a compiler says so in its own words."""
    import torch

    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(w in str(error) for w in words)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
