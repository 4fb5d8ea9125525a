"""Published scores: the copy is complete, names match, averages are those that sources print."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from costmodel.catalog.models_io import list_models
from costmodel.compression.method import list_methods
from costmodel.errors import UnknownNameError
from costmodel.scores import (
    AVERAGES,
    Score,
    SourceScore,
    by_source,
    published_scores,
    score_range,
    scores_for,
)
from costmodel.scores.names import load_names

MODEL = "llava-1.5-7b"
FIELDS = 8


def test_copy_holds_every_listed_figure(shared_dir: Path) -> None:
    path = shared_dir / "published" / "accuracy_published.csv"
    if not path.exists():
        pytest.skip("no list of published scores")
    with path.open(encoding="utf-8", newline="") as file:
        # A source with a comma is not quoted in the list, so it has a field too many.
        lines = [line[: FIELDS - 1] for line in list(csv.reader(file))[1:]]
    listed = Counter(
        (method, model, _number(tokens), _number(retention), benchmark, metric, value)
        for method, model, tokens, retention, benchmark, metric, value in lines
    )
    own = Counter(
        (
            row.published_method, row.published_model, row.tokens, row.retention,
            row.benchmark, row.metric, row.printed,
        )
        for row in published_scores()
    )  # fmt: skip
    assert own == listed


def _number(text: str) -> float | None:
    return float(text) if text else None


def test_every_name_is_known_and_used() -> None:
    names, rows = load_names(), published_scores()
    assert {name for name, _ in names.methods.values()} <= set(list_methods())
    assert set(names.models.values()) <= set(list_models())
    assert set(names.methods) <= {row.published_method for row in rows}
    assert set(names.models) <= {row.published_model for row in rows}
    assert set(names.sources) == {row.source for row in rows}
    assert all(row.url.startswith("https://") for row in rows)


def test_a_source_states_a_score_once() -> None:
    places = Counter(
        (row.source, row.published_model, row.published_method, row.benchmark, row.tokens,
         row.retention)
        for row in published_scores()
    )  # fmt: skip
    assert max(places.values()) == 1


def test_only_a_range_is_no_number() -> None:
    (row,) = [row for row in published_scores() if row.value is None]
    assert (row.method, row.printed, row.relative_pct) == ("cluster", "58-59", None)


def _both() -> list[SourceScore]:
    found = by_source(published_scores())
    return [one for one in found if one.basis == "computed" and one.printed_pct is not None]


def test_sources_that_print_their_average_are_enough_to_check() -> None:
    assert Counter(one.source.partition(" ")[0] for one in _both()) == {"VScan": 19, "MMTok": 19}


@pytest.mark.parametrize("one", _both(), ids=lambda o: f"{o.source[:5]}-{o.published_method}")
def test_computed_average_is_the_printed_one(one: SourceScore) -> None:
    """The sources' own averages: one decimal, made from scores with more digits than printed."""
    assert one.printed_pct is not None
    assert one.relative_pct == pytest.approx(one.printed_pct, abs=0.12)


def test_retention_above_the_lower_bound_is_no_percentage_of_vanilla() -> None:
    """HTC-VLM's average counts from the score without an image, so it is never a relative score."""
    rows = [row for row in published_scores() if row.source.startswith("HTC-VLM (")]
    table = {(row.published_method, row.benchmark): row.value for row in rows}
    voco = [row for row in rows if row.published_method == "VoCo-LLaMA" and not row.is_average]
    shares = []
    for row in voco:
        lower = table["Lower bound", row.benchmark]
        assert row.value is not None
        assert row.vanilla is not None
        assert lower is not None
        shares.append((row.value - lower) / (row.vanilla - lower))
    printed = table["VoCo-LLaMA", "avg_retention_pct"]
    assert 100 * sum(shares) / len(shares) == pytest.approx(printed, abs=0.1)
    (joined,) = by_source(row for row in rows if row.published_method == "VoCo-LLaMA")
    assert joined.printed_pct is None
    assert joined.relative_pct is not None
    assert printed is not None
    assert joined.relative_pct > printed + 5


def test_conflicts_stay_side_by_side() -> None:
    rows = scores_for("pyramiddrop", MODEL, 128)
    mme = {row.source.partition(" ")[0]: row.printed for row in rows if row.benchmark == "MME"}
    assert mme == {"SparseVLM": "1664", "VScan": "1761", "V2Drop": "1644"}
    found = by_source(rows)
    assert [one.source.partition(" ")[0] for one in found] == ["SparseVLM", "VScan", "V2Drop"]
    assert [one.basis for one in found] == ["computed", "computed", "printed"]
    values = [one.relative_pct for one in found if one.relative_pct is not None]
    span = score_range(found)
    assert span is not None
    assert (span.low_pct, span.high_pct, span.sources) == (min(values), max(values), 3)


def test_relative_score_is_against_the_vanilla_row_of_the_same_source() -> None:
    gqa = [row for row in scores_for("fastv", MODEL, 192) if row.benchmark == "GQA"]
    assert [(row.printed, row.vanilla) for row in gqa] == [
        ("52.6", 61.9), ("52.7", 61.9), ("52.7", 61.9),
    ]  # fmt: skip
    assert gqa[0].relative_pct == pytest.approx(100 * 52.6 / 61.9)
    sqa = {row.vanilla for row in published_scores() if row.benchmark == "SQA" and row.vanilla}
    assert {66.8, 69.5, 69.4} <= sqa


def test_a_source_without_vanilla_has_no_relative_score() -> None:
    found = by_source(scores_for("prumerge-plus", MODEL, 288))
    assert [(one.basis, one.relative_pct) for one in found] == [("none", None)]
    assert len(found[0].benchmarks) == 6
    assert score_range(found) is None


def test_averages_never_enter_a_mean() -> None:
    for one in by_source(published_scores()):
        assert not set(one.benchmarks) & set(AVERAGES)
    row = next(row for row in published_scores() if row.benchmark == "avg" and row.vanilla)
    assert row.relative_pct is None


def test_variants_are_apart() -> None:
    rows = scores_for("visionzip", MODEL, 192)
    assert {row.variant for row in rows} == {"", "projector fine-tuned"}
    assert [bool(one.variant) for one in by_source(rows)] == [False, False, False, True, True]
    trained = {row.variant for row in scores_for("pyramiddrop", MODEL) if row.tokens is None}
    assert trained == {"trained with it"}


def test_vanilla_is_the_whole_by_definition() -> None:
    found = by_source(scores_for("none", MODEL, 576))
    assert len(found) > 4
    assert {one.relative_pct for one in found} == {100.0}


def test_what_has_no_scores_has_none() -> None:
    assert scores_for("random", MODEL) == []
    assert scores_for("fastv", "qwen2-vl-7b") == []
    assert scores_for("fastv", MODEL, 100) == []
    with pytest.raises(UnknownNameError, match="fastv"):
        scores_for("fastvv", MODEL)


def test_a_score_of_an_unmodelled_method_is_kept() -> None:
    rows: list[Score] = [row for row in published_scores() if row.published_method == "MMTok"]
    assert len(rows) == 30
    assert {row.method for row in rows} == {None}
