"""Host costs of runtimes from timings of launches."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

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


def host_fits(
    timings: Sequence[Timings], profile: HardwareProfile, date: datetime.date
) -> tuple[HostFit, ...]:
    """Return the host costs of every runtime that was measured.

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
        mean of them, and holds the median.
    """
    if profile.is_processor:
        return tuple(_nothing(runtime, date) for runtime in get_args(Runtime))
    frames = [item.frame for item in timings if item.kind == "launch"]
    if not frames:
        return ()
    import pandas as pd

    rows = pd.concat(frames)
    return tuple(
        _fit(runtime, part, date)
        for runtime in get_args(Runtime)
        if "launch" in set((part := rows[rows["runtime"] == runtime])["op"])
    )


def _fit(runtime: str, rows: pd.DataFrame, date: datetime.date) -> HostFit:
    costs = {
        op: float(rows.loc[rows["op"] == op, "time_us"].median()) * _MICRO
        for op in HOST_COSTS
        if (rows["op"] == op).any()
    }
    launches = rows[rows["op"] == "launch"]
    ends = launches[["time_us", "time_us_min", "time_us_mean"]]
    return HostFit(
        runtime=runtime,
        launch_s=costs["launch"],
        launch_low_s=float(ends.min(skipna=True).min()) * _MICRO,
        launch_high_s=float(ends.max(skipna=True).max()) * _MICRO,
        start_s=costs.get("start", 0.0),
        gap_s=costs.get("gap", 0.0),
        sync_s=costs.get("sync", 0.0),
        source=", ".join(sorted(set(rows["source"]))),
        software=", ".join(sorted(set(rows["software"]))),
        rows=len(rows),
        fitted=date,
    )


def _nothing(runtime: str, date: datetime.date) -> HostFit:
    return HostFit(
        runtime=runtime, launch_s=0.0, launch_low_s=0.0, launch_high_s=0.0,
        source="a processor runs its own kernels: calls are part of their times",
        software="", rows=0, fitted=date,
    )  # fmt: skip
