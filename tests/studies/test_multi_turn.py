"""Several questions on one image: sizes by hand, times as the facade has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import costmodel
from costmodel.case import prepare
from costmodel.errors import InputError
from costmodel.studies.named.multi_turn import STRATEGIES, STUDY
from costmodel.studies.prefill import prefill
from costmodel.studies.study import Finding

MODEL, GPU, D = "llava-1.5-7b", "a100-80gb-sxm", 4096
PER_TOKEN_MB = 2 * 32 * D * 2 / 1e6
LABELS = {
    "none": None, "spatial": "spatial:k=64", "cluster": "cluster:k=64",
    "VisionZip": "visionzip:k=64", "FastV": "fastv:layer=2,k=30",
    "PyramidDrop": "pyramiddrop:layers=2+4+6,ratio=0.3071", "SparseVLM": "sparsevlm:budget=64",
}  # fmt: skip


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def rows_of(finding: Finding, name: str, gpu: str = GPU) -> list[dict[str, Any]]:
    return [
        row for row in records(finding, "8 questions")
        if (row["gpu"], row["method"]) == (gpu, name)
    ]  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_first_question_is_an_estimate(finding: Finding, name: str) -> None:
    first = rows_of(finding, name)[0]
    found = costmodel.estimate(MODEL, GPU, text_tokens=64, compress=LABELS[name], runtime="eager")
    assert first["ttft_ms"] == pytest.approx(1e3 * found.time_s["ttft"])
    assert first["kv_cache_mb"] == pytest.approx(found.memory_bytes["kv_cache"] / 1e6)


@pytest.mark.parametrize("name", ["FastV", "PyramidDrop", "SparseVLM"])
def test_choosing_again_runs_the_longer_prompt(finding: Finding, name: str) -> None:
    """Question 4: 64 + 3 x 96 tokens of text, without encoder and projector."""
    row = rows_of(finding, name)[3]
    found = costmodel.estimate(
        MODEL, GPU, text_tokens=64 + 3 * 96, compress=LABELS[name], runtime="eager"
    )
    seen = found.time_s["vision_encoder"] + found.time_s["projector"]
    most = found.time_s["ttft"] - seen
    assert row["ttft_ms"] <= 1e3 * most + 1e-6
    assert row["ttft_ms"] >= 1e3 * (most - found.time_s["host_overhead"])


@pytest.mark.parametrize(("name", "visual"), [("none", 576), ("spatial", 64), ("VisionZip", 64)])
def test_caches_by_hand(finding: Finding, name: str, visual: int) -> None:
    for turn, row in enumerate(rows_of(finding, name)):
        tokens = visual + 64 + turn * 96
        assert row["kv_cache_mb"] == pytest.approx(PER_TOKEN_MB * tokens)


def test_attention_of_a_later_question_is_over_the_cache() -> None:
    """4 q (p + q) d FLOP in each of 32 layers."""
    case = prepare(MODEL, GPU, text_tokens=32, visual_tokens=0, runtime="eager")
    flops = prefill(case, p=np.array([0.0, 640.0])).flops["llm_prefill"]
    assert flops[1] - flops[0] == pytest.approx(4 * 32 * 640 * D * 32)
    plain = costmodel.estimate(MODEL, GPU, text_tokens=32, visual_tokens=0, runtime="eager")
    assert flops[0] == pytest.approx(plain.flops["llm_prefill"])


def test_later_questions_take_no_less_than_their_own_tokens(finding: Finding) -> None:
    alone = costmodel.estimate(MODEL, "rtx-a6000", text_tokens=32, visual_tokens=0, runtime="eager")
    for name in ("none", "spatial"):
        later = [row["ttft_ms"] for row in rows_of(finding, name, "rtx-a6000")[1:]]
        assert min(later) >= 1e3 * alone.time_s["ttft"] - 1e-9
        assert later == sorted(later)
    # The weights are read for every question: half of 13.5 GB at 768 GB/s is a safe floor.
    assert alone.time_s["ttft"] > 13.5 / 768 / 2


def test_where_choosing_again_stops_paying(finding: Finding) -> None:
    for row in records(finding, "Questions at which"):
        totals = {
            name: [one["all_so_far_ms"] for one in rows_of(finding, name, row["gpu"])]
            for name in ("none", row["method"])
        }
        at = row["slower_than_none_from_question"]
        assert at is not None
        assert totals[row["method"]][at - 1] > totals["none"][at - 1]
        assert totals[row["method"]][at - 2] <= totals["none"][at - 2]
        assert f"question {at} ({row['method']}, {row['gpu']})" in finding.answer


def test_one_question_is_no_conversation() -> None:
    with pytest.raises(InputError, match="turns"):
        STUDY.run(turns=1)
