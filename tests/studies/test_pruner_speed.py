"""Parts of the gap between FLOPs and time: they add up, and each is what it says."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

import costmodel
from costmodel.catalog.hardware import load_gpu
from costmodel.compression.method import Context, list_methods, parse
from costmodel.errors import CostModelError
from costmodel.estimation import prepare
from costmodel.studies.ceiling import Ceiling, ceilings
from costmodel.studies.plan_runs import requests_for
from costmodel.studies.pruner_speed import SpeedRow, pruner_speed

MODEL = "llava-1.5-7b"
VISION, LANGUAGE = ("vision_encoder", "projector"), ("llm_prefill", "lm_head")


@pytest.fixture(scope="module")
def rows() -> list[SpeedRow]:
    return pruner_speed(budgets=(64,))


@pytest.fixture(scope="module")
def limits() -> list[Ceiling]:
    return ceilings()


@lru_cache
def estimated(compress: str, gpu: str, runtime: str, **options: Any) -> costmodel.Estimate:
    return costmodel.estimate(
        MODEL, gpu, text_tokens=64, compress=compress, runtime=runtime, **options
    )


def total(values: dict[str, float], stages: tuple[str, ...]) -> float:
    return sum(values[stage] for stage in stages)


def test_every_method_is_there_on_both_gpus_under_both_runtimes(rows: list[SpeedRow]) -> None:
    found = {(row.method, row.gpu, row.runtime) for row in rows}
    assert found == {
        (name, gpu, runtime)
        for name in list_methods() if name != "none"
        for gpu in ("a100-80gb-sxm", "rtx-a6000") for runtime in ("eager", "cuda-graph")
    }  # fmt: skip
    assert len(rows) == len(found)


def test_the_parts_are_the_gap(rows: list[SpeedRow]) -> None:
    for row in rows:
        assert row.ttft_s - row.ideal_ttft_s == pytest.approx(row.gap.total_s, abs=1e-12)


@pytest.mark.parametrize("gpu", ["a100-80gb-sxm", "rtx-a6000"])
@pytest.mark.parametrize("runtime", ["eager", "cuda-graph"])
def test_rows_and_parts_are_those_of_an_estimate(
    rows: list[SpeedRow], gpu: str, runtime: str
) -> None:
    """The facade sums the same times on another way."""
    for row in rows:
        if (row.gpu, row.runtime) != (gpu, runtime):
            continue
        found = estimated(row.request, gpu, runtime)
        plain = found.baseline
        assert plain is not None
        assert row.ttft_s == pytest.approx(found.time_s["ttft"], rel=1e-12)
        assert row.baseline_ttft_s == pytest.approx(plain.time_s["ttft"], rel=1e-12)
        assert row.band_s == pytest.approx(found.interval_s["ttft"]["any_stack"], rel=1e-12)
        assert row.flops_ratio == pytest.approx(found.savings["flops_ratio"], rel=1e-12)
        assert row.ttft_ratio == pytest.approx(found.savings["ttft_s_ratio"], rel=1e-12)
        gap = row.gap
        assert gap.own_ops_s == pytest.approx(found.time_s["compression"], abs=1e-12)
        before, after = plain.time_s["host_overhead"], found.time_s["host_overhead"]
        host_s = after - before / row.flops_ratio
        assert gap.own_waits_s + gap.host_s == pytest.approx(host_s, abs=1e-12)
        own = total(found.flops, LANGUAGE) / total(plain.flops, LANGUAGE)
        language_s = total(found.time_s, LANGUAGE) - own * total(plain.time_s, LANGUAGE)
        plan = parse(row.request).plan(context_of(gpu, runtime))
        if not any(group.attention for group in plan.decoder_groups):
            assert gap.weight_floor_s == pytest.approx(language_s, abs=1e-12)
            if not any(group.attention for group in plan.tower_groups):
                assert gap.lost_flash_s == 0


def context_of(gpu: str, runtime: str) -> Context:
    case = prepare(MODEL, gpu, text_tokens=64, runtime=runtime)
    return Context(case.model, case.images, case.deployment)


@pytest.mark.parametrize("name", ["fastervlm", "visionzip"])
def test_lost_flash_attention_of_a_tower(rows: list[SpeedRow], name: str) -> None:
    """All of the tower's time that the method adds: its tokens are those of before."""
    for row in (row for row in rows if row.method == name):
        found = estimated(row.request, row.gpu, row.runtime)
        assert found.baseline is not None
        more = found.time_s["vision_encoder"] - found.baseline.time_s["vision_encoder"]
        assert row.gap.lost_flash_s == pytest.approx(more, abs=1e-12)
        assert more > 0


def test_lost_flash_attention_of_the_language_model() -> None:
    """SparseVLM asks eager layers, or computes the weights beside flash attention."""
    (row,) = pruner_speed(
        gpus=["a100-80gb-sxm"], runtimes=["cuda-graph"], budgets=[64], methods=["sparsevlm"]
    )
    eager, beside = (
        estimated(f"{row.request},weights={weights}", row.gpu, row.runtime)
        for weights in ("eager", "beside")
    )
    more = eager.time_s["llm_prefill"] - beside.time_s["llm_prefill"]
    assert row.gap.lost_flash_s == pytest.approx(more, abs=1e-12)
    assert more > 0


def test_a_method_without_operators_leaves_tower_and_floor(rows: list[SpeedRow]) -> None:
    for row in (row for row in rows if row.method == "spatial"):
        gap = row.gap
        assert gap.lost_flash_s == 0
        assert gap.own_ops_s + gap.own_waits_s < 0.01 * gap.total_s
        assert gap.tower_s > 0
        assert gap.weight_floor_s > 0


def test_no_visual_token_is_the_most_that_can_be_saved(
    rows: list[SpeedRow], limits: list[Ceiling]
) -> None:
    """But for methods inside the tower; kernel times may dip by a few per cent."""
    most = {(limit.gpu, limit.runtime): limit.speedup for limit in limits}
    inside = {"tome", "dymu"}
    for row in (row for row in rows if row.method not in inside):
        assert row.ttft_ratio <= 1.02 * most[row.gpu, row.runtime]


def test_weights_are_read_without_visual_tokens_too(limits: list[Ceiling]) -> None:
    """6.74e9 parameters in fp16 less the embedding, at the bandwidth of the datasheet."""
    for limit in limits:
        read_s = 2 * (6.74e9 - 32000 * 4096) / load_gpu(limit.gpu).bandwidth_bytes_per_s
        assert limit.empty_s["llm_prefill"] + limit.empty_s["lm_head"] > read_s


def test_ceilings_are_estimates(limits: list[Ceiling]) -> None:
    for limit in limits:
        plain = costmodel.estimate(MODEL, limit.gpu, text_tokens=64, runtime=limit.runtime)
        text = costmodel.estimate(
            MODEL, limit.gpu, text_tokens=64, visual_tokens=0, runtime=limit.runtime
        )
        assert sum(limit.baseline_s.values()) == pytest.approx(plain.time_s["ttft"], rel=1e-12)
        for stage in LANGUAGE:
            assert limit.empty_s[stage] == pytest.approx(text.time_s[stage], rel=1e-12)
        assert sum(limit.empty_s.values()) > text.time_s["ttft"]


def test_methods_that_reach_no_budget_have_their_defaults() -> None:
    case = prepare(MODEL, "a100", text_tokens=64)
    found = [(b, r.label) for b, r in requests_for(case, (192, 64), ("m3", "stf", "none"))]
    assert found == [(None, "m3"), (64, "stf:window=3")]


@pytest.mark.parametrize("wrong", [("methods", "fastw"), ("gpus", "a1000"), ("runtimes", "eagr")])
def test_unknown_names_are_refused(wrong: tuple[str, str]) -> None:
    asked: dict[str, Any] = {wrong[0]: [wrong[1]]}
    with pytest.raises(CostModelError, match=wrong[1]):
        pruner_speed(**asked)


def test_a_budget_that_only_the_plan_refuses_is_left_out() -> None:
    """ToMe merges half of a block's tokens at most."""
    case = prepare(MODEL, "a100", text_tokens=64)
    found = [budget for budget, _ in requests_for(case, (64, 1), ("tome",))]
    assert found == [64]
