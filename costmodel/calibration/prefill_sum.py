"""A whole prefill as the sum of its measured kernels, against predictions of the same kernels.

Llama-2-7B in 16 bits on an A100: per layer four products, two norms, rotary embedding,
activation, two additions and causal attention; no embedding and no head.  Products and
memory-bound kernels are Vidur's medians, attention is vLLM's as AIConfigurator measured it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.attention_stacks import settings_of
from costmodel.calibration.building import Stack, chip_of, roofline_s, rows_of, samples_of
from costmodel.calibration.fitting import fit
from costmodel.calibration.prefill_kernels import CALIBRATION, MODEL, prefill_kernels
from costmodel.calibration.recipe import load_recipes
from costmodel.calibration.residuals import corrected_time_s, fit_residual
from costmodel.calibration.schema import Timings
from costmodel.calibration.setups import SETUPS
from costmodel.catalog.calibrations import list_calibrations, load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import Chip, FloatArray, Shapes
from costmodel.timing.kernels.registry import kernel_model
from costmodel.timing.kernels.residual import coordinates
from costmodel.timing.prediction import kernel_time_s

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TOKENS", "PrefillSum", "mean_error_pct", "prefill_sums"]

TOKENS = (64, 128, 256, 640, 1024, 2048, 4096)
"""Lengths that peers were run at."""

_LAYERS = 32
# The correction of products on this stack only interpolates within a measured (n, k).
_CORRECTED = ("attention_prefill",)

_Predict = Callable[[str, "pd.DataFrame"], FloatArray]
_Seconds = Callable[[Shapes], FloatArray]


@dataclass(frozen=True)
class PrefillSum:
    """All layers at one prompt length [s].

    Attributes
    ----------
    tokens : int
        Length of the prompt.
    measured_s : float
        Sum of the measured kernels.
    unseen_s : float
        Predicted by fits that saw none of these products, heads or model widths.
    roofline_s : float
        Datasheet roofline, each kernel by itself.
    shipped_s : float, optional
        Predicted by the shipped calibration, which was fitted on these kernels too.
    """

    tokens: int
    measured_s: float
    unseen_s: float
    roofline_s: float
    shipped_s: float | None = None

    @property
    def unseen_error_pct(self) -> float:
        """Error of `unseen_s` [%]."""
        return 100.0 * (self.unseen_s / self.measured_s - 1.0)

    @property
    def shipped_error_pct(self) -> float | None:
        """Error of `shipped_s` [%]."""
        shipped = self.shipped_s
        return None if shipped is None else 100.0 * (shipped / self.measured_s - 1.0)

    @property
    def roofline_error_pct(self) -> float:
        """Error of `roofline_s` [%]."""
        return 100.0 * (self.roofline_s / self.measured_s - 1.0)


def mean_error_pct(errors: Sequence[float]) -> float:
    """Return the mean absolute error [%].

    Examples
    --------
    >>> mean_error_pct([1.0, -3.0])
    2.0
    """
    return float(np.abs(np.asarray(errors)).mean())


def prefill_sums(timings: Sequence[Timings], tokens: Sequence[int] = TOKENS) -> list[PrefillSum]:
    """Return measured and predicted prefill at each length.

    Parameters
    ----------
    timings : sequence of Timings
        Vidur's products and memory-bound kernels, AIConfigurator's attention.
    tokens : sequence of int
        Prompt lengths; products must have been measured at each.

    Returns
    -------
    list of PrefillSum
        One for each length.

    Raises
    ------
    CostModelError
        If a kernel was not measured at one of the lengths.
    """
    kernels = prefill_kernels(timings, tokens)
    chip = chip_of(load_gpu(CALIBRATION.partition(".")[0]))
    unseen = {kind: _fit_without(kind, timings, rows, chip) for kind, rows in kernels.items()}
    columns = [
        _totals(kernels, tokens, lambda kind, rows: rows["time_s"].to_numpy(dtype=np.float64)),
        _totals(kernels, tokens, _predictor(unseen)),
        _totals(kernels, tokens, lambda kind, rows: roofline_s(kind, rows, chip)),
    ]
    if CALIBRATION in list_calibrations():
        shipped = {kind: _shipped(kind, chip) for kind in kernels}
        columns.append(_totals(kernels, tokens, _predictor(shipped)))
    return [
        PrefillSum(length, *(float(column[index]) for column in columns))
        for index, length in enumerate(tokens)
    ]


def _shipped(kind: str, chip: Chip) -> _Seconds:
    calibration = load_calibration(CALIBRATION, load_gpu(CALIBRATION.partition(".")[0]))
    found = calibration.find(kind)
    if found is None:
        raise CostModelError(f"{CALIBRATION}: no {kind}")
    return partial(kernel_time_s, found, chip=chip, benchmark=True)


def _predictor(seconds_of: Mapping[str, _Seconds]) -> _Predict:
    def predict(kind: str, rows: pd.DataFrame) -> FloatArray:
        sizes = {name: rows[name].to_numpy(dtype=np.float64) for name in SETUPS[kind].sizes}
        return seconds_of[kind](sizes)

    return predict


def _totals(
    kernels: dict[str, pd.DataFrame], tokens: Sequence[int], seconds: _Predict
) -> FloatArray:
    total: FloatArray = np.zeros(len(tokens))
    for kind, rows in kernels.items():
        place = [list(tokens).index(length) for length in rows["tokens"]]
        np.add.at(total, place, _LAYERS * rows["launches"].to_numpy() * seconds(kind, rows))
    return total


def _fit_without(kind: str, timings: Sequence[Timings], rows: pd.DataFrame, chip: Chip) -> _Seconds:
    """Fit a kind as calibrations are, on rows of other products, heads or models."""
    setup = SETUPS[kind]
    source = load_recipes()[CALIBRATION].fit[kind]
    device = CALIBRATION.partition(".")[0]
    stack = Stack(device, source.source, source.software, source.dtypes, source.kernels)
    frame = rows_of(kind, timings, stack)
    if setup.timings == "memory_bound":
        others = frame[frame["model"] != MODEL]
    else:
        group = list(setup.group)
        known = set(rows[group].itertuples(index=False, name=None))
        keys = frame[group].itertuples(index=False, name=None)
        others = frame[[key not in known for key in keys]]
    samples = samples_of(setup, others)
    kernel = frame.attrs["kernel"]
    fixed = {
        **setup.fixed,
        **(settings_of(kind, kernel, samples) if kernel else {}),
        **source.fixed,
    }
    model = kernel_model(setup.model, benchmark=True)
    values = fit(
        model, samples, chip, fixed=fixed, max_rows=setup.max_rows, starts=setup.starts
    ).values
    residual = None
    if kind in _CORRECTED and setup.residual is not None:
        residual = fit_residual(
            coordinates(samples.shapes, setup.sizes),
            np.log(samples.time_s / model.time_s(values, samples.shapes, chip)),
            scales=setup.residual,
            max_points=setup.residual_points,
            noise_ratio=setup.residual_noise,
        )

    def seconds(sizes: Shapes) -> FloatArray:
        return corrected_time_s(
            model.time_s(values, sizes, chip), residual, coordinates(sizes, setup.sizes)
        )

    return seconds
