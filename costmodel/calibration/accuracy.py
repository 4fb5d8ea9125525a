"""One line of the accuracy table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.timing.kernels.base import FloatArray

__all__ = ["AccuracyRow", "Goal", "Targets", "judge"]

Goal = float | tuple[float, float]
"""Error that is asked for [%]: the mean alone, or the mean and the 90th percentile."""

Targets = tuple[Goal, Goal]
"""At most, and aimed at."""

LEAST_S = 10e-6
"""Public timings are rounded to a microsecond: shorter kernels are not judged [s]."""


@dataclass(frozen=True)
class AccuracyRow:
    """Error of one quantity on one stack, on shapes that were not fitted.

    Attributes
    ----------
    quantity : str
        What was predicted, for example a kernel kind.
    gpu, source, software, dtype : str
        Stack the measurements come from.
    n : int
        Rows judged.
    mape_pct, p90_pct, bias_pct : float
        Mean and 90th percentile of the absolute error, and mean error [%].
    roofline_mape_pct : float
        Mean absolute error of the datasheet roofline on the same rows [%].
    target_at_most, target_aim : float, optional
        Mean absolute error that is required and aimed at [%].
    target_at_most_p90, target_aim_p90 : float, optional
        90th percentile that is required and aimed at [%]; None if only the mean was.

    Examples
    --------
    >>> row = AccuracyRow("add", "a40", "", "", "", 9, 5.0, 13.0, 0.0, 30.0, 6.0, 4.0, 12.5, 9.0)
    >>> row.met, row.aim_met
    (False, False)
    """

    quantity: str
    gpu: str
    source: str
    software: str
    dtype: str
    n: int
    mape_pct: float
    p90_pct: float
    bias_pct: float
    roofline_mape_pct: float
    target_at_most: float | None = None
    target_aim: float | None = None
    target_at_most_p90: float | None = None
    target_aim_p90: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether both required errors were reached; None if none was set."""
        return self._reached(self.target_at_most, self.target_at_most_p90)

    @property
    def aim_met(self) -> bool | None:
        """Whether both errors aimed at were reached; None if none was set."""
        return self._reached(self.target_aim, self.target_aim_p90)

    def _reached(self, mape_pct: float | None, p90_pct: float | None) -> bool | None:
        if mape_pct is None:
            return None
        # An error of no rows is NaN, which reaches nothing.
        return self.mape_pct <= mape_pct and (p90_pct is None or self.p90_pct <= p90_pct)


def judge(
    quantity: str,
    stack: tuple[str, str, str, str],
    measured_s: FloatArray,
    predicted_s: FloatArray,
    roofline_s: FloatArray,
    *,
    targets: Targets | None = None,
    least_s: float = LEAST_S,
) -> AccuracyRow:
    """Compare predictions with measurements.

    Parameters
    ----------
    quantity : str
        What was predicted.
    stack : tuple of str
        GPU, source, software and dtype.
    measured_s, predicted_s, roofline_s : ndarray
        Times of the same rows [s].
    targets : tuple of Goal, optional
        At most, and aim [%].
    least_s : float
        Shorter measurements are left out [s].

    Returns
    -------
    AccuracyRow
        Errors are NaN if no row is long enough.

    Examples
    --------
    >>> times = np.array([20e-6, 40e-6])
    >>> row = judge("add", ("a40", "", "", "fp16"), times, times * 1.1, times / 2)
    >>> row.n, round(row.mape_pct, 6), round(row.roofline_mape_pct, 6)
    (2, 10.0, 50.0)
    """
    long = measured_s >= least_s
    error = 100.0 * (predicted_s[long] / measured_s[long] - 1.0)
    roofline = 100.0 * (roofline_s[long] / measured_s[long] - 1.0)
    seen = bool(long.any())
    gpu, source, software, dtype = stack
    at_most, at_most_p90 = _parts(targets[0] if targets else None)
    aim, aim_p90 = _parts(targets[1] if targets else None)
    return AccuracyRow(
        quantity=quantity,
        gpu=gpu,
        source=source,
        software=software,
        dtype=dtype,
        n=int(long.sum()),
        mape_pct=float(np.abs(error).mean()) if seen else float("nan"),
        p90_pct=float(np.percentile(np.abs(error), 90)) if seen else float("nan"),
        bias_pct=float(error.mean()) if seen else float("nan"),
        roofline_mape_pct=float(np.abs(roofline).mean()) if seen else float("nan"),
        target_at_most=at_most,
        target_aim=aim,
        target_at_most_p90=at_most_p90,
        target_aim_p90=aim_p90,
    )


def _parts(goal: Goal | None) -> tuple[float | None, float | None]:
    return goal if isinstance(goal, tuple) else (goal, None)
