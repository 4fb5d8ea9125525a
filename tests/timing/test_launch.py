"""Host and GPU as queues, and the shipped costs of runtimes."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import estimate, prepare
from costmodel.catalog.calibrations import default_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.catalog.runtimes import list_runtimes, load_runtime
from costmodel.errors import SpecError, UnknownNameError
from costmodel.evaluation import evaluate
from costmodel.specs.calibration import HostFit
from costmodel.specs.runtime import RuntimeProfile
from costmodel.specs.workload import Runtime
from costmodel.timing.host import exposed_host_s
from costmodel.timing.kernels.launch import HostCosts, stage_time_s

SHIPPED = {name: HostCosts.of(load_runtime(name)) for name in list_runtimes()}

durations = st.floats(0, 10)
kernels = st.integers(1, 100_000)
waits = st.integers(0, 1000)
micro = st.floats(0, 1e-3)


@st.composite
def host_costs(draw: st.DrawFn) -> HostCosts:
    return HostCosts(*(draw(micro) for _ in range(4)))


def exposed(gpu_s: float, launches: float, syncs: float, costs: HostCosts) -> float:
    return float(stage_time_s(gpu_s, launches, syncs, costs))


@given(durations, kernels, waits, host_costs())
def test_a_stage_takes_as_long_as_the_slower_of_both(
    gpu_s: float, launches: int, syncs: int, costs: HostCosts
) -> None:
    total = gpu_s + exposed(gpu_s, launches, syncs, costs)
    host = launches * costs.launch_s + (syncs + 1) * costs.start_s + syncs * costs.sync_s
    assert total >= max(gpu_s, host) * (1 - 1e-9)
    assert exposed(gpu_s, launches, syncs, costs) >= -1e-12


@given(durations, kernels, waits, host_costs())
def test_and_never_longer_than_one_after_the_other(
    gpu_s: float, launches: int, syncs: int, costs: HostCosts
) -> None:
    parts = syncs + 1
    flat = (
        gpu_s
        + launches * (costs.launch_s + costs.gap_s)
        + parts * (costs.start_s + costs.launch_s)
        + syncs * costs.sync_s
    )
    assert gpu_s + exposed(gpu_s, launches, syncs, costs) <= flat * (1 + 1e-9) + 1e-12


@given(durations, kernels, waits, host_costs())
def test_more_launches_or_waits_never_help(
    gpu_s: float, launches: int, syncs: int, costs: HostCosts
) -> None:
    before = exposed(gpu_s, launches, syncs, costs)
    tolerance = 1e-9 * (gpu_s + before)
    # With fewer kernels the last one, which nothing hides, is longer.
    assert exposed(gpu_s, launches + 1, syncs, costs) >= before - gpu_s / launches - tolerance
    if launches > syncs + 1:
        assert exposed(gpu_s, launches, syncs + 1, costs) >= before - tolerance
        assert exposed(gpu_s, launches, syncs + 1, costs) >= (syncs + 1) * costs.sync_s - tolerance


@given(durations, kernels, waits)
def test_graphs_never_expose_more_than_eager(gpu_s: float, launches: int, syncs: int) -> None:
    if launches <= syncs:
        return
    graph = exposed(gpu_s, launches, syncs, SHIPPED["cuda-graph"])
    eager = exposed(gpu_s, launches, syncs, SHIPPED["eager"])
    assert graph <= eager + 1e-9 * (gpu_s + eager)


@given(st.lists(st.tuples(durations, kernels, waits), min_size=1, max_size=6), host_costs())
def test_scalar_and_array_agree(points: list[tuple[float, int, int]], costs: HostCosts) -> None:
    columns = np.array(points, dtype=np.float64).T
    together = stage_time_s(columns[0], columns[1], columns[2], costs)
    alone = [exposed(*point, costs) for point in points]
    assert together.tolist() == pytest.approx(alone, rel=1e-12, abs=1e-15)


def test_long_kernels_hide_the_host() -> None:
    """Of a thousand kernels of a millisecond only the first launch and the gaps show."""
    costs = SHIPPED["eager"]
    expected = costs.launch_s + 1000 * costs.gap_s
    assert exposed(1.0, 1000, 0, costs) == pytest.approx(expected)


def test_short_kernels_wait_for_the_host() -> None:
    costs = SHIPPED["eager"]
    assert exposed(1e-9, 1000, 0, costs) == pytest.approx(1000 * costs.launch_s, rel=1e-3)


def test_a_wait_restarts_the_queue() -> None:
    costs = HostCosts(launch_s=1e-5, start_s=0.0, gap_s=0.0, sync_s=5e-5)
    once, twice = exposed(1.0, 100, 0, costs), exposed(1.0, 100, 1, costs)
    assert twice - once == pytest.approx(costs.sync_s + costs.launch_s)


def test_nothing_launched_costs_nothing() -> None:
    assert exposed(0.0, 0, 0, SHIPPED["cuda-graph"]) == 0.0


def test_every_runtime_of_a_deployment_has_costs() -> None:
    assert set(list_runtimes()) == set(get_args(Runtime))
    for name in list_runtimes():
        assert load_runtime(name).name == name


@pytest.mark.parametrize("name", list_runtimes())
def test_numbers_are_sourced_and_plausible(name: str) -> None:
    profile = load_runtime(name)
    assert all(quantity.source in profile.sources for quantity in profile.quantities())
    # Microseconds: below one tenth no host dispatches, above one hundred none would be used.
    assert all(1e-7 < quantity.si < 1e-4 for quantity in profile.quantities())


def test_a_graph_launches_kernels_fastest_and_eager_slowest() -> None:
    costs = [SHIPPED[name].launch_s for name in ("cuda-graph", "compiled", "eager")]
    assert costs == sorted(costs)


def test_own_file_and_unknown_names(tmp_path: Path) -> None:
    path = tmp_path / "fast.yaml"
    path.write_text(
        "name: fast\ntitle: Fast host\nlaunch: {value: 2, unit: us}\nsync: {value: 5, unit: us}\n",
        encoding="utf-8",
    )
    own = HostCosts.of(load_runtime(str(path)))
    assert own.launch_s == pytest.approx(2e-6)
    assert own.start_s == 0.0
    with pytest.raises(UnknownNameError, match="cuda-graph"):
        load_runtime("cuda-grap")


def test_a_bandwidth_is_no_duration() -> None:
    wrong = {"value": 2, "unit": "GB/s"}
    with pytest.raises(SpecError, match="use s, ms, us"):
        RuntimeProfile.parse({"name": "x", "title": "X", "launch": wrong, "sync": wrong}, "x.yaml")


def test_launch_range_of_every_runtime_holds_its_value() -> None:
    for name in list_runtimes():
        costs = SHIPPED[name]
        low, high = costs.at_launch("low").launch_s, costs.at_launch("high").launch_s
        assert low <= costs.launch_s <= high
        assert low < high


def test_measured_host_costs_replace_the_defaults() -> None:
    calibration = default_calibration(load_gpu("a100-80gb-sxm"))
    assert calibration is not None
    free = HostFit(
        runtime="eager", launch_s=0.0, launch_low_s=0.0, launch_high_s=0.0,
        source="s", software="w", rows=1, fitted=datetime.date(2026, 1, 1),
    )  # fmt: skip
    own = calibration.model_copy(update={"host": (free,)})
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, runtime="eager")
    evaluation = evaluate(case.program()[0], "prefill")
    busy = np.full((len(evaluation.ops), *evaluation.points), 1e-6)
    reported = exposed_host_s(evaluation, busy, case.deployment, calibration)
    measured = exposed_host_s(evaluation, busy, case.deployment, own)
    assert measured.time_s == pytest.approx(0.0, abs=1e-9)
    assert reported.low_s < reported.time_s < reported.high_s


def test_host_range_widens_the_band_of_short_eager_prefills() -> None:
    short = estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=1, visual_tokens=0,
                     runtime="eager")  # fmt: skip
    graph = estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=1, visual_tokens=0)
    eager_low, eager_high = short.interval_s["ttft"]["same_stack"]
    graph_low, graph_high = graph.interval_s["ttft"]["same_stack"]
    assert eager_high / eager_low > graph_high / graph_low
