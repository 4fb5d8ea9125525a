"""What holds for every method: keeping everything changes nothing, fewer tokens cost no more.

Ideal times only: measured kernel times may dip where a wave of thread blocks fills up.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import pytest

from costmodel import Estimate, estimate
from costmodel.compression.method import Context, list_methods, load_method, parse, request
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError, SpecError
from costmodel.estimation import prepare

MODEL, TEXT, ALL = "llava-1.5-7b", 64, 576
BUDGETS = (1, 9, 36, 64, 100, 128, 144, 192, 288, 400, 500, ALL)

NEVER_KEEP_ALL = {
    "shortv": "freezes tokens in one layer at least",
    "vtw": "withdraws all tokens before the last layer at the latest",
    "voco-llama": "adds a token to the prompt, and caches that alone",
    "htc-vlm": "adds anchors and a token to the prompt, and caches that alone",
    "mqt": "has 256 queries for 576 tokens",
}
KEEPING_ALL = {
    # The released variant runs a layer twice and caches both.
    "fastv": "fastv:variant=paper,ratio=0",
    "v2drop": "v2drop:tokens=576+576+576",
}
"""Requests that a budget of all tokens does not give."""

FEWER_FIRST = {
    "pyramiddrop": [f"pyramiddrop:ratio={share}" for share in (0.01, 0.1, 0.3, 0.5, 0.9, 1)],
    "sparsevlm": [f"sparsevlm:tokens={k}+{k}+{k}" for k in (1, 30, 110, 300, ALL)],
    "v2drop": [f"v2drop:tokens={k}+{k}+{k}" for k in (1, 30, 110, 300, ALL)],
    "pact": [f"pact:pruned_to=1,k={k}" for k in (1, 64, 128, 300, ALL)],
    "shortv": [f"shortv:n={n}" for n in (19, 12, 7, 3, 1)],
    "vtw": [f"vtw:layer={layer}" for layer in (1, 5, 15, 16, 31)],
}
"""Series of requests where budgets would move the layers too."""

KEEPS_NUMBER = {"none", "mbtf"}


def context() -> Context:
    case = prepare(MODEL, "a100", text_tokens=TEXT)
    return Context(case.model, case.images, case.deployment)


@lru_cache(maxsize=1000)
def run(compress: str | None) -> Estimate:
    return estimate(MODEL, "a100", text_tokens=TEXT, compress=compress, time_model="ideal")


def plan_of(compress: str) -> CompressionPlan:
    return parse(compress).plan(context())


def keeping(name: str, kept: int) -> str | None:
    """Return the request for a budget; None where the method does not reach it."""
    method = load_method(name)
    try:
        asked = request(method, method.params_for(kept, context()))
        asked.plan(context())
    except (InputError, SpecError):
        return None
    return asked.label


def series(name: str) -> list[str]:
    if name in FEWER_FIRST:
        return FEWER_FIRST[name]
    return [compress for kept in BUDGETS if (compress := keeping(name, kept)) is not None]


def linear_bytes(result: Estimate, stage: str) -> float:
    return sum(
        sum(row.bytes.values()) for row in result.ops
        if row.stage == stage and row.part == "linear"
    )  # fmt: skip


def test_exceptions_are_methods() -> None:
    named = {*NEVER_KEEP_ALL, *KEEPING_ALL, *FEWER_FIRST, *KEEPS_NUMBER}
    assert named <= set(list_methods())


@pytest.mark.parametrize("name", sorted(set(list_methods()) - set(NEVER_KEEP_ALL)))
def test_keeping_everything_is_the_identity(name: str) -> None:
    compress = KEEPING_ALL.get(name) or keeping(name, ALL)
    assert compress is not None
    plain, found, plan = run(None), run(compress), plan_of(compress)
    assert found.tokens["visual_kept"] == found.tokens["visual_equivalent"] == ALL
    assert found.tokens["prefill"] == plain.tokens["prefill"] == ALL + TEXT
    stages = ["vision_encoder", "llm_prefill", "lm_head"]
    if not plan.replaces_projector:
        stages.append("projector")
    forced = {
        "vision_encoder": any(group.attention for group in plan.tower_groups),
        "llm_prefill": any(group.attention for group in plan.decoder_groups),
    }
    for stage in stages:
        assert found.flops[stage] == pytest.approx(plain.flops[stage], rel=1e-12)
        if forced.get(stage):
            # Attention weights that are read pass through memory; the products stay.
            assert linear_bytes(found, stage) == linear_bytes(plain, stage)
            assert found.bytes_moved[stage] > plain.bytes_moved[stage]
        else:
            moved = pytest.approx(plain.bytes_moved[stage], rel=1e-12)
            assert found.bytes_moved[stage] == moved
    assert found.memory_bytes["kv_cache"] == plain.memory_bytes["kv_cache"]
    # A layer that may not use flash attention may not in a step either.
    slower = 1e-3 if forced["llm_prefill"] else 1e-12
    assert found.time_s["tpot"] == pytest.approx(plain.time_s["tpot"], rel=slower)


@pytest.mark.parametrize("name", NEVER_KEEP_ALL)
def test_exceptions_cannot_keep_everything(name: str) -> None:
    compress = keeping(name, ALL)
    assert compress is None or run(compress).tokens["prefill"] > ALL + TEXT


@pytest.mark.parametrize("name", sorted(set(list_methods()) - KEEPS_NUMBER))
def test_fewer_tokens_never_cost_more_in_the_stages_after(name: str) -> None:
    requests = series(name)
    assert len(requests) >= 3
    stages = ["llm_prefill", "lm_head"]
    if plan_of(requests[0]).insertion.where in ("vision_encoder", "after_encoder"):
        stages.append("projector")
    slack = 1 + 1e-12
    for fewer, more in pairwise(requests):
        low, high = run(fewer), run(more)
        assert low.tokens["visual_equivalent"] < high.tokens["visual_equivalent"]
        for stage in stages:
            for numbers in ("flops", "bytes_moved", "time_s"):
                lesser, greater = getattr(low, numbers)[stage], getattr(high, numbers)[stage]
                assert lesser <= greater * slack, (fewer, more, stage, numbers)
        assert low.memory_bytes["kv_cache"] <= high.memory_bytes["kv_cache"]
        # A step reads the cache, which ShortV leaves as it is.
        if low.memory_bytes["kv_cache"] < high.memory_bytes["kv_cache"]:
            assert low.time_s["tpot"] < high.time_s["tpot"]
