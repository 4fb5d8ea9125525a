"""The calibrated time model: what its numbers rest on, its bands, and its physics."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from costmodel.calibration.setups import SETUPS
from costmodel.catalog.calibrations import list_calibrations, load_calibration
from costmodel.catalog.hardware import list_gpus, load_gpu
from costmodel.errors import InputError, UnknownNameError, UnsupportedError
from costmodel.estimation import Estimate, estimate, prepare
from costmodel.points import evaluate_grid
from costmodel.timing.kernels.registry import kernel_model

WITH_DEFAULT = [name for name in list_gpus() if load_gpu(name).default_calibration]


@lru_cache
def result(model: str = "llava-1.5-7b", gpu: str = "a100-80gb-sxm", **options: Any) -> Estimate:
    return estimate(model, gpu, **{"text_tokens": 64, **options})


def test_devices_with_a_calibration() -> None:
    # Measured ones, the RTX A6000 by transfer, and siblings of the same chip.
    assert WITH_DEFAULT == [
        "a100-40gb-pcie", "a100-40gb-sxm", "a100-80gb-pcie", "a100-80gb-sxm", "a30", "a40",
        "a800-80gb-sxm", "h100-pcie", "h100-sxm", "h200", "l40s", "rtx-a6000",
    ]  # fmt: skip


@pytest.mark.parametrize("name", list_calibrations())
def test_every_calibration_loads_and_knows_its_models(name: str) -> None:
    calibration = load_calibration(name, load_gpu(name.partition(".")[0]))
    assert calibration.name == name
    for fit in calibration.kinds:
        model = kernel_model(fit.model)
        assert set(fit.values) == {parameter.name for parameter in model.parameters}
        for parameter in model.parameters:
            value = fit.values[parameter.name]
            given = {setup.fixed.get(parameter.name) for setup in SETUPS.values()}
            room = 1e-4 * abs(value)
            inside = parameter.low - room <= value <= parameter.high + room
            assert inside or value in given or value == 0.0, parameter.name
        assert fit.origin == "fitted" or fit.rule
        assert (fit.error is not None) == (fit.origin == "fitted")


@pytest.mark.parametrize("gpu", WITH_DEFAULT)
@pytest.mark.parametrize("model", ["llava-1.5-7b", "qwen2.5-vl-7b", "llama-3-8b"])
def test_default_is_calibrated_and_slower_than_the_roofline(gpu: str, model: str) -> None:
    found = result(model, gpu)
    ideal = result(model, gpu, time_model="ideal")
    assert found.inputs["time_model"] == "calibrated"
    assert found.time_s["ttft"] > ideal.time_s["ttft"]
    # No public measurement of these cards is more than four times the roofline at 640 tokens.
    assert found.time_s["ttft"] < 4 * ideal.time_s["ttft"]
    assert found.flops == ideal.flops


@pytest.mark.parametrize("gpu", WITH_DEFAULT)
def test_bands_hold_the_estimate_and_the_wider_one_the_other(gpu: str) -> None:
    for compress in (None, "cluster:k=64"):
        found = result(gpu=gpu, compress=compress)
        for which in ("ttft", "tpot"):
            same, other = (found.interval_s[which][kind] for kind in ("same_stack", "any_stack"))
            assert other[0] <= same[0] <= found.time_s[which] <= same[1] <= other[1]
        assert found.interval_s["level"] == 0.9


@pytest.mark.parametrize("gpu", WITH_DEFAULT)
@pytest.mark.parametrize("compress", ["spatial:k=64", "cluster:k=64", "fastv:k=100"])
def test_bands_of_savings_hold_them_and_are_narrower_than_independent_ones(
    gpu: str, compress: str
) -> None:
    found = result(gpu=gpu, compress=compress)
    assert found.baseline is not None
    for which in ("ttft", "tpot"):
        ratio = found.savings[f"{which}_s_ratio"]
        bands = found.savings_interval[f"{which}_s_ratio"]
        same, other = bands["same_stack"], bands["any_stack"]
        assert other[0] <= same[0] <= ratio * (1 + 1e-9)
        assert ratio * (1 - 1e-9) <= same[1] <= other[1]
        before, after = (each.interval_s[which]["any_stack"] for each in (found.baseline, found))
        assert other[1] / other[0] < before[1] / before[0] * after[1] / after[0]
    assert result(gpu=gpu).savings_interval == {}
    assert result(gpu=gpu, compress=compress, time_model="ideal").savings_interval == {}


def test_stages_have_bands_and_the_weakest_tag_of_what_dominates_them() -> None:
    found = result(compress="cluster:k=64")
    for stage, bands in found.interval_s["stages"].items():
        for low, high in bands.values():
            assert low <= found.time_s[stage] <= high
    assert set(found.interval_s["stages"]) == {
        "vision_encoder", "projector", "compression", "llm_prefill", "lm_head",
    }  # fmt: skip
    tags = found.provenance["stages"]
    # Encoder attention of the A100 is borrowed; every language-model product was measured.
    assert tags["llm_prefill"] in ("measured", "interpolated")
    assert tags["compression"] == "transferred"
    assert set(result(gpu="v100-sxm").provenance["stages"].values()) == {"datasheet"}


def test_transferred_bands_are_wider_than_measured_ones() -> None:
    def width(gpu: str) -> float:
        low, high = result(gpu=gpu).interval_s["ttft"]["same_stack"]
        return float(np.log(high / low))

    assert width("rtx-a6000") > width("a40")
    assert width("a800-80gb-sxm") > width("a100-80gb-sxm")
    sibling = result(gpu="a800-80gb-sxm")
    assert {op.provenance for op in sibling.ops} == {"transferred"}
    assert any("fitted on another device" in note for note in sibling.notes)


def test_provenance_of_operators() -> None:
    kinds = {op.name: op.provenance for op in result(text_tokens=64, visual_tokens=576).ops}
    # 640 tokens of Llama-2-7B's query-key-value product are a row of the Vidur timings.
    assert kinds["decoder.qkv_proj"] == "measured"
    assert kinds["vision.attention"] == "transferred"
    transferred = {op.provenance for op in result(gpu="rtx-a6000").ops}
    assert transferred == {"transferred"}


def test_a_shape_between_measured_ones_is_interpolated_and_beyond_is_extrapolated() -> None:
    def qkv(tokens: int) -> str:
        found = result("llama-2-7b", text_tokens=tokens)
        return next(op.provenance for op in found.ops if op.name == "decoder.qkv_proj")

    assert qkv(641) == "interpolated"
    assert qkv(1_000_000) == "extrapolated"


def test_compression_saves_less_time_than_flops_and_less_than_the_roofline_says() -> None:
    found = result(compress="cluster:k=64").savings
    ideal = result(compress="cluster:k=64", time_model="ideal").savings
    assert found["ttft_s_ratio"] < ideal["ttft_s_ratio"] < ideal["flops_ratio"]


def test_host_overhead_by_runtime_and_synchronisation() -> None:
    def host(**options: Any) -> float:
        return result(**options).time_s["host_overhead"]

    assert host(runtime="eager") > host(runtime="compiled") > host(runtime="cuda-graph") > 0
    checked = host(compress="cluster:k=64")
    assert checked > host(compress="cluster:k=64,check=false")
    assert host(compress="cluster:k=64,impl=fused") < checked


def test_stages_and_operators_sum_to_ttft() -> None:
    found = result(compress="cluster:k=64")
    stages = sum(value for name, value in found.time_s.items() if name not in ("ttft", "tpot"))
    assert found.time_s["ttft"] == pytest.approx(stages, rel=1e-12)
    by_op = sum(op.time_s for op in found.ops) + found.time_s["host_overhead"]
    assert found.time_s["ttft"] == pytest.approx(by_op, rel=1e-12)


def test_grid_equals_single_estimates() -> None:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    grid = evaluate_grid(case, text_tokens=[64, 300, 1000])
    for index, tokens in enumerate((64, 300, 1000)):
        single = result(text_tokens=tokens)
        assert grid.time_s["ttft"][index] == pytest.approx(single.time_s["ttft"], rel=1e-9)


def test_cache_writes_are_part_of_measured_attention() -> None:
    flash = {op.name: op.time_s for op in result().ops}
    eager = {op.name: op.time_s for op in result(attention="eager").ops}
    assert flash["decoder.kv_cache"] == 0
    assert eager["decoder.kv_cache"] > 0


def test_another_calibration_by_name() -> None:
    other = result(calibration="aic-sglang")
    assert other.provenance["evidence"]["calibration"] == "a100-80gb-sxm.aic-sglang"
    assert other.time_s["ttft"] != result().time_s["ttft"]


def test_errors_name_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="aic-vllm"):
        result(calibration="aic-vlm")
    with pytest.raises(UnsupportedError, match="none ships for v100-sxm"):
        result(gpu="v100-sxm", time_model="calibrated")
    with pytest.raises(InputError, match="no calibration with the time model ideal"):
        result(calibration="aic-vllm", time_model="ideal")


def test_quantised_weights_use_their_own_kernels() -> None:
    plain, int4 = result(), result(weights_dtype="int4")
    assert int4.time_s["tpot"] < 0.6 * plain.time_s["tpot"]
    assert "gemm_w4a16" in int4.provenance["evidence"]["kinds"]


def test_a_python_loop_on_the_host_takes_its_calls() -> None:
    # 63 further centres at 0.42 ms beside the arithmetic of three of 64 cores and the link.
    def clustering(k: int) -> float:
        made = estimate(
            "llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress=f"cluster:k={k},impl=sklearn"
        )
        return made.time_s["compression"]

    assert clustering(64) > 63 * 0.42e-3
    assert clustering(128) - clustering(64) > 64 * 0.42e-3
