"""What docs/scores.md says about the scores is what the data say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from costmodel.scores import ScoreRange, by_source, published_scores, score_range, scores_for

PAGE = Path(__file__).parents[2] / "docs" / "scores.md"
MODEL = "llava-1.5-7b"
METHODS = (
    "fastv", "sparsevlm", "pyramiddrop", "visionzip", "tome", "prumerge", "divprune", "v2drop",
    "vscan",
)  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def _range(method: str, tokens: int) -> ScoreRange:
    found = score_range(
        by_source(row for row in scores_for(method, MODEL, tokens) if not row.variant)
    )
    assert found is not None
    return found


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_tables_show_the_ranges(page: str, tokens: int) -> None:
    table = page.partition(f"\n{tokens} tokens:")[2].split("```")[1]
    for method in METHODS:
        (line,) = [line for line in table.splitlines() if line.startswith(f"{method}:")]
        score = re.search(r"\s(\d\d\.\d(?:-\d\d\.\d)?)\s", line)
        assert score is not None
        assert score[1] == _range(method, tokens).span


def _alike(methods: set[str], first: str, second: str) -> tuple[int, int]:
    """Count scores that two sources both list, those alike and all."""
    tables = [
        {
            (row.published_method, row.published_model, row.tokens, row.benchmark): row.value
            for row in published_scores()
            if row.label == label and row.method in methods and not (row.is_average or row.variant)
        }
        for label in (first, second)
    ]
    both = tables[0].keys() & tables[1].keys()
    return sum(tables[0][key] == tables[1][key] for key in both), len(both)


def test_sources_copy_one_another(page: str) -> None:
    assert _alike({"fastv", "sparsevlm", "visionzip"}, "VScan", "MMTok table 16") == (60, 63)
    assert _alike({"pyramiddrop"}, "SparseVLM table 1", "V2Drop table 1") == (13, 18)
    text = " ".join(page.split())
    assert "60 of 63" in text
    assert "13 of 18" in text


def test_sparsevlm_is_lower_without_its_own_benchmarks(page: str) -> None:
    found = {one.label: one.relative_pct for one in by_source(scores_for("sparsevlm", MODEL, 192))}
    text = " ".join(page.split())
    assert f"{found['SparseVLM table 1']:.1f} % at 192 tokens" in text
    assert f"{found['VScan']:.1f} and {found['MMTok table 16']:.1f} %" in text
    (vet,) = [row for row in scores_for("sparsevlm", MODEL, 192) if row.benchmark == "MMVet"]
    assert f"MM-Vet at {vet.relative_pct:.0f} %" in text
    (voco,) = [
        one
        for one in by_source(scores_for("voco-llama", MODEL, 1))
        if one.label == "HTC-VLM table 1"
    ]
    assert f"which is {voco.relative_pct:.1f} and not 81.0" in text
    compressed = [row for row in published_scores() if row.method != "none"]
    counts = [len(one.benchmarks) for one in by_source(compressed) if one.basis == "computed"]
    assert f"from {min(counts)} to {max(counts)}" in text
