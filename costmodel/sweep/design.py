"""Sampled designs: points spread evenly over several axes at once."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from costmodel.errors import SpecError
from costmodel.sweep.axes import Between
from costmodel.sweep.spec import SweepSpec

__all__ = ["design"]

Columns = dict[str, npt.NDArray[np.float64]]


@lru_cache(maxsize=2)
def design(spec: SweepSpec) -> Columns:
    """Return the numbers of every point of a block: the design, once for each listed value.

    Parameters
    ----------
    spec : SweepSpec
        With a sample.

    Returns
    -------
    dict of str to ndarray
        By axis; whole numbers are rounded, bounds included.

    Raises
    ------
    SpecError
        If SciPy is not installed.
    """
    sample = spec.sample
    if sample is None:
        raise SpecError("sample: the spec has none")
    try:
        from scipy.stats import qmc
    except ImportError:
        raise SpecError(
            "sample: needs SciPy; install the extra: pip install 'costmodel[fit]'"
        ) from None
    bounds = {n: v for n, v in spec.numbers.items() if isinstance(v, Between)}
    listed = {n: v for n, v in spec.numbers.items() if not isinstance(v, Between)}
    cube = qmc.LatinHypercube(len(bounds), rng=np.random.default_rng(sample.seed)).random(
        sample.latin_hypercube
    )
    columns = {
        name: _scaled(cube[:, index], between, whole=name != "retention")
        for index, (name, between) in enumerate(bounds.items())
    }
    combinations = list(product(*listed.values()))
    crossed = np.array(combinations, dtype=np.float64).reshape(len(combinations), len(listed))
    found = {name: np.tile(column, len(crossed)) for name, column in columns.items()}
    for index, name in enumerate(listed):
        found[name] = np.repeat(crossed[:, index], sample.latin_hypercube)
    return found


def _scaled(
    unit: npt.NDArray[np.float64], between: Between, *, whole: bool
) -> npt.NDArray[np.float64]:
    if whole:
        # Every whole number has the same share of the axis.
        low, high = between.low - 0.5, between.high + 0.5
        if between.log:
            low = max(low, 0.5)
            values = low * (high / low) ** unit
        else:
            values = low + (high - low) * unit
        return np.clip(np.rint(values), between.low, between.high)
    if between.log:
        return np.asarray(between.low * (between.high / between.low) ** unit)
    return np.asarray(between.low + (between.high - between.low) * unit)
