"""Pareto fronts against the definition, point by point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from costmodel.search import pareto_mask

VALUES = st.one_of(
    st.integers(0, 4).map(float),
    st.floats(allow_nan=False, allow_infinity=True, width=16),
)


def brute(costs: npt.NDArray[np.float64]) -> list[bool]:
    """The definition: not beaten by any point that is nowhere worse and somewhere better."""
    return [
        not any((other <= one).all() and (other < one).any() for other in costs) for one in costs
    ]


@given(
    st.integers(1, 5).flatmap(
        lambda columns: arrays.arrays(
            np.float64, st.tuples(st.integers(1, 40), st.just(columns)), elements=VALUES
        )
    )
)
@settings(max_examples=300, deadline=None)
def test_front_is_what_nothing_beats(costs: npt.NDArray[np.float64]) -> None:
    assert pareto_mask(costs).tolist() == brute(costs)


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("kind", ["independent", "conflicting", "grid"])
def test_larger_fronts(columns: int, kind: str) -> None:
    random = np.random.default_rng(columns)
    costs = random.random((1500, columns))
    if kind == "conflicting":
        costs[:, -1] = -costs[:, :-1].sum(axis=1)
    if kind == "grid":
        costs = np.floor(6 * costs)
    assert pareto_mask(costs).tolist() == brute(costs)


def test_missing_values_are_never_on_the_front() -> None:
    costs = np.array([[np.nan, 0.0], [1.0, 1.0], [0.0, np.nan]])
    assert pareto_mask(costs).tolist() == [False, True, False]


def test_nothing_has_no_front() -> None:
    assert pareto_mask(np.empty((0, 3))).tolist() == []


def test_order_of_rows_does_not_matter() -> None:
    random = np.random.default_rng(1)
    costs = np.floor(20 * random.random((800, 3)))
    order = random.permutation(len(costs))
    assert pareto_mask(costs)[order].tolist() == pareto_mask(costs[order]).tolist()
