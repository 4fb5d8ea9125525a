"""Replicas under a load against a simulation of a server that prefills first."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel
from costmodel.errors import CostModelError, InputError
from costmodel.serving.capacity import (
    Replica,
    Target,
    capacity,
    most_requests,
    replicas_for,
)

EASY = Target(ttft_s=1e6)


def _served(replica: Replica, rate: float, count: int) -> dict[str, float]:
    """Serve one request after the other: prefill whoever waits, else one step for all."""
    rng = np.random.default_rng(3)
    arrivals = deque(np.cumsum(rng.exponential(1 / rate, count)))
    now, area, last = 0.0, 0.0, 0.0
    left: list[int] = []
    ttft: list[float] = []
    ages: list[float] = []
    started: list[float] = []
    while arrivals or left:
        if not left and arrivals[0] > now:
            now = arrivals[0]
        if arrivals and arrivals[0] <= now:
            came = arrivals.popleft()
            area += len(left) * replica.prefill_s
            now += replica.prefill_s
            ttft.append(now - came)
            left.append(replica.output_tokens)
            started.append(now)
        else:
            step = float(replica.step_s[len(left) - 1])
            area += len(left) * step
            now += step
            left = [tokens - 1 for tokens in left]
            ages += [now - s for s, t in zip(started, left, strict=True) if not t]
            started = [s for s, t in zip(started, left, strict=True) if t]
            left = [t for t in left if t]
        last = now
    return {
        "ttft_mean": float(np.mean(ttft)),
        "ttft_95": float(np.quantile(ttft, 0.95)),
        "concurrent": area / last,
        "tpot": float(np.mean(ages)) / replica.output_tokens,
    }


@pytest.mark.parametrize(("rate", "tokens"), [(2.0, 30), (4.0, 30), (5.0, 60)])
def test_against_simulation(rate: float, tokens: int) -> None:
    steps = np.linspace(0.0203, 0.0968, 256, dtype=np.float64)
    replica = Replica(1, 0.08, steps, tokens)
    seen = _served(replica, rate, 6000)
    found = capacity(replica, rate, EASY)
    assert found.concurrent == pytest.approx(seen["concurrent"], rel=0.12)
    assert found.tpot_s == pytest.approx(seen["tpot"], rel=0.12)
    assert found.ttft_mean_s == pytest.approx(seen["ttft_mean"], rel=0.1)
    assert seen["ttft_95"] <= found.ttft_quantile_s * 1.02
    assert found.ttft_quantile_s <= seen["ttft_95"] + 0.15


@given(
    st.floats(0.01, 0.5), st.floats(0.001, 0.1), st.integers(1, 500), st.integers(1, 200),
    st.floats(0.1, 100),
)  # fmt: skip
@settings(max_examples=50)
def test_replicas_are_enough_and_no_more(
    prefill: float, step: float, tokens: int, fits: int, rate: float
) -> None:
    replica = Replica(1, prefill, np.full(fits, step), tokens)
    target = Target(ttft_s=4 * (prefill + step))
    count = replicas_for(replica, rate, target)
    if count is None:
        return
    assert not capacity(replica, rate / count, target).missed
    if count > 1:
        assert capacity(replica, rate / (count - 1), target).missed
    assert most_requests(replica, target) >= rate / count * (1 - 1e-9)


def test_what_is_missed() -> None:
    steps = np.full(8, 0.02)
    assert capacity(Replica(1, 0.1, np.empty(0), 10), 1.0, EASY).missed == "memory"
    assert capacity(Replica(1, 0.1, steps, 10), 10.0, EASY).missed == "rate"
    assert capacity(Replica(1, 0.01, steps, 100), 4.0, EASY).missed == "memory"
    assert capacity(Replica(1, 0.1, steps, 1), 1.0, Target(ttft_s=0.05)).missed == "ttft"
    assert capacity(Replica(1, 0.1, steps, 1), 1.0, Target(1.0, tpot_s=0.01)).missed == "tpot"
    assert not capacity(Replica(1, 0.1, steps, 1), 1.0, Target(1.0, tpot_s=0.1)).missed


def test_of_a_case_rests_on_its_estimate() -> None:
    case = costmodel.prepare(
        "llava-1.5-7b", "rtx-a6000", text_tokens=64, output_tokens=64, compress="random:k=64"
    )
    replica = Replica.of(case)
    one = costmodel.estimate(
        "llava-1.5-7b", "rtx-a6000", text_tokens=64, output_tokens=64, compress="random:k=64"
    )
    assert replica.prefill_s == one.time_s["ttft"]
    assert replica.step_s[0] == pytest.approx(one.time_s["tpot"])
    memory = one.memory_bytes
    room = 0.9 * memory["device"] - memory["weights"] - memory["activations_peak"]
    assert len(replica.step_s) == int(room // memory["kv_cache"])
    slow = Replica.of(case, bound="high")
    assert slow.prefill_s == pytest.approx(one.interval_s["ttft"]["any_stack"][1])
    count = len(replica.step_s)
    for batch in (1, count):
        step = costmodel.estimate(
            "llava-1.5-7b", "rtx-a6000", text_tokens=64, output_tokens=64, compress="random:k=64",
            batch=batch,
        )  # fmt: skip
        low, high = step.interval_s["tpot"]["any_stack"]
        assert slow.step_s[batch - 1] == pytest.approx(high)
        fast = Replica.of(case, bound="low")
        assert fast.step_s[batch - 1] == pytest.approx(low)
    assert (fast.step_s < replica.step_s).all()
    assert (replica.step_s < slow.step_s).all()


def test_compression_serves_more() -> None:
    plain, small = (
        Replica.of(
            costmodel.prepare(
                "llava-1.5-7b", "rtx-a6000", text_tokens=64, output_tokens=64, compress=name
            )
        )
        for name in (None, "random:k=64")
    )
    target = Target(ttft_s=1.0)
    assert most_requests(small, target) > most_requests(plain, target)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"bound": "hi"}, "bound"), ({"reserve": 1.0}, "reserve"), ({"reserve": -0.1}, "reserve")],
)
def test_bad_input(options: dict[str, object], field: str) -> None:
    case = costmodel.prepare("llava-1.5-7b", "a40", text_tokens=64)
    with pytest.raises(CostModelError, match=field):
        Replica.of(case, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ttft_s"):
        capacity(Replica(1, 0.1, np.ones(1), 1), 1.0, Target(ttft_s=0.0))
