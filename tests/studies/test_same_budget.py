"""Methods at the same budget: as the facade compares them, with sizes by hand."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel
from costmodel.case import prepare
from costmodel.compression.method import list_methods
from costmodel.results import Estimate
from costmodel.studies.named.same_budget import METHODS, STUDY, contenders
from costmodel.studies.study import Finding

MODEL, GPU = "llava-1.5-7b", "rtx-a6000"
SOME = ("spatial", "cluster", "visionzip", "fastv", "sparsevlm", "voco-llama", "avgpool")
CACHE_PER_TOKEN_MB = 2 * 32 * 4096 * 2 / 1e6


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run(gpus=(GPU,), budgets=(192, 64), methods=SOME)


def records(finding: Finding) -> list[dict[str, Any]]:
    (table,) = finding.tables
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("budget", [192, 64])
def test_rows_are_those_of_a_comparison(finding: Finding, budget: int) -> None:
    names = [name for name in SOME if name != "avgpool" or budget == 64]
    expected = costmodel.compare(
        MODEL, GPU, names, visual_tokens_kept=budget, text_tokens=64, runtime="eager"
    )
    rows = {row["method"]: row for row in records(finding) if row["budget_tokens"] == budget}
    assert set(rows) == {label for label, _ in expected}
    for label, found in expected:
        assert isinstance(found, Estimate)
        row = rows[label]
        assert row["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"])
        assert row["speedup"] == pytest.approx(found.savings["ttft_s_ratio"])
        assert row["flops_ratio"] == pytest.approx(found.savings["flops_ratio"])
        assert row["memory_vs_none_mb"] == pytest.approx(-found.savings["memory_bytes"] / 1e6)
        assert [row["ttft_low_ms"], row["ttft_high_ms"]] == pytest.approx(
            [1e3 * side for side in found.interval_s["ttft"]["any_stack"]]
        )


def test_caches_by_hand(finding: Finding) -> None:
    """0.524 MB a token; VoCo keeps its tokens alone, pruners inside the model some layers more."""
    for row in records(finding):
        if row["method"].partition(":")[0] in ("spatial", "cluster", "visionzip", "voco-llama"):
            held = (row["budget_tokens"] + 64) * CACHE_PER_TOKEN_MB
            assert row["kv_cache_mb"] == pytest.approx(held)
    (fastv,) = (row for row in records(finding) if row["method"] == "fastv:layer=2,k=30")
    # Two layers with every token, the second of them twice, and thirty with 30.
    layer = CACHE_PER_TOKEN_MB / 32
    assert fastv["kv_cache_mb"] == pytest.approx(layer * (3 * (576 + 64) + 30 * (30 + 64)))


def test_attention_maps_of_the_tower_stay(finding: Finding) -> None:
    """24 layers x 16 heads x 577^2 x 2 B = 256 MB of VisionZip."""
    for row in records(finding):
        if row["method"].startswith("visionzip"):
            assert row["activations_peak_mb"] > 24 * 16 * 577**2 * 2 / 1e6
            assert row["lost_flash_ms"] > 0


def test_parts_are_the_whole() -> None:
    case = prepare(MODEL, GPU, text_tokens=64, runtime="eager")
    found = contenders([case], (64,), SOME)
    assert len(found) == len(SOME) + 1
    for one in found:
        assert sum(one.parts_s.values()) == pytest.approx(one.run.ttft_s)
        assert one.request is not None or one.lost_flash_s == 0


def test_the_answer_names_the_fastest_and_the_slowest(finding: Finding) -> None:
    for budget in (192, 64):
        rows = [row for row in records(finding) if row["budget_tokens"] == budget]
        ends = [pick(rows, key=lambda row: row["ttft_ms"]) for pick in (min, max)]
        fast, slow = (f"{row['ttft_ms']:.1f} ms ({row['method'].split(':')[0]})" for row in ends)
        assert f"at {budget} tokens from {fast} to {slow}" in finding.answer


def test_published_scores_of_fastv(finding: Finding) -> None:
    """Of POPE at 64 tokens SparseVLM prints 38.2 for it, VScan and MMTok 48.0, of 85.9."""
    (row,) = (row for row in records(finding) if row["method"] == "fastv:layer=2,k=30")
    assert row["score_sources"] > 1
    assert 60 < row["score_low_pct"] < row["score_high_pct"] < 80


def test_methods_are_known() -> None:
    assert set(METHODS) <= set(list_methods())
