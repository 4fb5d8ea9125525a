"""The ideal time against a roofline written out from published shapes in plain floats."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from costmodel.catalog.hardware import list_gpus, load_gpu, load_host
from costmodel.errors import UnknownNameError, UnsupportedError
from costmodel.estimation import Estimate, estimate, prepare
from costmodel.evaluation import evaluate
from costmodel.results import OpRow
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.workload import Deployment
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.model import BOUNDS, list_time_models, load_time_model


@lru_cache
def result(model: str = "llava-1.5-7b", gpu: str = "a100-80gb-sxm", **options: Any) -> Estimate:
    return estimate(model, gpu, **{"text_tokens": 64, "time_model": "ideal", **options})


# A100 80GB SXM datasheet: dense fp16 tensor peak, fp32 vector peak, memory bandwidth.
TENSOR, VECTOR, BANDWIDTH = 312e12, 19.5e12, 2039e9
FP16 = 2


def roofline(flops: float, moved: float, peak: float) -> float:
    return max(flops / peak, moved / BANDWIDTH)


def product(rows: int, out: int, into: int, bias: bool = False) -> float:
    """Return the time of one linear layer: weights, input and output cross memory once."""
    weights = out * into + (out if bias else 0)
    return roofline(2 * rows * out * into, FP16 * (weights + rows * (into + out)), TENSOR)


def elementwise(elements: int, flops: int, reads: float, writes: float, weights: int = 0) -> float:
    moved = FP16 * (elements * (reads + writes) + weights)
    return roofline(elements * flops, moved, VECTOR)


def fused_norm(rows: int, width: int, vectors: int) -> float:
    """Return the time of a norm with residual: input, residual in; sum and result out."""
    flops = {1: 4, 2: 7}[vectors] + 1
    return elementwise(rows * width, flops, 2, 2, vectors * width)


def flash(sequences: int, queries: int, keys: int, heads: int, width: int) -> float:
    flops = 4 * sequences * heads * queries * keys * width
    moved = FP16 * 2 * sequences * heads * width * (queries + keys)
    return roofline(flops, moved, TENSOR)


def clip_by_hand() -> dict[str, float]:
    """CLIP ViT-L/14-336: 24 layers of width 1024, 16 heads, MLP 4096, 576 patches of 14x14x3."""
    tokens, width, mlp, layers = 577, 1024, 4096, 24
    layer = {
        "norm_1": fused_norm(tokens, width, 2),
        "qkv_proj": product(tokens, 3 * width, width, bias=True),
        "attention": flash(1, tokens, tokens, 16, 64),
        "o_proj": product(tokens, width, width, bias=True),
        "norm_2": fused_norm(tokens, width, 2),
        "fc1": product(tokens, mlp, width, bias=True),
        # Quick GELU, one kernel: 5 operations per element.
        "mlp_activation": elementwise(tokens * mlp, 5, 1, 1),
        "fc2": product(tokens, width, mlp, bias=True),
    }
    once = {
        "patch_embed": product(576, width, 14 * 14 * 3),
        "class_token": elementwise(tokens * width, 0, 1, 1),
        "positions": elementwise(tokens * width, 1, 2, 1),
        "pre_norm": elementwise(tokens * width, 7, 1, 1, 2 * width),
        "post_norm": elementwise(1 * width, 7, 1, 1, 2 * width),
    }
    every = once | {name: layers * time for name, time in layer.items()}
    return {f"vision.{name}": time for name, time in every.items()}


def projector_by_hand() -> dict[str, float]:
    return {
        "projector.linear_1": product(576, 4096, 1024, bias=True),
        "projector.activation_1": elementwise(576 * 4096, 6, 1, 1),
        "projector.linear_2": product(576, 4096, 4096, bias=True),
    }


def vicuna_by_hand(new: int, past: int) -> dict[str, float]:
    """Vicuna-7B: 32 layers, width 4096, 32 heads of 128, MLP 11008; 32064 rows of vocabulary."""
    width, mlp, layers = 4096, 11008, 32
    layer = {
        "input_norm": fused_norm(new, width, 1),
        "qkv_proj": product(new, 3 * width, width),
        "rotary": elementwise(new * 2 * width, 3, 1, 1),
        "kv_cache": elementwise(new * 2 * width, 0, 1, 1),
        "attention": flash(1, new, past + new, 32, 128),
        "o_proj": product(new, width, width),
        "post_attention_norm": fused_norm(new, width, 1),
        "gate_up_proj": product(new, 2 * mlp, width),
        # SiLU of gate times up: 5 operations, two reads, one write.
        "mlp_activation": elementwise(new * mlp, 5, 2, 1),
        "down_proj": product(new, width, mlp),
    }
    found = {f"decoder.{name}": layers * time for name, time in layer.items()}
    found["embed_tokens"] = elementwise(new * width, 0, 1, 1)
    found["final_norm"] = fused_norm(new, width, 1)
    found["lm_head"] = product(1, 32064, width)
    return found


def test_prefill_of_llava_on_an_a100_op_by_op() -> None:
    by_hand = clip_by_hand() | projector_by_hand() | vicuna_by_hand(new=640, past=0)
    by_hand["merge_visual"] = elementwise(576 * 4096, 0, 1, 1)
    found = {op.name: op.time_s for op in result().ops}
    assert found.keys() == by_hand.keys()
    for name, time in by_hand.items():
        assert found[name] == pytest.approx(time, rel=1e-12), name
    assert result().time_s["ttft"] == pytest.approx(sum(by_hand.values()), rel=1e-12)


def test_decode_of_llava_on_an_a100_op_by_op() -> None:
    by_hand = vicuna_by_hand(new=1, past=640)
    found = {op.name: op.time_s for op in result().ops_decode}
    assert found.keys() == by_hand.keys()
    for name, time in by_hand.items():
        assert found[name] == pytest.approx(time, rel=1e-12), name
    assert result().time_s["tpot"] == pytest.approx(sum(by_hand.values()), rel=1e-12)


def test_what_bounds_prefill_and_decode() -> None:
    prefill = {op.name: op.bound_by for op in result().ops}
    # 640 rows are beyond the knee of 312e12 / 2039e9 = 153 FLOP per byte.
    assert prefill["decoder.qkv_proj"] == prefill["decoder.down_proj"] == "compute"
    assert prefill["decoder.input_norm"] == prefill["lm_head"] == "memory"
    assert {op.bound_by for op in result().ops_decode} == {"memory"}


def test_decode_is_about_weights_over_bandwidth() -> None:
    # 13.2 GB of language model and head over 2039 GB/s is 6.5 ms (FACTS: weight-bound floor).
    floor = 2 * (6_607_605_760 - 32064 * 4096 + 131_334_144) / BANDWIDTH
    assert result().time_s["tpot"] > floor
    assert result().time_s["tpot"] == pytest.approx(floor, rel=0.03)


def row(found: Estimate, name: str) -> OpRow:
    return next(op for op in found.ops if op.name == name)


@pytest.mark.parametrize(("gpu", "link"), [("a100-80gb-sxm", 300e9), ("l4", 32e9)])
def test_collectives_take_the_link(gpu: str, link: float) -> None:
    # NVLink 300 GB/s per direction on the A100; the L4 has PCIe Gen4 x16 alone, 32 GB/s.
    op = row(result(gpu=gpu, tp=4), "decoder.o_all_reduce")
    sent = 2 * 3 / 4 * 640 * 4096 * 2
    assert op.time_s == pytest.approx(32 * sent / link, rel=1e-12)
    assert op.bound_by == "link"
    assert op.shape["link_bytes"] == sent


def test_a_slow_memory_bounds_a_collective() -> None:
    profile = load_gpu("a100-80gb-sxm")
    slow = changed(profile, bandwidth=1e9)
    op = row(
        estimate("llava-1.5-7b", slow, text_tokens=64, tp=4, time_model="ideal"),
        "decoder.o_all_reduce",
    )
    assert op.time_s == pytest.approx(32 * 2 * 640 * 4096 * 2 / 1e9, rel=1e-12)
    assert op.bound_by == "memory"


def test_host_work_takes_the_hosts_roofline() -> None:
    # EPYC 7742 of the default host profile: 4.608 TFLOP/s in fp32, 204.8 GB/s.
    found = result(compress="cluster:k=64,impl=sklearn,iterations=10")
    op = row(found, "cluster.assign_distance")
    flops, moved = 2 * 576 * 64 * 4096, 4 * (576 * 4096 + 64 * 4096 + 576 * 64)
    assert op.time_s == pytest.approx(10 * max(flops / 4.608e12, moved / 204.8e9), rel=1e-12)
    assert op.bound_by == "host"


def test_tokens_cross_the_host_link_to_a_clustering_on_the_host() -> None:
    found = result(compress="cluster:k=64,impl=sklearn")
    # PCIe Gen4 x16: 32 GB/s per direction.
    there, back = row(found, "cluster.to_host"), row(found, "cluster.to_device")
    assert there.time_s == pytest.approx(576 * 4096 * 2 / 32e9, rel=1e-12)
    assert back.time_s == pytest.approx(64 * 4096 * 2 / 32e9, rel=1e-12)
    assert (there.bound_by, back.bound_by) == ("link", "link")


def test_quantised_weights_speed_up_linear_layers_only() -> None:
    plain, quantised = result(), result(weights_dtype="int4")
    for name in ("decoder.attention", "lm_head", "decoder.input_norm", "vision.patch_embed"):
        assert row(quantised, name).time_s == row(plain, name).time_s, name
    decode = {op.name: op.time_s for op in quantised.ops_decode}
    weights, rows = 2 * 11008 * 4096, 4096 + 2 * 11008
    expected = 32 * max(2 * weights / TENSOR, (weights * 0.5 + rows * 2) / BANDWIDTH)
    assert decode["decoder.gate_up_proj"] == pytest.approx(expected, rel=1e-12)


def test_int8_products_run_at_the_int8_rate_and_attention_at_16_bits() -> None:
    found = result(dtype="int8")
    # A100 datasheet: 624 TOP/s int8, 312 TFLOP/s fp16.
    rows, out, into = 640, 2 * 11008, 4096
    expected = 32 * max(
        2 * rows * out * into / 624e12, (out * into + rows * (out + into)) / BANDWIDTH
    )
    assert row(found, "decoder.gate_up_proj").time_s == pytest.approx(expected, rel=1e-12)
    attention = 32 * max(4 * 32 * 640 * 640 * 128 / 312e12, 4 * 640 * 4096 / BANDWIDTH)
    assert row(found, "decoder.attention").time_s == pytest.approx(attention, rel=1e-12)


@pytest.mark.parametrize("gpu", list_gpus())
def test_scalar_and_vectorised_times_agree(gpu: str) -> None:
    case = prepare("llava-1.5-7b", gpu, text_tokens=64, compress="cluster:k=64,impl=sklearn", tp=2)
    program, _ = case.program()
    device = resolve_device(case.gpu, load_host(), case.deployment)
    model = load_time_model("ideal")
    texts = np.array([1, 64, 5000])
    together = model.times(evaluate(program, T=texts), device, case.deployment)
    assert together.op_s.shape == together.bound.shape == (len(program.ops), 3)
    assert together.host_overhead_s.shape == (3,)
    for point, text in enumerate(texts):
        alone = model.times(evaluate(program, T=int(text)), device, case.deployment)
        np.testing.assert_array_equal(together.op_s[:, point], alone.op_s)
        np.testing.assert_array_equal(together.bound[:, point], alone.bound)


def test_ideal_says_what_it_rests_on() -> None:
    found = result()
    assert found.provenance["time"] == ["datasheet"]
    assert found.time_s["host_overhead"] == 0
    for which in ("ttft", "tpot"):
        assert found.interval_s[which] == {"same_stack": None, "any_stack": None}
    assert any("lower bound" in note for note in found.notes)
    assert {op.bound_by for op in found.ops} <= set(BOUNDS)


def changed(profile: HardwareProfile, bandwidth: float) -> HardwareProfile:
    memory = profile.memory
    slower = memory.bandwidth.model_copy(update={"value": bandwidth / 1e9, "unit": "GB/s"})
    return profile.model_copy(
        update={"memory": memory.model_copy(update={"bandwidth": slower})}
    )  # fmt: skip


def device(gpu: str, **deployment: Any) -> Device:
    return resolve_device(load_gpu(gpu), load_host(), Deployment.of(**deployment))


@pytest.mark.parametrize(
    ("gpu", "options", "linear", "other", "dtypes"),
    [
        # Dense tensor rates of the datasheets in TFLOP/s.
        ("a100-80gb-sxm", {}, 312, 312, ("fp16", "fp16")),
        ("a100-80gb-sxm", {"dtype": "bf16"}, 312, 312, ("bf16", "bf16")),
        # PyTorch keeps fp32 products off TF32 by default: the vector rate.
        ("a100-80gb-sxm", {"dtype": "fp32"}, 19.5, 19.5, ("fp32", "fp32")),
        ("a100-80gb-sxm", {"dtype": "int8"}, 624, 312, ("int8", "fp16")),
        # Weights alone: the products stay in the activations' format.
        ("a100-80gb-sxm", {"weights_dtype": "int8"}, 312, 312, ("fp16", "fp16")),
        ("a100-80gb-sxm", {"weights_dtype": "int4"}, 312, 312, ("fp16", "fp16")),
        ("a100-80gb-sxm", {"weights_dtype": "fp8"}, 312, 312, ("fp16", "fp16")),
        # int8 activations on fp16 weights gain nothing.
        ("a100-80gb-sxm", {"dtype": "int8", "weights_dtype": "fp16"}, 312, 312, ("fp16", "fp16")),
        ("h100-sxm", {}, 989.4, 989.4, ("fp16", "fp16")),
        ("h100-sxm", {"dtype": "fp8"}, 1978.9, 989.4, ("fp8", "fp16")),
        ("v100-sxm", {}, 125, 125, ("fp16", "fp16")),
    ],
)
def test_rates_follow_the_formats(
    gpu: str, options: dict[str, Any], linear: float, other: float, dtypes: tuple[str, str]
) -> None:
    found = device(gpu, **options)
    assert found.linear_flops_per_s / 1e12 == pytest.approx(linear, rel=1e-3)
    assert found.matmul_flops_per_s / 1e12 == pytest.approx(other, rel=1e-3)
    assert (found.linear_dtype, found.matmul_dtype) == dtypes


def test_rates_of_the_host_and_the_links() -> None:
    found = device("a100-80gb-sxm")
    assert found.vector_flops_per_s == 19.5e12
    assert found.bandwidth_bytes_per_s == 2039e9
    assert found.capacity_bytes == 81920 * 2**20
    assert (found.link_bytes_per_s, found.host_link_bytes_per_s) == (300e9, 32e9)
    assert (found.host_flops_per_s, found.host_bandwidth_bytes_per_s) == (4.608e12, 204.8e9)


@pytest.mark.parametrize(
    ("gpu", "dtype"), [("v100-sxm", "bf16"), ("a100-80gb-sxm", "fp8"), ("v100-sxm", "int8")]
)
def test_a_format_the_gpu_lacks(gpu: str, dtype: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"dtype: '{dtype}' .*{gpu} computes in: fp32"):
        device(gpu, dtype=dtype)


def test_quantised_activations_need_a_gpu_that_has_the_format_whatever_the_weights() -> None:
    with pytest.raises(UnsupportedError, match=r"dtype: 'int8' .*v100-sxm computes in"):
        device("v100-sxm", dtype="int8", weights_dtype="fp16")


def test_fp32_stays_on_the_vector_units() -> None:
    profile = load_gpu("a100-80gb-sxm")
    tensor = profile.peaks[0].model_copy(update={"dtype": "fp32"})
    extended = profile.model_copy(update={"peaks": (tensor, *profile.peaks)})
    found = resolve_device(extended, load_host(), Deployment.of(dtype="fp32"))
    assert found.linear_flops_per_s == found.matmul_flops_per_s == 19.5e12


@pytest.mark.parametrize("gpu", list_gpus())
def test_every_gpu_takes_fp16_and_fp32(gpu: str) -> None:
    assert device(gpu).linear_flops_per_s > 0
    assert device(gpu, dtype="fp32").linear_flops_per_s > 0


def test_time_models_are_found_by_name() -> None:
    for name in list_time_models():
        model = load_time_model(name)
        assert model.name == name
        assert model.summary
    with pytest.raises(UnknownNameError, match=r"unknown time-model 'ideel'\. Did you mean ideal"):
        load_time_model("ideel")
