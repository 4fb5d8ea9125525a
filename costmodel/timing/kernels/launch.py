r"""Host and GPU as two queues: what the GPU waits for the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from costmodel.specs.calibration import HostFit
from costmodel.specs.runtime import RuntimeProfile
from costmodel.timing.kernels.base import FloatArray

__all__ = ["HostCosts", "StageLines", "stage_lines", "stage_time_s"]


@dataclass(frozen=True)
class HostCosts:
    """What a runtime costs.

    Attributes
    ----------
    launch_s : float
        Host time per kernel [s].
    start_s : float
        Host time before the first kernel of a stage [s].
    gap_s : float
        Idle time of the GPU between queued kernels [s].
    sync_s : float
        From the last kernel's end until the host goes on [s].
    launch_low_s, launch_high_s : float, optional
        Range of `launch_s` [s].
    """

    launch_s: float
    start_s: float
    gap_s: float
    sync_s: float
    launch_low_s: float | None = None
    launch_high_s: float | None = None

    @classmethod
    def of(cls, profile: RuntimeProfile) -> HostCosts:
        """Return the SI numbers of a runtime.

        Examples
        --------
        >>> from costmodel.catalog.runtimes import load_runtime
        >>> HostCosts.of(load_runtime("eager")).start_s
        0.0
        """
        return cls(
            launch_s=profile.launch.si,
            start_s=profile.start.si if profile.start else 0.0,
            gap_s=profile.gap.si if profile.gap else 0.0,
            sync_s=profile.sync.si,
            launch_low_s=profile.launch_low.si if profile.launch_low else None,
            launch_high_s=profile.launch_high.si if profile.launch_high else None,
        )

    @classmethod
    def measured(cls, fit: HostFit) -> HostCosts:
        """Return what a calibration measured."""
        return cls(
            launch_s=fit.launch_s, start_s=fit.start_s, gap_s=fit.gap_s, sync_s=fit.sync_s,
            launch_low_s=fit.launch_low_s, launch_high_s=fit.launch_high_s,
        )  # fmt: skip

    def at_launch(self, end: Literal["low", "mid", "high"]) -> HostCosts:
        """Return the costs with the launch at one end of its range.

        Examples
        --------
        >>> costs = HostCosts(4e-6, 0.0, 0.0, 0.0, launch_high_s=9e-6)
        >>> costs.at_launch("high").launch_s, costs.at_launch("low").launch_s
        (9e-06, 4e-06)
        """
        ends = {"low": self.launch_low_s, "mid": None, "high": self.launch_high_s}
        chosen = ends[end]
        return replace(self, launch_s=self.launch_s if chosen is None else chosen)


def stage_time_s(
    gpu_s: npt.ArrayLike, launches: npt.ArrayLike, syncs: npt.ArrayLike, costs: HostCosts
) -> FloatArray:
    r"""Return how long a stage's GPU waits for the host [s].

    The host runs ahead of the GPU, so that launches cost nothing while
    kernels are long, and everything while they are short.  For n kernels of G
    seconds together, with host time l per kernel, a start s and a gap g,

    .. math:: t = s + \max(l + G + n g,\; n l + G/n)

    The first term is a GPU that never waits after its first kernel, the
    second a host that is always late, its last kernel done after the last
    launch.  A synchronisation drains the queue: with k of them the stage is
    k + 1 equal parts, each paying s and l anew, and k times the way back to
    the host.  What is returned is t - G.

    Parameters
    ----------
    gpu_s : array_like
        Kernel times of the stage [s].
    launches : array_like
        Kernels started.
    syncs : array_like
        Times the host waits for a result.
    costs : HostCosts
        The runtime.

    Returns
    -------
    ndarray
        Exposed host time [s], at least 0.

    Examples
    --------
    >>> costs = HostCosts(launch_s=10e-6, start_s=0.0, gap_s=0.0, sync_s=0.0)
    >>> (stage_time_s([1e-3, 1e-6], 10.0, 0.0, costs) * 1e6).round(1).tolist()
    [10.0, 99.1]
    """
    lines = stage_lines(launches, syncs, costs)
    gpu = np.asarray(gpu_s, dtype=np.float64)
    return np.maximum(lines.ahead_s, lines.behind_s - gpu * lines.hidden)


@dataclass(frozen=True)
class StageLines:
    """Exposed host time of a stage as the larger of two lines over its GPU time G.

    ``max(ahead_s, behind_s - hidden * G)`` [s].

    Attributes
    ----------
    ahead_s : ndarray
        What a GPU that always has work still waits [s].
    behind_s : ndarray
        What it waits in all while its kernels take no time [s].
    hidden : ndarray
        Share of G that passes while the host is late anyway, in [0, 1).
    """

    ahead_s: FloatArray
    behind_s: FloatArray
    hidden: FloatArray


def stage_lines(launches: npt.ArrayLike, syncs: npt.ArrayLike, costs: HostCosts) -> StageLines:
    """Return what `stage_time_s` computes, before GPU times are known.

    Parameters
    ----------
    launches, syncs, costs
        As in `stage_time_s`.

    Returns
    -------
    StageLines

    Examples
    --------
    >>> lines = stage_lines(10.0, 0.0, HostCosts(10e-6, 0.0, 0.0, 0.0))
    >>> [round(float(x), 6) for x in (lines.ahead_s, lines.behind_s, lines.hidden)]
    [1e-05, 0.0001, 0.9]
    """
    kernels = np.asarray(launches, dtype=np.float64)
    waits = np.asarray(syncs, dtype=np.float64)
    parts = waits + 1.0
    count = kernels / parts
    idle = waits * costs.sync_s
    # Less than one kernel in a part is no reason for a part to take less than one launch.
    busy = kernels > 0.0
    return StageLines(
        np.where(busy, parts * (costs.start_s + costs.launch_s + costs.gap_s * count) + idle, idle),
        np.where(busy, parts * (costs.start_s + costs.launch_s * count) + idle, idle),
        1.0 - 1.0 / np.maximum(count, 1.0),
    )
