"""Every point of a sweep is an estimate at the same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from costmodel.errors import InputError
from costmodel.estimation import estimate
from costmodel.results import STAGES, Estimate
from costmodel.sweep import iterate, to_frame
from costmodel.sweep.kept import options_for
from costmodel.sweep.parts import parts_of

EXACT = 1e-11

AXES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["llava-1.5-7b", "qwen2-vl-7b", "internvl3-8b", "llama-2-7b"]),
        "gpu": st.sampled_from(["a100-80gb-sxm", "h100-sxm", "rtx-a6000"]),
        "method": st.sampled_from(
            ["none", "cluster", "cluster:k=9", "avgpool", "stf", "mbtf", "fastv", "visionzip",
             "random:k=50 then cluster", ["spatial:k=60", "random"], {"cluster": {"iterations": 3}}]
        ),
        "batch": st.sampled_from([[1, 3], {"range": [2, 8, 3]}, {"log_range": [1, 64, 3]}]),
        "text_tokens": st.sampled_from([[64, 16], {"range": [20, 60, 1]}, {"range": [1, 90, 7]}]),
        "runtime": st.sampled_from(["eager", "cuda-graph"]),
        "time_model": st.sampled_from(["calibrated", "ideal"]),
        "output_tokens": st.sampled_from([0, 20]),
        "tp": st.sampled_from([1, 2]),
    }
)  # fmt: skip
KEPT = st.sampled_from(
    [{"retention": [0.1, 0.25]}, {"visual_tokens_kept": [36, 40]}]
)  # fmt: skip
SAMPLED = {
    "sample": {"latin_hypercube": 8, "seed": 1},
    "batch": {"log_between": [1, 32]},
    "text_tokens": {"between": [16, 400]},
}


def estimated(row: dict[str, Any], spec: dict[str, Any]) -> Estimate:
    """Return the estimate of a row, from what the row says only."""
    method = spec["method"]
    if isinstance(method, dict):
        method = "cluster:iterations=3"
    parts = method if isinstance(method, list) else [method]
    options = {
        name: spec[name] for name in ("runtime", "time_model", "output_tokens", "tp")
    } | {"text_tokens": int(row["text_tokens"]), "batch": int(row["batch"])}  # fmt: skip
    asked = int(row.get("visual_tokens_asked", 0))
    compress = None if method == "none" else " then ".join(parts)
    if asked:
        from costmodel.compression.method import Context
        from costmodel.estimation import prepare

        case = prepare(spec["model"], spec["gpu"], text_tokens=1)
        context = Context(case.model, case.images, case.deployment)
        (option,), _ = options_for(str(compress), context, [asked])
        compress = option.compress
    return estimate(spec["model"], spec["gpu"], compress=compress, **options)


def check(row: dict[str, Any], result: Estimate) -> None:
    def near(value: float) -> Any:
        return pytest.approx(value, rel=EXACT, abs=1e-15)

    assert row["visual_tokens_kept"] == near(result.tokens["visual_kept"])
    for stage in (*STAGES, "host_overhead", "ttft", "tpot"):
        assert row[f"{stage}_s"] == near(result.time_s[stage]), stage
    for stage in STAGES:
        assert row[f"{stage}_flop"] == near(result.flops[stage]), stage
    assert row["flops_total_flop"] == near(result.flops["total"])
    for name in ("weights", "kv_cache", "activations_peak"):
        assert row[f"{name}_bytes"] == near(result.memory_bytes[name]), name
    assert row["memory_total_bytes"] == near(result.memory_bytes["total"])
    assert row["fits"] == result.memory_bytes["fits"]
    if "ttft_low_s" in row:
        low, high = result.interval_s["ttft"]["any_stack"]
        assert (row["ttft_low_s"], row["ttft_high_s"]) == (near(low), near(high))


@given(AXES, KEPT, st.booleans(), st.data())
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_points_are_estimates(
    axes: dict[str, Any], kept: dict[str, Any], sampled: bool, data: st.DataObject
) -> None:
    if axes["model"] == "llama-2-7b":
        axes = axes | {"method": "none"}
    outputs = ["times", "flops", "memory", "tpot_s"]
    spec = axes | kept | {"outputs": outputs, "bands": axes["time_model"] == "calibrated"}
    if sampled:
        spec |= SAMPLED
    try:
        # A list is an axis: a chain is a list in it.
        frame = to_frame(spec | {"method": [spec["method"]]})
    except InputError as error:
        if error.value != "no points":
            raise
        return
    for _ in range(2):
        place = data.draw(st.integers(0, len(frame) - 1))
        row = {str(name): value for name, value in frame.iloc[place].items()}
        check(row, estimated(row, spec))


def test_every_combination_once_in_order() -> None:
    spec = {
        "model": "llava-1.5-7b", "gpus": ["a40", "l4"], "methods": ["none", "cluster"],
        "visual_tokens_kept": [64, 32], "batch": [4, 1], "text_tokens": [16, 90, 17],
        "time_model": "ideal", "outputs": "ttft_s",
    }  # fmt: skip
    frame = to_frame(spec)
    expected = [
        (gpu, method, batch, asked, text)
        for gpu in ("a40", "l4")
        for method, counts in (("none", (0,)), ("cluster", (64, 32)))
        for batch in (4, 1)
        for asked in counts
        for text in (16, 90, 17)
    ]
    names = ["gpu", "method", "batch", "visual_tokens_asked", "text_tokens"]
    assert list(frame[names].itertuples(index=False, name=None)) == expected
    kept = frame[["visual_tokens_asked", "visual_tokens_kept"]].drop_duplicates()
    assert kept.to_numpy().tolist() == [[0, 576], [64, 64], [32, 32]]


def test_chunks_end_anywhere_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {
        "model": "llava-1.5-7b", "gpu": "a100-80gb-sxm", "method": "cluster",
        "visual_tokens_kept": [64, 65], "batch": [1, 2, 3], "text_tokens": {"range": [16, 60, 1]},
        "runtime": "eager", "outputs": "all",
    }  # fmt: skip
    (whole,) = list(iterate(spec))
    for most in (7, 45, 46, 100):
        with monkeypatch.context() as patched:
            patched.setattr(
                "costmodel.sweep.running.parts_of", lambda sizes, n=most: parts_of(sizes, n)
            )
            chunks = list(iterate(spec))
        assert len(chunks) == -(-270 // most)
        for name, column in whole.items():
            joined = np.concatenate([chunk[name] for chunk in chunks])
            assert (joined == column).all(), (name, most)


def test_float32_times_are_the_same_to_six_digits() -> None:
    spec: dict[str, Any] = {
        "model": "llava-1.5-7b", "gpu": "a40", "text_tokens": [16, 99], "bands": True,
    }  # fmt: skip
    (wide,), (narrow,) = list(iterate(spec)), list(iterate(spec | {"precision": "float32"}))
    assert narrow["ttft_s"].dtype == np.float32
    assert narrow["kv_cache_bytes"].dtype == np.float64
    for name in ("ttft_s", "llm_prefill_s", "ttft_low_s", "ttft_high_s"):
        assert narrow[name] == pytest.approx(wide[name], rel=1e-5)


def test_latin_hypercube_has_one_point_in_every_stratum() -> None:
    spec = {
        "model": "llava-1.5-7b", "gpu": "a40", "time_model": "ideal", "outputs": "ttft_s",
        "sample": {"latin_hypercube": 50, "seed": 3},
        "batch": {"between": [1, 100]}, "text_tokens": {"between": [1, 5000]},
    }  # fmt: skip
    frame = to_frame(spec)
    assert len(frame) == 50
    strata = np.floor((frame["text_tokens"] - 0.5) / 100).astype(int)
    assert sorted(strata) == list(range(50))
    assert to_frame(spec).equals(frame)
    assert not to_frame(spec | {"sample": {"latin_hypercube": 50, "seed": 4}}).equals(frame)


def test_sampled_counts_that_cannot_be_kept_are_left_out() -> None:
    from costmodel.sweep.running import prepare_sweep

    spec = {
        "model": "llava-1.5-7b", "gpu": "a40", "methods": ["avgpool", "random"],
        "time_model": "ideal", "text_tokens": 16, "outputs": "ttft_s",
        "sample": {"latin_hypercube": 100}, "visual_tokens_kept": {"between": [30, 40]},
    }  # fmt: skip
    prepared = prepare_sweep(spec)
    (lost,) = prepared.plan.left_out
    assert prepared.plan.points + lost.points == 200
    assert prepared.plan.points < 200
    frame = to_frame(prepared)
    assert set(frame[frame["method"] == "avgpool"]["visual_tokens_kept"]) == {36}
