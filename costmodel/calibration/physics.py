"""Timings that cannot be: faster than the arithmetic allows, or in another unit.

What each kind is checked for:

gemm, attention
    Every row against the device's dense peak, and the median against the roofline.
    Traffic to device memory is no bound of a row: operands that stay in the
    second-level cache are read faster than memory delivers.
memory_bound, collective
    Only the median, and coarsely: caches, gathers, links between nodes and switches
    that reduce in flight move single rows by more than any bound could forgive.
kernel
    Nothing: there are no shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costmodel.calibration.dtypes import DTYPES
from costmodel.calibration.report import Problem, Tally
from costmodel.calibration.schema import Timings
from costmodel.calibration.work import BYTES, FLOPS, FloatArray, column
from costmodel.errors import SpecError
from costmodel.specs.hardware import HardwareProfile

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PEAK_MARGIN", "check_physics", "check_unit", "peak_limit_flops_per_s"]

PEAK_MARGIN = 1.02
"""Times the peak that a row may reach.

Covers datasheets rounded to two or three digits and clocks rounded to 15 MHz.  The best of
340,000 public matrix products reaches 0.97 of the peak, so the margin costs no good row;
corrupt ones exceed it by up to 370 times.
"""

SLOW = 300.0
"""Median time over the expected one at which a unit is refused as too small (ns as us).

Medians of public data lie between 1.1 and 18 times, the latter for links between nodes.
"""

FAST = 1 / 30
"""The same for too large units (ms or s as us): no median beats the expected time so far."""

MIN_ROWS = 8
"""Rows whose median says more than a few outliers among them."""

FLOOR_S = 5e-6
"""A kernel that does nothing takes some microseconds [s]; small shapes would mislead else."""

_UNIT_STEPS = {-2: "s", -1: "ms", 1: "ns"}


def peak_limit_flops_per_s(profile: HardwareProfile, dtype: str) -> float | None:
    """Return the rate that no kernel of a format can exceed.

    The fastest accumulator and engine count, at the boost clock, which is above the one
    that some datasheets quote tensor rates at.

    Parameters
    ----------
    profile : HardwareProfile
        The device.
    dtype : str
        A key of `DTYPES`.

    Returns
    -------
    float or None
        Rate [FLOP/s]; None where the device has no rate of the format's arithmetic.

    Examples
    --------
    >>> from costmodel.catalog.hardware import load_gpu
    >>> round(peak_limit_flops_per_s(load_gpu("a30"), "w4a16") / 1e12)
    165
    >>> round(peak_limit_flops_per_s(load_gpu("h100-sxm"), "bf16") / 1e12)  # 989.4 at 1830 MHz
    1070
    """
    quoted = profile.tensor_boost_clock or profile.boost_clock
    faster = max(1.0, profile.boost_clock.si / quoted.si)
    rates = [
        peak.si * (faster if peak.engine == "tensor" else 1.0)
        for peak in profile.peaks
        if dtype in DTYPES and peak.dtype in DTYPES[dtype].computes_in
    ]
    return max(rates, default=None)


def check_physics(
    timings: Timings, profile: HardwareProfile
) -> tuple[npt.NDArray[np.bool_], list[Problem]]:
    """Find rows of one device that compute faster than it can.

    Parameters
    ----------
    timings : Timings
        Valid rows; those of other devices are kept unseen.
    profile : HardwareProfile
        The device.

    Returns
    -------
    keep : ndarray of bool
        False for impossible rows.
    problems : list of Problem
        Dropped rows, and formats that could not be checked.
    """
    frame, tally = timings.frame, Tally(timings.path)
    keep = np.ones(len(frame), dtype=bool)
    if timings.kind not in FLOPS:
        return keep, []
    rate = FLOPS[timings.kind](frame) / (column(frame, "time_us") * 1e-6)
    here = (frame["gpu"] == profile.name).to_numpy(dtype=bool)
    rows = frame.index.to_numpy()
    for dtype in frame["dtype"][here].unique():
        these = here & (frame["dtype"] == dtype).to_numpy(dtype=bool)
        limit = peak_limit_flops_per_s(profile, str(dtype))
        if limit is None:
            reason = f"{profile.name} has no peak rate of {dtype}: not checked against it"
            tally.add(reason, rows[these], dropped=False)
            continue
        bad = these & (rate > PEAK_MARGIN * limit)
        reason = (
            f"time_us: {timings.kind} faster than the {dtype} peak of {profile.name}, "
            f"{limit / 1e12:.4g} TFLOP/s"
        )
        tally.add(reason, rows[bad])
        keep &= ~bad
    return keep, tally.problems()


def _expected_s(kind: str, frame: pd.DataFrame, profile: HardwareProfile) -> FloatArray:
    """Roofline time plus the floor of a launch [s]."""
    if kind == "collective":
        return FLOOR_S + column(frame, "bytes") / profile.link_bytes_per_s
    expected = np.full(len(frame), FLOOR_S)
    for dtype in frame["dtype"].unique():
        these = (frame["dtype"] == dtype).to_numpy(dtype=bool)
        some, size = frame[these], DTYPES[str(dtype)]
        moved = BYTES[kind](some, size.activation_bytes, size.weight_bytes)
        roof = moved / profile.bandwidth_bytes_per_s
        limit = peak_limit_flops_per_s(profile, str(dtype))
        if kind in FLOPS and limit is not None:
            roof = np.maximum(roof, FLOPS[kind](some) / limit)
        expected[these] += roof
    return expected


def check_unit(timings: Timings, profiles: Mapping[str, HardwareProfile]) -> None:
    """Refuse times in another unit than microseconds.

    The median of all rows counts and, since a file may join several, that of each source and
    software stack with at least `MIN_ROWS` rows.

    Parameters
    ----------
    timings : Timings
        Valid rows.
    profiles : mapping of str to HardwareProfile
        Devices by name; rows of others are not looked at.

    Raises
    ------
    SpecError
        If a median is `SLOW` times above or `FAST` times below the expected time.
    """
    import pandas as pd

    if timings.kind not in BYTES and timings.kind != "collective":
        return
    ratios = []
    for name, rows in timings.frame.groupby("gpu"):
        # A processor's calls cost what no datasheet says, and its profile is from the same clock.
        if name in profiles and not profiles[str(name)].is_processor:
            expected = _expected_s(timings.kind, rows, profiles[str(name)])
            ratio = column(rows, "time_us") * 1e-6 / expected
            ratios.append(rows[["source", "software"]].assign(ratio=ratio))
    if not ratios:
        return
    judged = pd.concat(ratios)
    _check_median(timings, judged["ratio"], "")
    for (source, software), group in judged.groupby(["source", "software"]):
        if len(group) >= MIN_ROWS:
            by = f"{source} {software}".strip()
            _check_median(timings, group["ratio"], f" of {by}" if by else "")


def _check_median(timings: Timings, ratios: pd.Series[Any], by: str) -> None:
    ratio = float(ratios.median())
    if FAST < ratio < SLOW:
        return
    step = int(np.clip(round(np.log10(ratio) / 3), -2, 1)) or (1 if ratio > 1 else -1)
    raise SpecError(
        f"{timings.path}: time_us: the median {timings.kind} row{by} takes {ratio:.2g} times what "
        f"its device needs by the datasheet; are the times in {_UNIT_STEPS[step]} instead of us, "
        "or from another device?"
    )
