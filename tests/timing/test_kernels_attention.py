"""Attention models: exact block counts, physics, recovery of parameters, public timings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration.attention_stacks import SETTINGS, settings_of
from costmodel.calibration.evaluation_attention import (
    AttentionStack,
    attention_roofline_s,
    evaluate_attention,
    interval_coverage,
    out_of_fold,
    transfer_to,
)
from costmodel.calibration.fitting import Samples, fit
from costmodel.errors import UnknownNameError
from costmodel.timing.kernels.attention import CAUSAL, ENCODER, FlashModel
from costmodel.timing.kernels.base import Chip, FloatArray
from costmodel.timing.kernels.decode import BENCHMARK_MODEL, MODEL, DecodeModel
from costmodel.timing.kernels.flash import best_splits, causal_blocks
from costmodel.timing.kernels.registry import kernel_model

A100 = Chip(312e12, 2039e9, 40 * 2**20, 108, 300e9)
KERNELS = [(kind, kernel) for kind, kernels in SETTINGS.items() for kernel in kernels]
MODEL_OF: dict[str, FlashModel | DecodeModel] = {
    "attention_prefill": CAUSAL,
    "attention_encoder": ENCODER,
    "attention_decode": MODEL,
}
HEADS = st.sampled_from([(1, 1), (8, 8), (32, 32), (32, 8), (28, 4), (40, 10), (64, 8)])
HEAD_DIMS = st.sampled_from([64, 72, 80, 96, 128, 192, 256])

Model = FlashModel | DecodeModel


def values_of(kind: str, kernel: str, model: Model | None = None) -> dict[str, float]:
    model = model or MODEL_OF[kind]
    return {p.name: p.start for p in model.parameters} | settings_of(kind, kernel)


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Model, dict[str, float]]:
    """Draw a model with any physical parameters and the structure of a real kernel."""
    kind, kernel = draw(st.sampled_from(KERNELS))
    model = MODEL_OF[kind]
    values = {p.name: draw(st.floats(p.low, p.high)) for p in model.parameters}
    return model, values | settings_of(kind, kernel)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, float]:
    heads, kv_heads = draw(HEADS)
    q_len = draw(st.integers(1, 20_000))
    return {
        "batch": draw(st.integers(1, 256)),
        "q_len": q_len,
        "kv_len": q_len + draw(st.sampled_from([0, 100, 5000])),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": draw(HEAD_DIMS),
    }


def time_s(
    model: Model, values: dict[str, float], shape: Mapping[str, float], chip: Chip = A100
) -> float:
    columns = {name: np.array(float(size)) for name, size in shape.items()}
    return float(model.time_s(values, columns, chip))


@given(
    q_len=st.integers(1, 3000),
    prefix=st.integers(0, 2000),
    rows=st.sampled_from([16, 64, 128, 192]),
    keys=st.sampled_from([48, 64, 80, 112, 128, 144, 176, 256]),
    group=st.integers(1, 16),
)
def test_causal_blocks_match_brute_force(
    q_len: int, prefix: int, rows: int, keys: int, group: int
) -> None:
    one = np.ones(1)
    row_blocks, key_blocks = causal_blocks(
        q_len * one, (q_len + prefix) * one, rows * one, keys * one, group * one
    )
    packed = q_len * group
    ends = [min(first + rows, packed) for first in range(0, packed, rows)]
    # The last packed row of a block belongs to this many-th query.
    visible = [prefix + math.ceil(end / group) for end in ends]
    assert row_blocks.item() == len(ends)
    assert key_blocks.item() == sum(math.ceil(length / keys) for length in visible)


def test_causal_blocks_are_vectorised_over_different_periods() -> None:
    q_len, rows = np.array([1000.0, 1000.0, 7.0]), np.array([192.0, 64.0, 128.0])
    keys, group = np.array([128.0, 80.0, 64.0]), np.array([1.0, 3.0, 1.0])
    together = causal_blocks(q_len, q_len, rows, keys, group)
    for index in range(3):
        row = slice(index, index + 1)
        alone = causal_blocks(q_len[row], q_len[row], rows[row], keys[row], group[row])
        assert [x[index] for x in together] == [x.item() for x in alone]


@given(st.integers(1, 500), st.integers(1, 2000))
def test_splits_are_those_of_the_published_heuristic(items: int, blocks: int) -> None:
    slots = 216
    found = best_splits(np.array([float(items)]), np.array([float(blocks)]), slots).item()
    assert found == published_splits(items, slots, blocks, 128)


def published_splits(items: int, slots: int, blocks: int, most: int) -> int:
    """Transcribe num_splits_heuristic of FlashAttention-2, flash_api.cpp."""
    if items >= 0.8 * slots:
        return 1
    most = min(most, slots, blocks)
    best, efficiency = 0.0, {}
    for splits in range(1, most + 1):
        if splits > 1 and math.ceil(blocks / splits) == math.ceil(blocks / (splits - 1)):
            continue
        waves = items * splits / slots
        efficiency[splits] = waves / math.ceil(waves)
        best = max(best, efficiency[splits])
    return next(splits for splits, value in efficiency.items() if value >= 0.85 * best)


@given(drawn(), shapes())
def test_never_faster_than_hardware(
    case: tuple[Model, dict[str, float]], shape: dict[str, float]
) -> None:
    model, values = case
    causal = model is CAUSAL
    shape = shape | ({"q_len": 1} if model is MODEL else {})
    scores = shape["q_len"] * shape["kv_len"]
    if causal:
        scores -= shape["q_len"] * (shape["q_len"] - 1) / 2
    flops = 4 * shape["batch"] * shape["heads"] * shape["head_dim"] * scores
    moved = 4 * shape["batch"] * shape["q_len"] * shape["heads"] * shape["head_dim"]
    if model is MODEL:
        moved += 4 * shape["batch"] * shape["kv_len"] * shape["kv_heads"] * shape["head_dim"]
    seconds = time_s(model, values, {name: shape[name] for name in model.sizes})
    cached = 1.0 if model is MODEL else values["lh"]
    assert seconds >= values["t0"]
    assert seconds >= 0.999 * flops / (A100.peak_flops_per_s * 1.05)
    assert seconds >= 0.999 * moved / (A100.bandwidth_bytes_per_s * 1.1 * cached)


@given(
    st.sampled_from(KERNELS),
    shapes(),
    st.sampled_from(["batch", "q_len", "kv_len", "heads"]),
    st.integers(2, 5),
)
def test_larger_is_hardly_faster(
    name: tuple[str, str], shape: dict[str, float], size: str, factor: int
) -> None:
    model, values = MODEL_OF[name[0]], values_of(*name)
    larger = dict(shape)
    larger[size] *= factor
    if size == "heads":
        larger["kv_heads"] *= factor
    if size == "q_len":
        larger["kv_len"] += larger["q_len"] - shape["q_len"]
    small, large = (
        time_s(model, values, {key: sizes[key] for key in model.sizes}) for sizes in (shape, larger)
    )
    # A full wave, more splits or tiles of grouped heads can make more work a little faster.
    assert large >= 0.7 * small


@given(shapes(), st.sampled_from(list(SETTINGS["attention_prefill"])))
def test_mask_never_slows(shape: dict[str, float], kernel: str) -> None:
    values = values_of("attention_prefill", kernel) | {"cw": 0.0, "wt": 0.0, "ga": 0.0, "un": 0.0}
    # Causal timings include the new cache entries, which take room in the cache: without one.
    chip = dataclasses.replace(A100, l2_bytes=1.0)
    whole = time_s(ENCODER, values | {"al": 0.0}, shape, chip)
    assert time_s(CAUSAL, values, shape, chip) <= 1.001 * whole


@given(drawn(), shapes())
def test_a_faster_chip_never_slows(
    case: tuple[Model, dict[str, float]], shape: dict[str, float]
) -> None:
    model, values = case
    sizes = {name: shape[name] for name in model.sizes}
    faster = dataclasses.replace(
        A100,
        peak_flops_per_s=2 * A100.peak_flops_per_s,
        bandwidth_bytes_per_s=2 * A100.bandwidth_bytes_per_s,
    )
    assert time_s(model, values, sizes, faster) <= time_s(model, values, sizes)


@pytest.mark.parametrize(("kind", "kernel"), KERNELS)
def test_vectorised_equals_scalar(kind: str, kernel: str) -> None:
    model, values = MODEL_OF[kind], values_of(kind, kernel)
    rng = np.random.default_rng(0)
    kv_heads = rng.choice([1.0, 4.0, 8.0], 40)
    q_len = rng.integers(1, 5000, 40).astype(float)
    columns = {
        "batch": rng.integers(1, 300, 40).astype(float),
        "q_len": q_len,
        "kv_len": q_len + rng.integers(0, 2, 40) * 700.0,
        "heads": kv_heads * rng.choice([1.0, 4.0, 7.0], 40),
        "kv_heads": kv_heads,
        "head_dim": rng.choice([64.0, 72.0, 128.0, 256.0], 40),
    }
    columns = {name: columns[name] for name in model.sizes}
    together = model.time_s(values, columns, A100)
    alone = [
        time_s(model, values, {name: column[i] for name, column in columns.items()})
        for i in range(40)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_decode_reads_its_cache_from_memory_except_in_a_repeated_benchmark() -> None:
    values = values_of("attention_decode", "vllm_flash_attn")
    shape = {"batch": 1, "kv_len": 8192, "heads": 32, "kv_heads": 8, "head_dim": 128}
    small, large = (shape | {"batch": batch} for batch in (1, 32))
    assert time_s(BENCHMARK_MODEL, values, small) < time_s(MODEL, values, small)
    same = time_s(BENCHMARK_MODEL, values, large)
    assert same == pytest.approx(time_s(MODEL, values, large), rel=1e-6)
    assert kernel_model("flash_decode") is MODEL
    assert kernel_model("flash_decode", benchmark=True) is BENCHMARK_MODEL


def test_groups_beyond_the_largest_are_served_head_by_head() -> None:
    values = values_of("attention_decode", "torch_flow")
    shape = {"batch": 64, "kv_len": 4096, "heads": 32, "kv_heads": 1, "head_dim": 128}
    served, single = (time_s(MODEL, values | {"gx": gx}, shape) for gx in (32.0, 16.0))
    assert single > 2 * served
    assert time_s(MODEL, values | {"gx": 0.0}, shape) == served


@pytest.mark.parametrize("name", ["flash_causal", "flash_encoder"])
def test_sequence_models_are_registered(name: str) -> None:
    assert kernel_model(name).name == name


def grid(model: Model) -> dict[str, FloatArray]:
    rng = np.random.default_rng(1)
    count = 1500
    kv_heads = rng.choice([2.0, 8.0, 32.0], count)
    length = rng.choice([16.0, 64.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0], count)
    columns = {
        "batch": rng.choice([1.0, 2.0, 8.0, 32.0, 128.0], count),
        "q_len": length,
        "kv_len": length,
        "heads": kv_heads * rng.choice([1.0, 4.0], count),
        "kv_heads": kv_heads,
        "head_dim": rng.choice([64.0, 128.0], count),
    }
    return {name: columns[name] for name in model.sizes}


@pytest.mark.parametrize(
    ("model", "kind", "kernel", "truth"),
    [
        (CAUSAL, "attention_prefill", "fa3", {"e": 0.62, "t0": 9e-6, "eb": 0.7}),
        (ENCODER, "attention_encoder", "flash_attention_v3", {"e": 0.62, "t0": 9e-6}),
        (BENCHMARK_MODEL, "attention_decode", "vllm_flash_attn", {"eb": 0.78, "t0": 6e-6}),
    ],
)
def test_fit_recovers_parameters(
    model: Model, kind: str, kernel: str, truth: dict[str, float]
) -> None:
    fixed, shape = settings_of(kind, kernel), grid(model)
    values = values_of(kind, kernel, model) | truth
    noise = np.exp(0.01 * np.random.default_rng(2).standard_normal(1500))
    seconds = model.time_s(values, shape, A100)
    samples = Samples(shape, seconds * noise, np.zeros(1500, dtype=np.int64))
    found = fit(model, samples, A100, fixed=fixed, starts=1, max_rows=800)
    for name, value in truth.items():
        assert found.values[name] == pytest.approx(value, rel=0.2), name
    again = model.time_s(found.values, shape, A100)
    assert np.abs(again / seconds - 1).mean() < 0.01


def test_unknown_kernels_are_named() -> None:
    with pytest.raises(UnknownNameError, match="flash_attention"):
        settings_of("attention_prefill", "flash_attentoin")
    with pytest.raises(UnknownNameError, match="attention_decode"):
        settings_of("attention_decoding", "fa3")


def public(shared_dir: Path, kind: str, gpu: str, software: str, chip: Chip) -> AttentionStack:
    pd = pytest.importorskip("pandas")
    file = "attention_decode" if kind == "attention_decode" else "attention_prefill"
    frame = pd.read_parquet(shared_dir / "measurements" / f"{file}.parquet")
    frame = frame[(frame.gpu == gpu) & (frame.software == software)]
    if kind != "attention_decode":
        frame = frame[frame.causal == (kind == "attention_prefill")]
    sizes = list(CAUSAL.sizes)
    kernel = str(frame.kernel.iloc[0])
    rows = frame.groupby(sizes).time_us.median().reset_index()
    groups = rows.groupby(["heads", "kv_heads", "head_dim"]).ngroup().to_numpy(dtype=np.int64)
    columns = {name: rows[name].to_numpy(dtype=np.float64) for name in sizes}
    seconds = rows.time_us.to_numpy(dtype=np.float64) * 1e-6
    samples = Samples(columns, seconds, groups)
    return AttentionStack(
        kind, gpu, "aiconfigurator", software, "bf16", kernel, chip, samples, ((6.5, 4), (6.5, 3))
    )


def test_public_prefill_within_target(shared_dir: Path) -> None:
    stack = public(shared_dir, "attention_prefill", "A100-SXM4-80GB", "vllm/0.14.0", A100)
    # Every second row keeps all head configurations and halves the time.
    stack = dataclasses.replace(
        stack, samples=stack.samples.take(np.arange(len(stack.samples)) % 2 == 0)
    )
    for row in evaluate_attention(stack, corrected=False):
        assert row.target_at_most is not None
        assert row.mape_pct <= row.target_at_most
        assert row.p90_pct <= 14
        assert row.roofline_mape_pct > 50


def test_public_decode_within_target_and_bands(shared_dir: Path) -> None:
    stack = public(shared_dir, "attention_decode", "A100-SXM4-80GB", "vllm/0.14.0", A100)
    stack = dataclasses.replace(
        stack, samples=stack.samples.take(np.arange(len(stack.samples)) % 2 == 0)
    )
    _, predicted = out_of_fold(stack)
    long = stack.samples.time_s >= 20e-6
    error = np.abs(predicted / stack.samples.time_s - 1)[long]
    assert error.mean() <= 0.12
    assert np.quantile(error, 0.9) <= 0.28
    assert 0.8 <= interval_coverage(stack, predicted) <= 0.97


def test_transfer_of_a_model_to_its_own_chip_is_exact() -> None:
    values, shape = values_of("attention_prefill", "fa3"), grid(CAUSAL)
    seconds = CAUSAL.time_s(values, shape, A100)
    samples = Samples(shape, seconds, np.arange(1500) % 4)
    stack = AttentionStack("attention_prefill", "a", "s", "w", "bf16", "fa3", A100, samples)
    rows = transfer_to(stack, dataclasses.replace(stack, gpu="b"))
    assert all(row.mape_pct < 1 for row in rows)
    assert rows[0].quantity.endswith("fitted on a")


def test_roofline_counts_the_visible_triangle() -> None:
    shape = {name: np.array([1.0]) for name in CAUSAL.sizes}
    shape |= {
        "q_len": np.array([4096.0]),
        "kv_len": np.array([4096.0]),
        "head_dim": np.array([128.0]),
    }
    samples = Samples(shape, np.array([1.0]), np.zeros(1, dtype=np.int64))
    masked = attention_roofline_s("attention_prefill", samples, A100).item()
    full = attention_roofline_s("attention_encoder", samples, A100).item()
    assert masked == pytest.approx(full * 4097 / 8192)
