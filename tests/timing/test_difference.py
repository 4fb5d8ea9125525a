"""Bounds of a difference: they reduce to the bounds of a sum, and what is shared cancels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.case import prepare
from costmodel.catalog.hardware import load_host
from costmodel.evaluation import evaluate
from costmodel.timing.device import resolve_device
from costmodel.timing.difference import Side, difference_bounds, ratio_bounds
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
            one.times.high_s[band] - one.total_s, other.total_s - other.times.low_s[band]
        )
        middle = one.total_s - other.total_s
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
    middle = float(one.total_s - other.total_s)
    assert float(widened["same_stack"][1]) - middle < vision


def test_ideal_times_have_no_bounds() -> None:
    assert difference_bounds(side(time_model="ideal"), side(time_model="ideal")) == {}


def test_queues_give_the_exposed_host_time() -> None:
    """The host time rebuilt from the queues is the one the time model reports."""
    from costmodel.timing.difference import _exposed_s

    assert MODEL.name == "calibrated"
    for compress in (None, "cluster:k=64", "cluster:k=64,impl=sklearn", "fastv"):
        for runtime in ("eager", "cuda-graph"):
            one = side(compress, runtime=runtime)
            assert float(_exposed_s(one, "mid")) == pytest.approx(float(one.times.host_overhead_s))


def deviations(one: Side, other: Side, weight: float) -> tuple[float, float]:
    """The module's equation, spelled out: kernels, without the host."""
    kinds: dict[str, list[float]] = {}
    shapes: dict[tuple[str, str, float], list[float]] = {}
    shares: dict[str, float] = {}
    for sign, s in ((1.0, one), (-weight, other)):
        for index, part in enumerate(s.times.parts):
            name = s.evaluation.ops[index].name.rpartition(".")[2]
            shape = (part.kind, name, float(s.times.op_s[index]))
            shares[part.kind] = part.common_share
            errors = min(float(part.low) - 1.0, 0.0), max(float(part.high) - 1.0, 0.0)
            for end, error in enumerate(errors):
                off = sign * float(part.time_s) * error
                kinds.setdefault(part.kind, [0.0, 0.0])[end] += off
                shapes.setdefault(shape, [0.0, 0.0])[end] += off
    terms = [(shares[kind], both) for kind, both in kinds.items()]
    terms += [(1.0 - shares[shape[0]], both) for shape, both in shapes.items()]
    down = sum(share * min(*both, 0.0) ** 2 for share, both in terms)
    up = sum(share * max(*both, 0.0) ** 2 for share, both in terms)
    return float(np.sqrt(down)), float(np.sqrt(up))


@pytest.mark.parametrize(
    "compress", ["spatial:k=64", "cluster:k=64,impl=fused", "avgpool:window=2"]
)
def test_the_bounds_of_a_ratio_are_where_a_bound_of_the_weighted_difference_is_zero(
    compress: str,
) -> None:
    plain, small = (
        Side(s.evaluation, replace(s.times, host_overhead_s=0.0 * s.total_s, queues=()))
        for s in (side(), side(compress))
    )
    low, high = map(float, ratio_bounds(plain, small)["same_stack"])
    first, second = float(plain.total_s), float(small.total_s)
    assert low < first / second < high
    assert first - low * second == pytest.approx(deviations(plain, small, low)[0], rel=1e-6)
    assert high * second - first == pytest.approx(deviations(plain, small, high)[1], rel=1e-6)


def test_a_ratio_is_surely_above_one_where_the_difference_is_surely_above_zero() -> None:
    plain = side(runtime="eager")
    for k in (20, 64, 144, 320, 500):
        small = side(f"cluster:k={k}", runtime="eager")
        difference, ratio = difference_bounds(plain, small), ratio_bounds(plain, small)
        for band in difference:
            for end in (0, 1):
                assert (difference[band][end] > 0) == (ratio[band][end] > 1)


def test_the_ratio_of_equal_sides_is_one() -> None:
    for low, high in ratio_bounds(side(), side()).values():
        assert float(low) == pytest.approx(1.0, abs=1e-9)
        assert float(high) == pytest.approx(1.0, abs=1e-9)


def test_a_ratio_is_better_known_than_its_times() -> None:
    plain, small = side(), side("spatial:k=64")
    low, high = ratio_bounds(plain, small)["any_stack"]
    sides = (plain, small)
    apart = [float(s.times.high_s["any_stack"] / s.times.low_s["any_stack"]) for s in sides]
    assert float(high / low) < min(apart)
