"""Weights, KV cache, peak activations, and what fits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TokenCount
from costmodel.estimation import Case, prepare
from costmodel.evaluation import evaluate
from costmodel.memory import Memory, largest_batch, memory
from costmodel.program import Program, build_program
from costmodel.specs.workload import MAX_BATCH

GIB = 2**30


@lru_cache
def case(model: str = "llava-1.5-7b", **options: Any) -> Case:
    return prepare(model, "a100", **{"text_tokens": 64, **options})


def program(model: str = "llava-1.5-7b", **options: Any) -> Program:
    return case(model, **options).program()[0]


def now(model: str = "llava-1.5-7b", **options: Any) -> Memory:
    return memory(program(model, **options))


# FORMATS, ground truth by execution: parameters of the 7B model by module.
VISION, PROJECTOR, LANGUAGE, HEAD = 303_507_456, 20_979_712, 6_607_605_760, 131_334_144


def test_weights_in_16_bits_are_two_bytes_per_parameter() -> None:
    assert float(now().weights) == 2 * (VISION + PROJECTOR + LANGUAGE + HEAD)
    assert float(now(dtype="fp32").weights) == 4 * (VISION + PROJECTOR + LANGUAGE + HEAD)


@pytest.mark.parametrize(("weights", "size"), [("int8", 1), ("fp8", 1), ("int4", 0.5)])
def test_quantised_weights_leave_embeddings_norms_and_biases_in_16_bits(
    weights: str, size: float
) -> None:
    decoder = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    tower = 24 * (4 * 1024**2 + 2 * 1024 * 4096)
    linear = decoder + tower + 1024 * 4096 + 4096**2
    others = VISION + PROJECTOR + LANGUAGE + HEAD - linear
    assert float(now(weights_dtype=weights).weights) == size * linear + 2 * others


def test_devices_share_the_language_model_but_not_the_tower_nor_norms() -> None:
    norms = (2 * 32 + 1) * 4096
    shared = (LANGUAGE - norms + HEAD) / 4
    assert float(now(tp=4).weights) == 2 * (shared + norms + VISION + PROJECTOR)


def test_copies_of_key_value_heads_weigh_on_every_device() -> None:
    # Llama-3-8B has 8 key/value heads; 16 devices hold one each, 8 devices too.
    eight, sixteen = now("llama-3-8b", tp=8), now("llama-3-8b", tp=16)
    keys = 2 * 4096 * 128 * 32 * 2
    norms = (2 * 32 + 1) * 4096 * 2
    rest = float(eight.weights) - keys - norms
    assert float(sixteen.weights) == keys + norms + rest / 2
    assert float(sixteen.kv_cache) == float(eight.kv_cache)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # FORMATS: 2 bytes b L S h_kv; 640 tokens of LLaVA-1.5-7B are 335,544,320 bytes.
        ({}, 335_544_320),
        ({"batch": 3}, 3 * 335_544_320),
        ({"kv_dtype": "fp8"}, 335_544_320 / 2),
        ({"output_tokens": 640}, 2 * 335_544_320),
        # FACTS 4 F: 0.524 MB per token.
        ({"visual_tokens": 576, "text_tokens": 1}, 577 * 2 * 2 * 32 * 4096),
    ],
)
def test_kv_cache_by_hand(options: dict[str, Any], expected: float) -> None:
    assert float(now(**options).kv_cache) == expected


def test_published_kv_cache_of_visual_tokens() -> None:
    # SparseVLM (arXiv:2410.04417) prints 302.4 MB for 576 tokens and 100.8 MB for 192:
    # 0.525 MB each; here 0.524 MB, as 2 x 2 x 32 x 4096 bytes.
    per_token = float(now(text_tokens=65).kv_cache) - float(now().kv_cache)
    assert per_token == 524_288
    assert 576 * per_token == pytest.approx(302.4e6, rel=2e-3)
    assert 192 * per_token == pytest.approx(100.8e6, rel=2e-3)


def test_grouped_heads_shrink_the_cache() -> None:
    # Llama-3-8B: 8 of 32 heads; 64 tokens, no images.
    assert float(now("llama-3-8b").kv_cache) == 2 * 2 * 32 * 64 * 8 * 128


def with_groups(*groups: DecoderGroup) -> Program:
    plan = CompressionPlan("test", Insertion("llm", 2), TokenCount.static(576), groups)
    asked = case()
    return build_program(asked.model, asked.layout, asked.workload, asked.deployment, plan)


def test_kv_cache_by_group() -> None:
    found = memory(
        with_groups(DecoderGroup(2, 576), DecoderGroup(10, 144), DecoderGroup(20, 0))
    )  # fmt: skip
    per_layer_token = 2 * 2 * 4096
    assert [(layers, float(size)) for layers, size in found.kv_cache_groups] == [
        (2, 2 * 640 * per_layer_token),
        (10, 10 * 208 * per_layer_token),
        (20, 20 * 64 * per_layer_token),
    ]
    assert float(found.kv_cache) == sum(float(size) for _, size in found.kv_cache_groups)


def test_one_group_is_the_whole_cache() -> None:
    ((layers, size),) = now().kv_cache_groups
    assert (layers, float(size)) == (32, float(now().kv_cache))


def test_peak_activation_is_the_largest_of_both_passes() -> None:
    found = program()
    live = [float(evaluate(found, phase).live.max()) for phase in ("prefill", "decode")]
    assert float(memory(found).activations_peak) == max(live)


@pytest.mark.parametrize("runtime", ["eager", "compiled", "cuda-graph"])
def test_peak_activation_of_prefill_by_hand(runtime: str) -> None:
    found = now(runtime=runtime)
    assert found.peak_op == "decoder.mlp_activation"
    # Gate, up and their product, in 640 rows, and the caller's 576 visual tokens.  Beside them four
    # states: the addends of a compiled residual; in Python code the prompt's embeddings, what
    # entered the layer, its sum with the attention, and the norm of that.
    assert float(found.activations_peak) == 640 * 2 * (3 * 11008 + 4 * 4096) + 576 * 2 * 4096


def test_the_tower_works_before_there_is_a_cache_that_grows() -> None:
    # 24 states that entered layers, two of the last layer's own, 3 of 4 times the width for
    # x sigmoid(1.702 x); the cache of 48 tokens is not there yet.
    tower = 577 * 2 * 1024 * (24 + 2 + 3 * 4)
    cache = 48 * 524_288
    eager = now(runtime="eager", visual_tokens=40, text_tokens=8)
    assert eager.peak_op == "vision.mlp_activation"
    assert float(eager.activations_peak) == tower
    assert float(eager.kv_cache) == cache
    assert float(eager.total) == float(eager.weights) + tower
    # Serving engines reserve it before.
    served = now(visual_tokens=40, text_tokens=8)
    assert served.peak_op.startswith("vision.")
    assert float(served.activations_peak) == 577 * 2 * 1024 * (4 + 1 + 4)
    assert float(served.total - served.weights) == cache + float(served.activations_peak)


def test_pruning_inside_the_language_model_finds_a_cache() -> None:
    program = case(runtime="eager", compress="fastv").program()[0]
    assert "compression" not in program.before_cache
    before = case(runtime="eager", compress="cluster:k=64").program()[0]
    assert "compression" in before.before_cache


def test_all_logits_dominate_a_long_prompt() -> None:
    # Llama-3-8B: 128256 logits for each of 2000 positions, and the hidden states.
    found = now("llama-3-8b", head_tokens="all", text_tokens=2000)
    assert found.peak_op == "lm_head"
    assert float(found.activations_peak) == 2000 * 2 * (128256 + 4096)


def test_eager_attention_peaks_higher_than_flash() -> None:
    flash, eager = now(text_tokens=2000), now(text_tokens=2000, attention="eager")
    assert eager.peak_op == "decoder.attention.softmax"
    # 32 heads of 2576 x 2576 scores: fp16, fp32 and fp16; beside them the mask, the queries, the
    # residual's four addends and the caller's visual tokens.
    beside = 2576**2 * 2 + 5 * 2576 * 4096 * 2 + 576 * 4096 * 2
    assert float(eager.activations_peak) == 32 * 2576**2 * 8 + beside
    assert float(eager.activations_peak) > 5 * float(flash.activations_peak)
    assert float(eager.kv_cache) == float(flash.kv_cache)


def test_eager_attention_in_one_group_sets_the_peak() -> None:
    found = memory(with_groups(DecoderGroup(1, 576, attention="eager"), DecoderGroup(31, 64)))
    flash = memory(with_groups(DecoderGroup(1, 576), DecoderGroup(31, 64)))
    assert found.peak_op == "decoder_0.attention.softmax"
    assert float(found.activations_peak) > float(flash.activations_peak)


def test_a_concatenating_cache_holds_the_old_one_while_it_copies() -> None:
    # Per layer, as DynamicCache does: 8000 cached keys of 32 heads of 128, and then as many values.
    found = now(runtime="eager", text_tokens=1, visual_tokens=0, output_tokens=16_000)
    assert found.peak_op == "decoder.kv_cache"
    # Beside them the new key and value, the query and the states of one token.
    assert float(found.activations_peak) == (8000 + 2 + 1 + 3) * 4096 * 2


@pytest.mark.parametrize("runtime", ["eager", "cuda-graph"])
def test_total_is_the_sum_where_activations_peak_beside_the_cache(runtime: str) -> None:
    found = now(runtime=runtime)
    assert float(found.total) == float(found.weights + found.kv_cache + found.activations_peak)


def test_points_are_vectorised() -> None:
    batches = np.array([1, 2, 7])
    many = memory(program(), b=batches)
    for part in (many.weights, many.kv_cache, many.activations_peak, many.total):
        assert part.shape == (3,)
    for point, batch in enumerate(batches):
        alone = memory(program(), b=int(batch))
        assert float(alone.total) == many.total[point]
    assert [(layers, size.shape) for layers, size in many.kv_cache_groups] == [(32, (3,))]


def total(found: Program, batch: int) -> float:
    return float(memory(found, b=batch).total)


@pytest.mark.parametrize("capacity_gib", [16, 24, 40, 80, 192, 1000])
@pytest.mark.parametrize("options", [{}, {"attention": "eager"}, {"compress": "random:k=8"}])
def test_largest_batch_fits_and_the_next_does_not(
    capacity_gib: int, options: dict[str, Any]
) -> None:
    found = program(output_tokens=100, **options)
    largest = largest_batch(found, capacity_gib * GIB)
    assert largest > 0
    assert total(found, largest) <= capacity_gib * GIB < total(found, largest + 1)


def test_largest_batch_against_trying_every_batch() -> None:
    found = program("vila-1.5-3b", output_tokens=32)
    sizes = [total(found, batch) for batch in range(1, 200)]
    for wanted in (1, 2, 63, 64, 65, 128, 198):
        exact, between = sizes[wanted - 1], (sizes[wanted - 1] + sizes[wanted]) / 2
        assert largest_batch(found, exact) == wanted
        assert largest_batch(found, between) == wanted
        assert largest_batch(found, exact - 1) == wanted - 1


def test_not_even_one_request_fits() -> None:
    found = program()
    assert largest_batch(found, 8 * GIB) == 0
    assert largest_batch(found, 0) == 0
    assert largest_batch(found, total(found, 1)) == 1


def test_largest_batch_does_not_depend_on_the_programs_own() -> None:
    assert largest_batch(program(batch=100), 40 * GIB) == largest_batch(program(), 40 * GIB)


def test_largest_batch_is_bounded() -> None:
    assert largest_batch(program(), 1e30) == MAX_BATCH
