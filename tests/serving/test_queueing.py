"""Waiting times against a simulation and against closed forms of textbooks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import InputError
from costmodel.serving.queueing import mean_wait_s, tail_decay_per_s, wait_quantile_s

SERVICES = {
    "one": ([0.1], [1.0]),
    "two": ([0.02, 0.2], [0.7, 0.3]),
    "three": ([0.05, 0.1, 0.6], [0.6, 0.35, 0.05]),
}


def _simulated(
    rate: float, times: list[float], shares: list[float], count: int = 400_000
) -> npt.NDArray[np.float64]:
    """Waits by Lindley's recursion, W' = max(0, W + S - A), unrolled as a running minimum."""
    rng = np.random.default_rng(7)
    steps = rng.choice(times, count, p=shares) - rng.exponential(1 / rate, count)
    walk = np.concatenate([[0.0], np.cumsum(steps)])
    waits: npt.NDArray[np.float64] = walk - np.minimum.accumulate(walk)
    return waits


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("load", [0.3, 0.6, 0.85])
def test_against_simulation(name: str, load: float) -> None:
    times, shares = SERVICES[name]
    rate = load / float(np.dot(times, shares))
    waits = _simulated(rate, times, shares)
    assert mean_wait_s(rate, times, shares) == pytest.approx(waits.mean(), rel=0.06)
    for quantile in (0.5, 0.9, 0.95, 0.99):
        bound = wait_quantile_s(quantile, rate, times, shares)
        seen = float(np.quantile(waits, quantile))
        assert seen <= bound * 1.03 + 1e-12
        # An upper bound that is far off would be of no use.
        assert bound <= seen + 2.0 * max(times)


def test_exponent_is_that_of_the_tail() -> None:
    times, shares = SERVICES["one"]
    waits = _simulated(8.0, times, shares)
    far, near = (float((waits > t).mean()) for t in (1.2, 0.6))
    assert -math.log(far / near) / 0.6 == pytest.approx(tail_decay_per_s(8.0, 0.1), rel=0.1)


@given(st.floats(0.01, 0.95), st.floats(1e-3, 10))
def test_mean_of_constant_service(load: float, service: float) -> None:
    # M/D/1: Kleinrock, Queueing Systems 1, (5.16): rho s / (2 (1 - rho)).
    expected = load * service / (2 * (1 - load))
    assert mean_wait_s(load / service, service) == pytest.approx(expected)


@given(st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.sampled_from([0.5, 0.9, 0.99]))
def test_more_load_waits_longer(one: float, other: float, quantile: float) -> None:
    low, high = sorted((one, other))
    assert wait_quantile_s(quantile, low, 1.0) <= wait_quantile_s(quantile, high, 1.0)
    assert mean_wait_s(low, 1.0) <= mean_wait_s(high, 1.0)


def test_ends() -> None:
    assert mean_wait_s(0.0, 1.0) == 0
    assert wait_quantile_s(0.95, 0.0, 1.0, step_s=0.25) == 0.25
    assert mean_wait_s(1.0, 1.0) == wait_quantile_s(0.95, 2.0, 1.0) == math.inf
    assert tail_decay_per_s(1.0, 1.0) == 0
    assert tail_decay_per_s(0.0, 1.0) == math.inf


BAD = [
    ({"rate_per_s": -1.0}, "rate_per_s"),
    ({"rate_per_s": math.nan}, "rate_per_s"),
    ({"service_s": []}, "service_s"),
    ({"service_s": [-1.0]}, "service_s"),
    ({"weights": [1.0, 2.0]}, "weights"),
    ({"weights": [0.0]}, "weights"),
    ({"quantile": 1.0}, "quantile"),
    ({"step_s": -0.1}, "step_s"),
]


@pytest.mark.parametrize(("changed", "field"), BAD)
def test_bad_input(changed: dict[str, object], field: str) -> None:
    good = {"quantile": 0.9, "rate_per_s": 1.0, "service_s": [0.1]}
    with pytest.raises(InputError, match=field):
        wait_quantile_s(**{**good, **changed})  # type: ignore[arg-type]
