"""Artefacts of released code: sizes by hand, differences as the facade has them."""

from __future__ import annotations

from typing import Any

import pytest

import costmodel
from costmodel.compression.method import parse
from costmodel.studies.named.implementation_audit import ARTEFACTS, STUDY
from costmodel.studies.study import Finding

MODEL, GPU, D, M = "llava-1.5-7b", "a100-80gb-sxm", 4096, 11008


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda one: one.name)
def test_differences_are_those_of_estimates(finding: Finding, artefact: Any) -> None:
    (row,) = (
        row for row in records(finding, "Released")
        if (row["gpu"], row["batch"], row["method"]) == (GPU, 8, artefact.name)
    )  # fmt: skip
    released, lean = (
        costmodel.estimate(
            MODEL, GPU, text_tokens=64, runtime="eager", batch=8, compress=text.format(k=64)
        )
        for text in (artefact.released, artefact.lean)
    )
    more = released.time_s["ttft"] - lean.time_s["ttft"]
    assert row["artefact_ms"] == pytest.approx(1e3 * more)
    held = released.memory_bytes["total"] - lean.memory_bytes["total"]
    assert row["artefact_peak_mb"] == pytest.approx(held / 1e6)
    assert row["artefact_gflop"] * 1e9 == pytest.approx(
        released.flops["total"] - lean.flops["total"], abs=1e6
    )
    # The same method, which keeps as many tokens both times.
    assert parse(artefact.released.format(k=64)).method is parse(artefact.lean.format(k=64)).method


def test_fastv_runs_a_whole_layer_again(finding: Finding) -> None:
    """2 s (4 d^2 + 3 d m) and 4 s^2 d FLOP of 640 tokens; one layer cached twice."""
    rows = records(finding, "What the artefacts are")
    (size,) = (row for row in rows if row["method"] == "FastV")
    layer = 2 * 640 * (4 * D**2 + 3 * D * M) + 4 * 640**2 * D
    assert size["gflop"] == pytest.approx(layer / 1e9, rel=1e-3)
    (row,) = (
        row for row in records(finding, "Released")
        if (row["gpu"], row["batch"], row["method"]) == (GPU, 1, "FastV")
    )  # fmt: skip
    assert row["artefact_kv_mb"] == pytest.approx(640 * 2 * D * 2 / 1e6)


def test_pyramiddrop_projects_three_times(finding: Finding) -> None:
    """3 n d^2 MAC at each stage, of 576, 288 and 144 visual tokens and the text."""
    (size,) = (
        r for r in records(finding, "What the artefacts are") if r["method"] == "PyramidDrop"
    )
    tokens = 576 + 288 + 144 + 3 * 64
    assert size["number"] == 9
    assert size["gflop"] == pytest.approx(2 * 3 * tokens * D**2 / 1e9, rel=1e-6)


def test_visionzip_keeps_256_mb(finding: Finding) -> None:
    """24 maps of 16 heads x 577^2 in fp16 are 256 MB; the lean variant keeps one of them."""
    one = 16 * 577**2 * 2 / 1e6
    assert 24 * one == pytest.approx(256, abs=0.5)
    for row in records(finding, "Released"):
        if row["method"] in ("VisionZip", "FasterVLM"):
            assert row["artefact_peak_mb"] == pytest.approx(23 * one * row["batch"], rel=0.02)


def test_sparsevlm_writes_every_pair(finding: Finding) -> None:
    """Of 276 tokens dropped first, 83 are recycled: 83 x 83 x 4096 differences of 2 B.

    Beside them eager code holds the prompt's embeddings and its visual tokens.
    """
    (size,) = (row for row in records(finding, "What the artefacts are")
               if row["method"] == "SparseVLM")  # fmt: skip
    assert size["number"] == 3
    assert size["live_mb_at_most"] == pytest.approx((83**2 + 640 + 576) * D * 2 / 1e6, rel=1e-6)


def test_the_answer_names_the_dearest(finding: Finding) -> None:
    rows = [r for r in records(finding, "Released") if (r["gpu"], r["batch"]) == (GPU, 1)]
    dearest = max(rows, key=lambda row: row["artefact_ms"])
    assert f"batch 1 are {dearest['method']}" in finding.answer
    heaviest = max(rows, key=lambda row: row["artefact_peak_mb"])
    assert heaviest["method"] in finding.answer.split("In memory")[1]
