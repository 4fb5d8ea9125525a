"""What cannot be: rows above the peak, and files in another unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sympy import Integer

from costmodel.calibration.dtypes import DTYPES, dtype_name
from costmodel.calibration.physics import (
    PEAK_MARGIN,
    check_physics,
    check_unit,
    peak_limit_flops_per_s,
)
from costmodel.calibration.schema import Timings
from costmodel.calibration.work import BYTES, FLOPS
from costmodel.catalog.hardware import list_gpus, load_gpu
from costmodel.errors import SpecError
from costmodel.ops import exact, gemm
from costmodel.ops.attention import attention
from costmodel.symbols import sym

A30 = load_gpu("a30")
SIZES = {sym("ba"): 2, sym("bkv"): 2, sym("bw"): 2, sym("bo"): 2}


def _timings(kind: str, **columns: object) -> Timings:
    base: dict[str, object] = {
        "batch": 1,
        "gpu": "a30",
        "source": "s",
        "software": "",
        "dtype": "fp16",
    }
    rows = max((len(value) for value in columns.values() if isinstance(value, list)), default=1)
    frame = pd.DataFrame(base | columns, index=pd.RangeIndex(1, rows + 1))
    return Timings(kind, frame, Path("a.csv"), "")


def _attention(causal: bool, q_len: int, kv_len: int, time_us: float = 1.0) -> Timings:
    return _timings(
        "attention_prefill", causal=causal, batch=2, q_len=q_len, kv_len=kv_len, heads=32,
        kv_heads=8, head_dim=128, time_us=time_us,
    )  # fmt: skip


def test_work_is_that_of_the_operators() -> None:
    timings = _timings("gemm", m=96, n=512, k=256, time_us=1.0)
    m, n, k = (Integer(size) for size in (96, 512, 256))
    op = gemm("g", "llm", m=m, n=n, k=k)
    assert FLOPS["gemm"](timings.frame)[0] == exact(op.flops, {})
    assert BYTES["gemm"](timings.frame, 2, 2)[0] == exact(op.traffic.total, SIZES)
    sizes = {"batch": 2, "q_len": 64, "kv_len": 96, "heads": 32, "kv_heads": 8, "head_dim": 128}
    (flash,) = attention(
        "a", "llm", kind="attention_prefill", impl="flash",
        **{name: Integer(size) for name, size in sizes.items()},
    )  # fmt: skip
    full = _attention(False, 64, 96).frame
    assert FLOPS["attention_prefill"](full)[0] == exact(flash.flops, {})
    assert BYTES["attention_prefill"](full, 2, 2)[0] == exact(flash.traffic.total, SIZES)


def test_a_causal_mask_leaves_out_later_keys() -> None:
    """Of 4 queries with 6 keys, the first sees 3 keys and the last all 6: 18 pairs of 24."""
    pairs = [
        FLOPS["attention_prefill"](_attention(causal, 4, 6).frame)[0] / (4 * 2 * 32 * 128)
        for causal in (True, False)
    ]
    assert pairs == [3 + 4 + 5 + 6, 24]


@pytest.mark.parametrize("times_peak", [0.5, 1.0, 1.01, 1.05, 300.0])
def test_rows_above_the_peak_are_dropped(times_peak: float) -> None:
    """165 TFLOP/s: the A30's datasheet."""
    time_us = 2 * 4096**3 / (times_peak * 165e12) * 1e6
    keep, problems = check_physics(_timings("gemm", m=4096, n=4096, k=4096, time_us=time_us), A30)
    assert keep.tolist() == [times_peak <= PEAK_MARGIN]
    assert [(p.rows, p.dropped) for p in problems] == [((1,), True)] * (times_peak > PEAK_MARGIN)


def test_causal_attention_is_judged_by_half_the_work() -> None:
    full_s = 4 * 2 * 32 * 128 * 4096**2 / 165e12
    for causal, kept in ((True, True), (False, False)):
        keep, _ = check_physics(_attention(causal, 4096, 4096, 0.6e6 * full_s), A30)
        assert keep.tolist() == [kept]


def test_other_devices_are_not_judged() -> None:
    timings = _timings("gemm", gpu=["a30", "h100-sxm"], m=4096, n=4096, k=4096, time_us=300.0)
    keep, _ = check_physics(timings, A30)
    assert keep.tolist() == [False, True]


def test_a_format_without_a_peak_is_said_to_be_unchecked() -> None:
    timings = _timings("gemm", dtype="fp8", m=4096, n=4096, k=4096, time_us=1.0)
    keep, (problem,) = check_physics(timings, A30)
    assert keep.tolist() == [True]
    assert not problem.dropped
    assert problem.reason == "a30 has no peak rate of fp8: not checked against it"


@pytest.mark.parametrize("kind", ["memory_bound", "collective", "kernel"])
def test_kinds_without_a_bound_keep_every_row(kind: str) -> None:
    assert check_physics(_timings(kind, time_us=[1e-9, 1.0]), A30)[0].tolist() == [True, True]


@pytest.mark.parametrize("gpu", list_gpus())
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_limit_is_never_below_the_datasheet(gpu: str, dtype: str) -> None:
    profile = load_gpu(gpu)
    limit = peak_limit_flops_per_s(profile, dtype)
    for format_ in DTYPES[dtype].computes_in:
        for engine in ("tensor", "vector"):
            peak = profile.peak_flops_per_s(format_, engine)
            assert peak is None or (limit is not None and limit >= peak)


@pytest.mark.parametrize(("scale", "unit"), [(1.0, None), (1e-3, "ms"), (1e-6, "s"), (1e3, "ns")])
@pytest.mark.parametrize("kind", ["gemm", "attention_prefill", "memory_bound", "collective"])
def test_the_unit_is_guessed(kind: str, scale: float, unit: str | None) -> None:
    sizes = {
        "gemm": {"m": 4096, "n": 4096, "k": 4096, "time_us": 1200.0},
        "attention_prefill": {
            "causal": True, "batch": 1, "q_len": 4096, "kv_len": 4096, "heads": 32,
            "kv_heads": 32, "head_dim": 128, "time_us": 2000.0,
        },
        "memory_bound": {"rows": 64, "cols": 4096, "time_us": 8.0},
        "collective": {"bytes": 2**26, "n_gpus": 2, "time_us": 4000.0},
    }[kind]  # fmt: skip
    timings = _timings(kind, **{**sizes, "time_us": sizes["time_us"] * scale})
    if unit is None:
        check_unit(timings, {"a30": A30})
        return
    with pytest.raises(SpecError, match=f"are the times in {unit} instead of us"):
        check_unit(timings, {"a30": A30})


def test_one_source_of_several_may_have_the_wrong_unit() -> None:
    timings = _timings(
        "gemm",
        source=["a"] * 20 + ["b"] * 8,
        m=4096,
        n=4096,
        k=4096,
        time_us=[1200.0] * 20 + [1.2] * 8,
    )
    with pytest.raises(SpecError, match="the median gemm row of b takes"):
        check_unit(timings, {"a30": A30})


def test_tidy_names_are_fixed_points() -> None:
    assert [dtype_name(name) for name in DTYPES] == list(DTYPES)
    assert np.isfinite([f.activation_bytes * f.weight_bytes for f in DTYPES.values()]).all()
