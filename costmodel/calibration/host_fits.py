"""Host costs of runtimes from timings of launches."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from costmodel.calibration.schema import Timings
from costmodel.specs.calibration import HostFit
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.workload import Runtime

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HOST_COSTS", "host_fits"]

HOST_COSTS = ("launch", "start", "gap", "sync")
"""Values of ``op`` in launch timings, as of `costmodel.specs.runtime.RuntimeProfile`."""

_MICRO = 1e-6
_EAGER, _COMPILED, _GRAPH = "eager", "compiled", "cuda-graph"
_TIMES = ("time_us", "time_us_min", "time_us_mean")


def host_fits(
    timings: Sequence[Timings], profile: HardwareProfile, date: datetime.date
) -> tuple[HostFit, ...]:
    r"""Return the host costs of every runtime that was measured.

    Rows whose ``op`` is one of `HOST_COSTS` say a cost.  Other costs come from rows over several
    numbers of kernels n: the host's time of a ``call`` is a start and a launch for each kernel,

    .. math:: t_\mathrm{call}(n) = s + n\,l

    and the gap of a runtime is what a kernel takes there beyond what it takes where times of
    kernels were measured (``kernel``), in batches that follow each other in a graph: the slope
    of ``replay`` over n for ``cuda-graph``, and ``queued`` for kernels launched one by one.
    Compiled code launches into the same queue as eager code, whose gap and sync it takes.  Of
    eager code a ``launch`` is torch's alone, and a ``call`` has the code of the modules around it:
    where both were measured that is the launch, and torch's the lower end of its range.  Nothing
    has to come before its first kernel, so that it has no start unless a row says so.

    A processor that is its own host starts no kernels on another device: what calling one
    costs is part of the kernel's measured time, so that its host costs are nothing.

    Parameters
    ----------
    timings : sequence of Timings
        Rows of one device; those of other kinds than ``launch`` are not looked at.
    profile : HardwareProfile
        The device.
    date : date
        Recorded as the date of the fit.

    Returns
    -------
    tuple of HostFit
        Medians of the rows; the range of a launch is from the least minimum to the largest
        mean of them, or of slopes through these, and holds the median.  A runtime of which no
        launch is known is left out.
    """
    if profile.is_processor:
        return tuple(_nothing(runtime, date) for runtime in get_args(Runtime))
    frames = [item.frame for item in timings if item.kind == "launch"]
    if not frames:
        return ()
    import pandas as pd

    rows = pd.concat(frames)
    found = (_fit(runtime, rows, date) for runtime in get_args(Runtime))
    return tuple(fit for fit in found if fit is not None)


def _fit(runtime: str, rows: pd.DataFrame, date: datetime.date) -> HostFit | None:
    own = rows[rows["runtime"] == runtime]
    launches = _launches(own)
    if not launches:
        return None
    line = _line(own, "call", "time_us")
    start = _median(own, "start")
    if start is None:
        start = max(line[0], 0.0) if line and runtime != _EAGER else 0.0
    sync = _median(own, "sync")
    if sync is None and runtime == _COMPILED:
        sync = _median(rows[rows["runtime"] == _EAGER], "sync")
    gap = _gap(runtime, rows)
    return HostFit(
        runtime=runtime,
        launch_s=launches[0] * _MICRO,
        launch_low_s=min(launches) * _MICRO,
        launch_high_s=max(launches) * _MICRO,
        start_s=start * _MICRO,
        gap_s=gap * _MICRO,
        sync_s=(sync or 0.0) * _MICRO,
        source=", ".join(sorted(set(own["source"]))),
        software=", ".join(sorted(set(own["software"]))),
        rows=len(own),
        fitted=date,
    )


def _launches(rows: pd.DataFrame) -> list[float]:
    """Return median, least and largest launch [us]; none where nothing says it."""
    direct = rows.loc[rows["op"] == "launch", list(_TIMES)]
    ends = [] if direct.empty else [direct.min(skipna=True).min(), direct.max(skipna=True).max()]
    lines = [_line(rows, "call", column) for column in _TIMES]
    if lines[0] is not None:
        slopes = [max(line[1], 0.0) for line in lines if line is not None]
        return [*slopes, *map(float, ends)]
    return [float(direct["time_us"].median()), *map(float, ends)] if ends else []


def _gap(runtime: str, rows: pd.DataFrame) -> float:
    """Return the gap of a runtime [us]; nothing where no row says it."""
    own, graphs = rows[rows["runtime"] == runtime], rows[rows["runtime"] == _GRAPH]
    said, kernel = _median(own, "gap"), _median(graphs, "kernel")
    if said is not None:
        return said
    if kernel is None:
        return 0.0
    if runtime == _GRAPH:
        line = _line(graphs, "replay", "time_us")
        taken = line[1] if line else None
    else:
        taken = _median(rows[rows["runtime"] == _EAGER], "queued")
    return 0.0 if taken is None else max(taken - kernel, 0.0)


def _median(rows: pd.DataFrame, op: str) -> float | None:
    times = rows.loc[rows["op"] == op, "time_us"]
    return None if times.empty else float(times.median())


def _line(rows: pd.DataFrame, op: str, column: str) -> tuple[float, float] | None:
    """Return intercept and slope of times over kernels [us], or None for fewer than two counts.

    Relative errors are made least, or the longest row alone would set the intercept.
    """
    part = rows.loc[(rows["op"] == op) & rows[column].notna(), ["kernels", column]]
    if part["kernels"].nunique() < 2:
        return None
    kernels, times = (part[name].to_numpy(dtype=np.float64) for name in ("kernels", column))
    slope, intercept = np.polyfit(kernels, times, 1, w=1.0 / np.maximum(times, 1e-3))
    return float(intercept), float(slope)


def _nothing(runtime: str, date: datetime.date) -> HostFit:
    return HostFit(
        runtime=runtime, launch_s=0.0, launch_low_s=0.0, launch_high_s=0.0,
        source="a processor runs its own kernels: calls are part of their times",
        software="", rows=0, fitted=date,
    )  # fmt: skip
