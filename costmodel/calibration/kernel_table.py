"""Kernel summaries: what a profiler says of kernels whose shapes it does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from costmodel.calibration.reading import Hints, Part

__all__ = ["kernel_part", "summarise"]


def kernel_part(
    columns: Mapping[str, Sequence[object]], hints: Hints, source: str, rows: Sequence[int]
) -> Part:
    """Return rows of kind ``kernel``.

    Parameters
    ----------
    columns : mapping of str to sequence
        ``name``, ``calls``, ``time_us``, ``total_us`` and, where known, ``bytes`` and ``gpu``.
    hints : Hints
        What the caller says.
    source : str
        The profiler.
    rows : sequence of int
        Rows of the file.
    """
    import pandas as pd

    frame = pd.DataFrame(dict(columns), index=np.array(rows, dtype=np.int64))
    return Part("kernel", frame.assign(source=hints.source or source))


def summarise(
    durations: Mapping[str, Sequence[float]], traffic: Mapping[str, float] | None = None
) -> dict[str, list[object]]:
    """Return the columns of kernels of which every execution is known, longest first.

    Parameters
    ----------
    durations : mapping of str to sequence of float
        Time of each execution [us] by kernel.
    traffic : mapping of str to float, optional
        Device memory traffic of all executions [B] by kernel.
    """
    total = {name: float(np.sum(times)) for name, times in durations.items()}
    names = sorted(total, key=lambda name: -total[name])
    known = traffic or {}
    return {
        "name": list(names),
        "calls": [len(durations[name]) for name in names],
        "time_us": [float(np.median(durations[name])) for name in names],
        "total_us": [total[name] for name in names],
        "bytes": [known.get(name, float("nan")) for name in names],
    }
