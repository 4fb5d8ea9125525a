"""Methods in and right after the vision tower: counts, FLOPs and side effects by hand.

Kernels and FLOPs are those that were counted on the runnable implementations, which state
them in their documentation; token counts are the papers'.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from costmodel import Estimate, estimate
from costmodel.compression.method import Context, load_method, request
from costmodel.errors import InputError
from costmodel.estimation import prepare

LAYERS, FULL = 32, 576


def made(compress: str | None, **options: Any) -> Estimate:
    return estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress=compress, **options)


def own(compress: str, quantity: str) -> float:
    """Sum over the method's own operators, all repeats."""
    rows = [op for op in made(compress).ops if op.stage == "compression"]
    return sum(float(getattr(op, quantity)) for op in rows)


def test_tome_merges_in_every_block_but_leaves_the_language_model_alone() -> None:
    result = made("tome:r=16")
    kept = result.tokens["visual_kept"]
    # Features are read behind block 23; the class token is dropped.
    assert kept == FULL - 23 * 16
    assert result.flops["vision_encoder"] < made(None).flops["vision_encoder"]
    assert result.memory_bytes["kv_cache"] == pytest.approx(
        2 * LAYERS * (kept + 64) * 4096 * 2, rel=1e-9
    )


def test_tome_similarities_are_two_halves_of_the_tokens() -> None:
    found = own("tome:r=16", "flops")
    tokens, flops = FULL + 1, 0
    for _ in range(24):
        flops += 2 * math.ceil(tokens / 2) * math.floor(tokens / 2) * 64
        tokens -= min(16, (tokens - 1) // 2)
    products = [op for op in made("tome:r=16").ops if op.stage == "compression" and op.op.matmul]
    counted = sum(op.flops for op in products)
    assert counted == pytest.approx(flops, rel=0.05)
    assert found >= counted


def test_tome_refuses_what_even_blocks_cannot_reach() -> None:
    case = prepare("llava-1.5-7b", "a100", text_tokens=64)
    context, method = Context(case.model, case.images, case.deployment), load_method("tome")
    for kept in (1, 23):
        with pytest.raises(InputError, match=rf"visual-tokens-kept: {kept} .*at least 24"):
            method.params_for(kept, context)
    # Whatever it promises, its plan does.
    for kept in range(24, FULL + 1):
        plan = request(method, method.params_for(kept, context)).plan(context)
        assert plan.kept.mean == kept


def test_prumerge_loops_over_its_tokens_in_python() -> None:
    once, more = own("prumerge:kept=64", "launches"), own("prumerge:kept=128", "launches")
    # Eleven kernels for every kept token.
    assert more - once == pytest.approx(11 * 64, rel=0.02)
    assert own("prumerge:kept=128,impl=fused", "launches") < 40


def test_prumerge_depends_on_the_image() -> None:
    count = made("prumerge:kept=64").tokens
    assert count["visual_kept"] == 64
    assert count["visual_kept_p95"] > count["visual_kept_p50"]
    assert made("prumerge:kept=64,at=p95").time_s["ttft"] > made("prumerge:kept=64").time_s["ttft"]


def test_visionzip_keeps_attention_maps_in_memory() -> None:
    batch = 16
    plain = made(None, batch=batch).memory_bytes["activations_peak"]
    # 24 layers, 16 heads, 577 x 577 in fp16, for every image: 256 MB as released.
    maps = batch * 24 * 16 * 577**2 * 2
    held = made("visionzip:k=64", batch=batch).memory_bytes["activations_peak"]
    assert held > maps
    assert held > plain
    assert made("visionzip:k=64,maps=one", batch=batch).memory_bytes["activations_peak"] < held


@pytest.mark.parametrize("method", ["visionzip:k=64", "fastervlm:k=64", "vispruner:k=64"])
def test_class_attention_costs_the_fused_kernel_of_the_tower(method: str) -> None:
    assert made(method).time_s["vision_encoder"] > made(None).time_s["vision_encoder"]


def test_dymu_expands_again_for_attention_and_caches_everything() -> None:
    result, plain = made("dymu:level=low"), made(None)
    assert result.tokens["visual_kept"] == 89
    assert result.memory_bytes["kv_cache"] == plain.memory_bytes["kv_cache"]
    assert result.flops["llm_attention"] == plain.flops["llm_attention"]
    # Linear layers work on the merged tokens.
    assert result.flops["llm_linear"] == pytest.approx(
        plain.flops["llm_linear"] * (89 + 64) / (FULL + 64), rel=1e-6
    )


def test_m3_pools_to_its_scales() -> None:
    for tokens in (1, 9, 36, 144, 576):
        assert made(f"m3:tokens={tokens}").tokens["visual_kept"] == tokens
    with pytest.raises(InputError, match="1, 9, 36, 144"):
        made("m3:tokens=100")


@pytest.mark.parametrize(
    "method", ["tome:kept={}", "visionzip:k={}", "prumerge:kept={}", "fastervlm:k={}",
               "vispruner:k={}"],
)  # fmt: skip
def test_fewer_tokens_never_cost_more_behind_the_method(method: str) -> None:
    results = [made(method.format(count)) for count in (64, 128, 192)]
    for fewer, more in pairwise(results):
        assert fewer.flops["llm_prefill"] < more.flops["llm_prefill"]
        assert fewer.memory_bytes["kv_cache"] < more.memory_bytes["kv_cache"]
        assert fewer.time_s["llm_prefill"] <= more.time_s["llm_prefill"] * 1.02
