"""How far predicted times are from measured ones, in a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.timing.kernels.base import FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Errors", "errors_of"]


@dataclass(frozen=True)
class Errors:
    """How far predictions are from measurements; None where there is nothing to judge.

    Attributes
    ----------
    n : int
        Shapes judged, each by the median of its measurements.
    mape_pct, median_ape_pct, p90_ape_pct : float, optional
        Mean, median and 90th percentile of the absolute error [%].
    bias_pct : float, optional
        Mean of predicted over measured time less one [%].
    coverage90_pct : float, optional
        Share of measured times within the 90 % band [%].
    roofline_mape_pct : float, optional
        Mean absolute error of the datasheet roofline [%].
    """

    n: int
    mape_pct: float | None = None
    median_ape_pct: float | None = None
    p90_ape_pct: float | None = None
    bias_pct: float | None = None
    coverage90_pct: float | None = None
    roofline_mape_pct: float | None = None


def errors_of(points: pd.DataFrame) -> Errors:
    """Return the errors of some shapes.

    Parameters
    ----------
    points : pandas.DataFrame
        ``time_s``, ``roofline_s`` and, where predicted, ``predicted_s``, ``low_s`` and
        ``high_s`` [s].

    Returns
    -------
    Errors

    Examples
    --------
    >>> import pandas as pd
    >>> errors_of(pd.DataFrame({"time_s": [2e-5, 4e-5], "roofline_s": [1e-5, 2e-5]}))
    ... # doctest: +NORMALIZE_WHITESPACE
    Errors(n=2, mape_pct=None, median_ape_pct=None, p90_ape_pct=None, bias_pct=None,
           coverage90_pct=None, roofline_mape_pct=50.0)
    """
    if points.empty:
        return Errors(0)

    def values(name: str) -> FloatArray:
        return points[name].to_numpy(dtype=np.float64)

    measured = values("time_s")
    roofline = _percent(np.abs(values("roofline_s") / measured - 1.0).mean())
    if "predicted_s" not in points:
        return Errors(len(points), roofline_mape_pct=roofline)
    error = values("predicted_s") / measured - 1.0
    inside = (measured >= values("low_s")) & (measured <= values("high_s"))
    return Errors(
        n=len(points),
        mape_pct=_percent(np.abs(error).mean()),
        median_ape_pct=_percent(np.median(np.abs(error))),
        p90_ape_pct=_percent(np.quantile(np.abs(error), 0.9)),
        bias_pct=_percent(error.mean()),
        coverage90_pct=_percent(inside.mean()),
        roofline_mape_pct=roofline,
    )


def _percent(ratio: float | np.floating[Any]) -> float:
    return round(100.0 * float(ratio), 3)
