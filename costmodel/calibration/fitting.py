"""Fitting a kernel time model to timings: robust, bounded, deterministic.

Residuals are logarithms of measured over predicted time, so that a microsecond
kernel counts as much as a millisecond one.  Needs SciPy (extra ``fit``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from costmodel.errors import CostModelError
from costmodel.timing.kernels.base import Chip, FloatArray, KernelModel, Parameter, Shapes

__all__ = ["Fit", "Samples", "cross_validate", "fit", "group_folds"]

_SOFT_SCALE = 0.1
"""Log error beyond which a residual counts less than squared (10 %)."""


@dataclass(frozen=True)
class Samples:
    """Timings of one kernel kind on one stack.

    Attributes
    ----------
    shapes : dict of str to ndarray
        Sizes, one entry per row.
    time_s : ndarray
        Measured seconds.
    groups : ndarray
        Group of each row that cross-validation keeps together, for example (n, k).
    """

    shapes: Mapping[str, FloatArray]
    time_s: FloatArray
    groups: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_s)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Samples:
        """Return some of the rows."""
        return Samples(
            {name: column[rows] for name, column in self.shapes.items()},
            self.time_s[rows],
            self.groups[rows],
        )


@dataclass(frozen=True)
class Fit:
    """Fitted parameters.

    Attributes
    ----------
    values : dict of str to float
        Parameters by name.
    cost : float
        Robust loss per row.
    at_bound : tuple of str
        Parameters that ended at a bound and are therefore not identified.
    rows : int
        Rows fitted.
    """

    values: dict[str, float]
    cost: float
    at_bound: tuple[str, ...]
    rows: int


def fit(
    model: KernelModel,
    samples: Samples,
    chip: Chip,
    *,
    max_rows: int = 4000,
    starts: int = 3,
    seed: int = 0,
    fixed: Mapping[str, float] | None = None,
    weights: FloatArray | None = None,
) -> Fit:
    """Fit the parameters of `model` to `samples`.

    Parameters
    ----------
    model : KernelModel
        The form.
    samples : Samples
        The data.
    chip : Chip
        The device.
    max_rows : int
        More rows are thinned evenly after sorting by time, which keeps all sizes.
    starts : int
        Starting points: the model's own and quasi-random ones.
    seed : int
        Of the quasi-random starts; the same seed gives the same fit.
    fixed : mapping of str to float, optional
        Parameters that are not fitted.
    weights : ndarray, optional
        Weight of each row's squared residual.

    Returns
    -------
    Fit

    Raises
    ------
    CostModelError
        If SciPy is missing or there are fewer rows than parameters.
    """
    optimize, qmc = _scipy()
    given = dict(fixed or {})
    free = [parameter for parameter in model.parameters if parameter.name not in given]
    if len(samples) < len(free) + 1:
        raise CostModelError(
            f"{model.kind}: {len(samples)} rows are too few to fit {len(free)} parameters"
        )
    order = np.argsort(samples.time_s, kind="stable")
    step = max(1, -(-len(order) // max_rows))
    rows = order[::step]
    used = samples.take(rows)
    target = np.log(used.time_s)
    scale = np.ones(len(used)) if weights is None else np.sqrt(weights[rows])

    evaluate = _evaluation(model, used, chip)

    def residuals(point: FloatArray) -> FloatArray:
        values = given | {p.name: _value(p, x) for p, x in zip(free, point, strict=True)}
        predicted = evaluate(values)
        result: FloatArray = (target - np.log(predicted)) * scale
        return result

    first = np.array([_position(p, p.start) for p in free])
    others = qmc.Sobol(len(free), seed=seed).random(4)[: starts - 1] if free else []
    best = None
    for start in [first, *(0.15 + 0.7 * other for other in others)]:
        found = optimize.least_squares(
            residuals, np.clip(start, 1e-6, 1 - 1e-6), bounds=(0.0, 1.0), loss="soft_l1",
            f_scale=_SOFT_SCALE, x_scale=0.1, max_nfev=200,
        )  # fmt: skip
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    positions = zip(free, best.x, strict=True)
    stuck = tuple(p.name for p, x in positions if x < 1e-3 or x > 1 - 1e-3)
    values = given | {p.name: _value(p, x) for p, x in zip(free, best.x, strict=True)}
    return Fit(values, float(best.cost) / len(used), stuck, len(used))


def group_folds(groups: Sequence[int] | npt.NDArray[np.int64], folds: int) -> npt.NDArray[np.int64]:
    """Return the fold of each row; whole groups stay together.

    Groups are dealt out largest first to the smallest fold.

    Examples
    --------
    >>> group_folds([7, 7, 7, 8, 8, 9], 2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    names, inverse, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sizes = np.zeros(folds)
    fold_of = np.zeros(len(names), dtype=np.int64)
    for index in np.argsort(-counts, kind="stable"):
        chosen = int(sizes.argmin())
        fold_of[index] = chosen
        sizes[chosen] += counts[index]
    result: npt.NDArray[np.int64] = fold_of[inverse]
    return result


def cross_validate(
    model: KernelModel,
    samples: Samples,
    chip: Chip,
    *,
    folds: int = 4,
    **options: Any,
) -> FloatArray:
    """Predict every row from fits that did not see its group.

    Parameters
    ----------
    model, samples, chip
        As in `fit`.
    folds : int
        Number of folds.
    **options
        As in `fit`.

    Returns
    -------
    ndarray
        Predicted seconds, out of fold.
    """
    fold = group_folds(samples.groups, folds)
    predicted = np.empty(len(samples))
    for index in range(folds):
        inside = fold != index
        values = fit(model, samples.take(inside), chip, **options).values
        rows = np.flatnonzero(~inside)
        predicted[rows] = model.time_s(values, samples.take(rows).shapes, chip)
    return predicted


def _evaluation(
    model: KernelModel, samples: Samples, chip: Chip
) -> Callable[[Mapping[str, float]], FloatArray]:
    """Return seconds as a function of the parameters, precomputing what a model allows."""
    if isinstance(model, _Preparing):
        return model.prepare(samples.shapes, chip)
    return lambda values: model.time_s(values, samples.shapes, chip)


@runtime_checkable
class _Preparing(Protocol):
    def prepare(
        self, shapes: Shapes, chip: Chip
    ) -> Callable[[Mapping[str, float]], FloatArray]: ...


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import optimize
        from scipy.stats import qmc
    except ImportError:
        raise CostModelError("fitting needs SciPy: pip install 'costmodel[fit]'") from None
    return optimize, qmc


def _is_log(parameter: Parameter) -> bool:
    return parameter.low > 0 and parameter.high / parameter.low > 8


def _value(parameter: Parameter, position: float) -> float:
    """Map [0, 1] to the parameter's range, logarithmically where it spans decades."""
    if _is_log(parameter):
        return float(parameter.low * (parameter.high / parameter.low) ** position)
    return float(parameter.low + (parameter.high - parameter.low) * position)


def _position(parameter: Parameter, value: float) -> float:
    if _is_log(parameter):
        return float(np.log(value / parameter.low) / np.log(parameter.high / parameter.low))
    return float((value - parameter.low) / (parameter.high - parameter.low))
