"""Bounds of a difference: they reduce to the bounds of a sum, and what is shared cancels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.case import prepare
from costmodel.catalog.hardware import load_host
from costmodel.evaluation import evaluate
from costmodel.search.difference import difference_bounds
from costmodel.search.families import Side
from costmodel.timing.device import resolve_device
from costmodel.timing.model import load_time_model
from costmodel.timing.models.calibrated import MODEL

GPU = "a100-80gb-sxm"


def side(compress: str | None = None, time_model: str = "calibrated", **options: object) -> Side:
    case = prepare(
        "llava-1.5-7b", GPU, text_tokens=64, compress=compress, time_model=time_model,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    device = resolve_device(case.gpu, load_host(), case.deployment)
    evaluation = evaluate(case.program()[0], "prefill")
    times = load_time_model(time_model).times(evaluation, device, case.deployment)
    return Side(evaluation, times)


def without_anything(one: Side) -> Side:
    """Return a side whose kernels take no time and need no host."""
    times = one.times
    parts = tuple(replace(part, time_s=0.0 * part.time_s) for part in times.parts)
    nothing = replace(
        times, op_s=0.0 * times.op_s, host_overhead_s=0.0 * times.host_overhead_s,
        parts=parts, queues=(),
    )  # fmt: skip
    return Side(one.evaluation, nothing)


@pytest.mark.parametrize("compress", [None, "cluster:k=64", "fastv:k=100"])
def test_against_nothing_the_bounds_are_those_of_the_sum(compress: str | None) -> None:
    one = side(compress)
    bounds = difference_bounds(one, without_anything(side()))
    for band, (low, high) in bounds.items():
        assert float(low) == pytest.approx(float(one.times.low_s[band]), rel=1e-9)
        assert float(high) == pytest.approx(float(one.times.high_s[band]), rel=1e-9)


@pytest.mark.parametrize("compress", [None, "cluster:k=64"])
def test_the_same_on_both_sides_is_certain(compress: str | None) -> None:
    one = side(compress)
    for low, high in difference_bounds(one, one).values():
        assert float(low) == pytest.approx(0.0, abs=1e-15)
        assert float(high) == pytest.approx(0.0, abs=1e-15)


def test_swapped_sides_swap_the_bounds() -> None:
    one, other = side("cluster:k=64"), side()
    forward, back = difference_bounds(one, other), difference_bounds(other, one)
    for band, (low, high) in forward.items():
        assert float(low) == pytest.approx(-float(back[band][1]), rel=1e-9)
        assert float(high) == pytest.approx(-float(back[band][0]), rel=1e-9)


def test_bounds_are_narrower_than_of_independent_sides() -> None:
    one, other = side("spatial:k=64"), side()
    for band, (low, high) in difference_bounds(one, other).items():
        independent = np.hypot(
            one.times.high_s[band] - one.ttft_s, other.ttft_s - other.times.low_s[band]
        )
        middle = one.ttft_s - other.ttft_s
        assert low < middle < high
        assert high - middle < independent


def test_the_vision_tower_on_both_sides_cancels() -> None:
    """A method that touches nothing before the language model: vision errors do not matter."""
    one, other = side("spatial:k=64"), side()
    wide = [
        replace(
            s.times,
            parts=tuple(
                replace(part, high=part.high * 3, common_share=0.0)
                if op.stage == "vision_encoder" else part
                for op, part in zip(s.evaluation.ops, s.times.parts, strict=True)
            ),
        )
        for s in (one, other)
    ]  # fmt: skip
    widened = difference_bounds(
        *(Side(s.evaluation, t) for s, t in zip((one, other), wide, strict=True))
    )
    # Shares are those of the first part of a kind, so compare with the same kinds freed.
    assert float(widened["same_stack"][1]) < float(wide[0].high_s["same_stack"])
    vision = sum(
        float(part.time_s) for op, part in zip(one.evaluation.ops, one.times.parts, strict=True)
        if op.stage == "vision_encoder"
    )  # fmt: skip
    middle = float(one.ttft_s - other.ttft_s)
    assert float(widened["same_stack"][1]) - middle < vision


def test_ideal_times_have_no_bounds() -> None:
    assert difference_bounds(side(time_model="ideal"), side(time_model="ideal")) == {}


def test_queues_give_the_exposed_host_time() -> None:
    """The host time rebuilt from the queues is the one the time model reports."""
    from costmodel.search.difference import _exposed_s

    assert MODEL.name == "calibrated"
    for compress in (None, "cluster:k=64", "cluster:k=64,impl=sklearn", "fastv"):
        for runtime in ("eager", "cuda-graph"):
            one = side(compress, runtime=runtime)
            assert float(_exposed_s(one, "mid")) == pytest.approx(float(one.times.host_overhead_s))
