r"""What a result hangs on when several quantities vary at once: Sobol indices.

.. math:: S_i = \frac{\mathrm{Var}(\mathrm{E}[Y \mid X_i])}{\mathrm{Var}(Y)}, \qquad
          S_{Ti} = 1 - \frac{\mathrm{Var}(\mathrm{E}[Y \mid X_{\sim i}])}{\mathrm{Var}(Y)}

The first is the share of the variance that :math:`X_i` explains alone, the second that in which
it takes part [1]_.

References
----------
.. [1] A. Saltelli et al., "Variance based sensitivity analysis of model output. Design and
   estimator for the total sensitivity index", Computer Physics Communications 181, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.case import Case
from costmodel.errors import CostModelError, InputError, UnknownNameError
from costmodel.evaluation import FloatArray
from costmodel.search.scaled_device import what_if
from costmodel.specs.workload import DTYPE_BYTES

__all__ = ["OUTPUTS", "RANGES", "Indices", "Span", "sobol", "sobol_indices"]

OUTPUTS = ("ttft", "tpot", "speedup")
WEIGHTS = "weights_dtype"

RANGES: dict[str, tuple[float, float]] = {
    "bandwidth": (0.8, 1.2),
    "compute": (0.8, 1.2),
    "launch": (0.25, 2.0),
    "interconnect": (0.8, 1.2),
}
"""Factors that quantities vary by unless others are asked for.

Of a launch it is what sources say of one; the others are how far shares of the datasheet's rates
differ between kernels, labs and software.
"""

_REPEATS = 4
_MOST_SAMPLES = 2**15


@dataclass(frozen=True)
class Span:
    """What one input varies over.

    Attributes
    ----------
    name : str
        A quantity, or ``weights_dtype``.
    low, high : float
        Factors, uniform in the logarithm; 0 for formats.
    choices : tuple of str
        Formats, all as likely.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Indices:
    """Sobol indices of the outputs of a case.

    Attributes
    ----------
    case : Case
        The question.
    spans : tuple of Span
        What varied.
    samples : int
        Points of each of the two matrices of a repeat.
    evaluations : int
        Points that were evaluated, with and without compression.
    first, total : dict of str to ndarray
        Indices by output, one per span: means of repeats.
    first_error, total_error : dict of str to ndarray
        Standard errors over the repeats.
    mean, deviation : dict of str to float
        Of every output over the range; [s], and a ratio for ``speedup``.
    """

    case: Case
    spans: tuple[Span, ...]
    samples: int
    evaluations: int
    first: dict[str, FloatArray]
    total: dict[str, FloatArray]
    first_error: dict[str, FloatArray]
    total_error: dict[str, FloatArray]
    mean: dict[str, float]
    deviation: dict[str, float]


def sobol(
    case: Case,
    quantities: Sequence[str] = ("bandwidth", "compute", "launch", WEIGHTS),
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    samples: int = 256,
    seed: int = 0,
) -> Indices:
    """Return how much of the variance of TTFT, TPOT and speed-up each quantity explains.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.
    quantities : sequence of str
        Of `RANGES`, and ``weights_dtype``.
    ranges : mapping of str to (float, float), optional
        Other ranges of factors.
    samples : int
        A power of two; four repeats of ``samples * (quantities + 2)`` points are evaluated.
    seed : int
        Of the scrambling of the Sobol sequences; equal seeds give equal numbers.

    Returns
    -------
    Indices

    Raises
    ------
    UnknownNameError, InputError
        If a quantity, range or number is not valid.
    CostModelError
        If SciPy is not installed.
    """
    spans = _spans(case, quantities, ranges or {})
    if not isinstance(samples, int) or not 2 <= samples <= _MOST_SAMPLES or samples & (samples - 1):
        raise InputError("samples", samples, f"a power of two from 2 to {_MOST_SAMPLES:,}")
    if not isinstance(seed, int) or seed < 0:
        raise InputError("seed", seed, "a whole number of at least 0")
    outputs: list[FloatArray] = []

    def model(unit: FloatArray) -> FloatArray:
        found = _evaluate(case, spans, unit)
        # The estimators centre what they get in place.
        outputs.append(found.copy())
        return found

    repeats = [
        sobol_indices(model, len(spans), samples, seed * _REPEATS + r) for r in range(_REPEATS)
    ]  # fmt: skip
    first, total = (np.stack([one[index] for one in repeats]) for index in (0, 1))
    every = np.concatenate(outputs, axis=1)

    def by_output(rows: FloatArray) -> dict[str, FloatArray]:
        return dict(zip(OUTPUTS, rows, strict=True))

    def error(rows: FloatArray) -> FloatArray:
        result: FloatArray = rows.std(axis=0, ddof=1) / math.sqrt(_REPEATS)
        return result

    return Indices(
        case=case,
        spans=spans,
        samples=samples,
        evaluations=every.shape[1],
        first=by_output(first.mean(axis=0)),
        total=by_output(total.mean(axis=0)),
        first_error=by_output(error(first)),
        total_error=by_output(error(total)),
        mean=dict(zip(OUTPUTS, every.mean(axis=1).tolist(), strict=True)),
        deviation=dict(zip(OUTPUTS, every.std(axis=1).tolist(), strict=True)),
    )


def sobol_indices(
    model: Callable[[FloatArray], FloatArray], inputs: int, samples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return first-order and total indices of a vectorised function.

    Parameters
    ----------
    model : callable
        From points in the unit cube, shape ``(inputs, points)``, to ``(outputs, points)``.
    inputs : int
        Dimensions of the cube.
    samples : int
        A power of two.
    seed : int
        Of the scrambling.

    Returns
    -------
    tuple of ndarray
        Both of shape ``(outputs, inputs)``; zero for an output that does not vary.

    Raises
    ------
    CostModelError
        If SciPy is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise CostModelError("Sobol indices need SciPy: pip install 'costmodel[fit]'") from None
    # An output that stays as it is has no variance to divide by.
    with np.errstate(divide="ignore", invalid="ignore"):
        result = stats.sobol_indices(
            func=model, n=samples, dists=[stats.uniform()] * inputs,
            random_state=np.random.default_rng(seed),
        )  # fmt: skip
    shape = (-1, inputs)
    return (
        np.nan_to_num(np.reshape(result.first_order, shape)),
        np.nan_to_num(np.reshape(result.total_order, shape)),
    )


def _spans(
    case: Case, quantities: Sequence[str], ranges: Mapping[str, tuple[float, float]]
) -> tuple[Span, ...]:
    known = [*RANGES, WEIGHTS]
    names = list(dict.fromkeys(quantities))
    for name in [*names, *ranges]:
        if name not in known:
            hint = "The size of the cache is varied one at a time only." if name == "l2" else ""
            raise UnknownNameError("quantity", name, known, hint)
    if unused := [name for name in ranges if name not in names]:
        raise InputError("range", unused[0], f"one of the quantities that vary: {', '.join(names)}")
    if len(names) < 2:
        raise InputError("vary", ",".join(names), "at least two quantities")
    spans = []
    for name in names:
        if name == WEIGHTS:
            own = case.deployment.weights_dtype
            narrower = [d for d in ("int8", "int4") if DTYPE_BYTES[d] < DTYPE_BYTES[own]]
            spans.append(Span(name, choices=(own, *narrower)))
            continue
        low, high = ranges.get(name, RANGES[name])
        if not (0 < low < high < math.inf):
            raise InputError("range", f"{name}={low:g}:{high:g}", "LOW:HIGH with 0 < LOW < HIGH")
        spans.append(Span(name, low, high))
    return tuple(spans)


def _evaluate(case: Case, spans: Sequence[Span], unit: FloatArray) -> FloatArray:
    """Return `OUTPUTS` at points of the unit cube."""
    factors: dict[str, FloatArray] = {}
    formats = np.zeros(unit.shape[1], dtype=int)
    choices: tuple[str, ...] = (case.deployment.weights_dtype,)
    for span, column in zip(spans, unit, strict=True):
        if span.choices:
            choices = span.choices
            formats = np.minimum((column * len(choices)).astype(int), len(choices) - 1)
        else:
            factors[span.name] = span.low * (span.high / span.low) ** column
    found = np.empty((len(OUTPUTS), unit.shape[1]))
    for index, name in enumerate(choices):
        rows = np.flatnonzero(formats == index)
        if not rows.size:
            continue
        deployment = case.deployment.model_copy(update={WEIGHTS: name})
        own = replace(case, deployment=deployment)
        scales = {quantity: column[rows] for quantity, column in factors.items()}
        now, before = (what_if(one, **scales) for one in (own, replace(own, request=None)))
        found[:, rows] = now.ttft_s, now.tpot_s, before.ttft_s / now.ttft_s
    return found
