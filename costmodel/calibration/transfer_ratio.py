"""How a GPU compares with its sibling chip, from end-to-end times of both.

The RTX A6000 and the A40 are the same chip (GA102, 84 multiprocessors, 300 W).
Datasheets let expect 0.967 of the A40's time where arithmetic limits and 0.906
where memory does; llama.cpp runs [1]_ take 0.88 to 0.93 (prefill) and 0.84 to
0.88 (decode).  Both gaps point the same way: the A40 has ECC enabled by default
(46068 of 49140 MiB remain), which costs memory bandwidth too, and is cooled
passively with a lower sustained clock.  Kernel parameters fitted on the A40
therefore need a further factor on time; see `further_scale`.

References
----------
.. [1] https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference, commit aa72e0e.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import Chip

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FurtherScale", "further_scale", "ratio_summary", "time_ratios"]

_POINT = ["model", "phase", "tokens", "batch"]


@dataclass(frozen=True)
class FurtherScale:
    """Factors on predicted time beyond what datasheets explain.

    Attributes
    ----------
    compute, bandwidth : float
        For kernels limited by arithmetic and by memory.
    """

    compute: float
    bandwidth: float


def time_ratios(frame: pd.DataFrame, gpu: str, reference: str) -> pd.DataFrame:
    """Return time on `gpu` over time on `reference`, one GPU each.

    Parameters
    ----------
    frame : pandas.DataFrame
        gpu, n_gpus, model, phase, tokens, batch, time_ms, suspect.
    gpu, reference : str
        Names in the column ``gpu``.

    Returns
    -------
    pandas.DataFrame
        model, phase, tokens, batch, ratio; points measured on both, suspects left out.

    Raises
    ------
    CostModelError
        If no point was measured on both.
    """
    good = frame[(frame["n_gpus"] == 1) & ~frame["suspect"].astype(bool)]
    times = [
        good[good["gpu"] == name].groupby(_POINT)["time_ms"].median() for name in (gpu, reference)
    ]
    ratio = (times[0] / times[1]).dropna().rename("ratio")
    if ratio.empty:
        raise CostModelError(f"no end-to-end time was measured on both {gpu} and {reference}")
    return ratio.reset_index()


def ratio_summary(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return count, median, least and largest ratio by model and phase, and by phase.

    Parameters
    ----------
    ratios : pandas.DataFrame
        Of `time_ratios`.

    Returns
    -------
    pandas.DataFrame
        model (``all`` for every model), phase, n, median, low, high.
    """
    import pandas as pd

    both = pd.concat([ratios, ratios.assign(model="all")])
    grouped = both.groupby(["model", "phase"])["ratio"]
    return grouped.agg(n="size", median="median", low="min", high="max").reset_index()


def further_scale(ratios: pd.DataFrame, chip: Chip, reference: Chip) -> FurtherScale:
    r"""Return what remains of the ratios after the datasheets' share.

    .. math:: s_{compute} = \mathrm{median}(\rho_{prefill}) \frac{P}{P_{ref}},\qquad
              s_{bandwidth} = \mathrm{median}(\rho_{decode}) \frac{B}{B_{ref}}

    Parameters
    ----------
    ratios : pandas.DataFrame
        Of `time_ratios`; only 16-bit weights (F16 or BF16 in the model's name) count where
        there are any, because unpacking quantised weights is limited by neither.
    chip, reference : Chip
        Datasheet figures of both.

    Returns
    -------
    FurtherScale
        Multiply times predicted with the parameters of `reference` and the figures of `chip`.
    """
    wide = ratios[ratios["model"].str.contains("F16", case=False)]
    used = ratios if wide.empty else wide
    prefill = used.loc[used["phase"] == "prefill", "ratio"].to_numpy(dtype=np.float64)
    decode = used.loc[used["phase"] == "decode", "ratio"].to_numpy(dtype=np.float64)
    faster = chip.peak_flops_per_s / reference.peak_flops_per_s
    wider = chip.bandwidth_bytes_per_s / reference.bandwidth_bytes_per_s
    return FurtherScale(
        compute=float(np.median(prefill)) * faster if prefill.size else 1.0,
        bandwidth=float(np.median(decode)) * wider if decode.size else 1.0,
    )
