"""Collectives: physics, recovery of known parameters, public timings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration.evaluation_memory import collective_rows
from costmodel.calibration.fitting import Samples, fit
from costmodel.calibration.memory_samples import COLLECTIVE_MODELS, KEYED, collective_samples
from costmodel.catalog.hardware import load_gpu
from costmodel.timing.kernels.base import Chip
from costmodel.timing.kernels.collective import MODELS, CollectiveModel

A100 = Chip(312e12, 2039e9, 40 * 2**20, 108, 300e9)
ALL_REDUCE = MODELS[0]
START = {parameter.name: parameter.start for parameter in ALL_REDUCE.parameters}

messages = st.integers(1, 2**34)
counts = st.integers(2, 512)


@st.composite
def parameter_values(draw: st.DrawFn) -> dict[str, float]:
    return {p.name: draw(st.floats(p.low, p.high)) for p in ALL_REDUCE.parameters}


def time_s(
    values: dict[str, float],
    message: float,
    devices: float,
    chip: Chip = A100,
    model: CollectiveModel = ALL_REDUCE,
) -> float:
    shapes = {"bytes": np.array(float(message)), "devices": np.array(float(devices))}
    return float(model.time_s(values, shapes, chip))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@given(values=parameter_values(), message=messages, devices=counts)
def test_never_faster_than_latency_or_links(
    model: CollectiveModel, values: dict[str, float], message: int, devices: int
) -> None:
    seconds = time_s(values, message, devices, model=model)
    assert seconds >= values["a0"] * (1 - 1e-9)
    sent = float(model.sent_bytes(np.array(float(message)), np.array(float(devices))))
    share = values["e"] * (values["ec"] if devices > 2 else 1.0)
    fastest = share * (devices / 2) ** values["bn"] * A100.link_bytes_per_s
    assert seconds >= sent / fastest * (1 - 1e-9)


@given(parameter_values(), messages, st.integers(1, 2**34), counts)
def test_larger_messages_never_take_less(
    values: dict[str, float], message: int, extra: int, devices: int
) -> None:
    before = time_s(values, message, devices)
    assert time_s(values, message + extra, devices) >= before * (1 - 1e-9)


@given(parameter_values(), messages, counts)
def test_twice_the_link_never_slows(values: dict[str, float], message: int, devices: int) -> None:
    wide = dataclasses.replace(A100, link_bytes_per_s=2 * A100.link_bytes_per_s)
    before = time_s(values, message, devices)
    assert time_s(values, message, devices, wide) <= before * (1 + 1e-9)


@given(messages, st.lists(counts, min_size=1, max_size=5))
def test_scalar_and_array_agree(message: int, devices: list[int]) -> None:
    shapes = {"bytes": np.array(float(message)), "devices": np.array(devices, dtype=np.float64)}
    together = ALL_REDUCE.time_s(START, shapes, A100)
    assert together.tolist() == pytest.approx([time_s(START, message, n) for n in devices])


def test_one_device_takes_no_time() -> None:
    assert time_s(START, 2**20, 1) == 0.0


def test_ring_factors() -> None:
    """A ring all-reduce sends 2 (n - 1) / n of the message, the others half of that."""
    message, devices = np.array(800.0), np.array(8.0)
    sent = {model.kind: float(model.sent_bytes(message, devices)) for model in MODELS}
    half = dict.fromkeys(("all_gather", "reduce_scatter", "alltoall"), 700.0)
    assert sent == {"all_reduce": 1400.0, "send_recv": 800.0} | half


def test_unmeasured_device_counts_lie_between() -> None:
    times = [time_s(START, 2**26, n) for n in (4, 6, 8)]
    assert times == sorted(times)


def test_fit_recovers_known_parameters() -> None:
    random = np.random.default_rng(5)
    size = np.tile(2.0 ** np.arange(10, 30), 3)
    devices = np.repeat([2.0, 4.0, 8.0], 20)
    truth = START | {"a0": 12e-6, "e": 0.75, "an": 0.3}
    shapes = {"bytes": size, "devices": devices}
    noise = np.exp(random.normal(0, 0.01, len(size)))
    times = ALL_REDUCE.time_s(truth, shapes, A100) * noise
    samples = Samples(shapes, times, np.arange(len(size)))
    found = fit(ALL_REDUCE, samples, A100, fixed={"p": truth["p"], "ec": 1.0}).values
    assert found["e"] == pytest.approx(0.75, rel=0.05)
    assert found["a0"] == pytest.approx(12e-6, rel=0.05)
    assert found["an"] == pytest.approx(0.3, abs=0.05)


def chip_of(gpu: str) -> Chip:
    profile = load_gpu(gpu)
    return Chip(
        profile.peak_flops_per_s("fp16") or 0.0,
        profile.bandwidth_bytes_per_s,
        profile.l2_cache.si,
        profile.multiprocessors,
        profile.link_bytes_per_s,
    )


def test_every_public_operation_has_a_model(shared_dir: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(shared_dir / "measurements" / "collectives.parquet")
    assert set(frame["op"]) == set(COLLECTIVE_MODELS)
    assert set(COLLECTIVE_MODELS.values()) == {model.name for model in MODELS}
    names = {parameter.name for parameter in ALL_REDUCE.parameters}
    assert set(KEYED) <= names
    vidur = frame[frame["source"].str.startswith("vidur") & (frame["gpu"] == "A100-SXM4-80GB")]
    labels = {label for label, _, _, _ in collective_samples(vidur)}
    assert {"a100_dgx", "a100_dgx 4/2", "a100_dgx 16/8"} <= labels


@pytest.mark.parametrize("gpu", ["A100-SXM4-80GB", "H100-SXM5-80GB", "H200-SXM"])
def test_public_timings_within_target(shared_dir: Path, gpu: str) -> None:
    """AIConfigurator timings within a node, sizes left out: NCCL and custom all-reduce."""
    import pandas as pd

    frame = pd.read_parquet(shared_dir / "measurements" / "collectives.parquet")
    frame = frame[(frame["gpu"] == gpu) & (frame["topology"] == "single-node")]
    frame = frame[~frame["software"].str.contains("eager")]
    rows = collective_rows(frame, chip_of, starts=2)
    for custom in (False, True):
        chosen = [row for row in rows if row.quantity.startswith("custom") == custom]
        assert chosen
        error = np.average([row.mape_pct for row in chosen], weights=[row.n for row in chosen])
        assert error <= (chosen[0].target_at_most or 0.0)
        assert all(row.mape_pct < row.roofline_mape_pct / 2 for row in chosen)


def test_across_nodes_each_layout_is_its_own_fit(shared_dir: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(shared_dir / "measurements" / "collectives.parquet")
    frame = frame[(frame["topology"] == "a100_dgx") & (frame["op"] == "all_reduce")]
    rows = {row.quantity: row for row in collective_rows(frame, chip_of, max_rows=300, starts=2)}
    assert rows["all_reduce, a100_dgx 2/1"].mape_pct < 5
    assert rows["all_reduce, a100_dgx 8/4"].mape_pct < 8
    assert rows["all_reduce, a100_dgx 16/8"].mape_pct < 25
    assert rows["all_reduce, a100_dgx 2/1"].target_at_most is None
