"""Constraints, fronts and published scores over tables made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from costmodel.errors import CostModelError
from costmodel.scores import ScoreRange, by_source, score_range, scores_for
from costmodel.search import Constraint, read_batches, search_results
from costmodel.search.constraints import parse_constraint

FRAME = pd.DataFrame({
    "model": "llava-1.5-7b",
    "gpu": ["a40", "a40", "a30", "a30", "l4"],
    "method": ["none", "visionzip", "visionzip", "cluster:k=64", "fastv then cluster:k=9"],
    "visual_tokens_kept": [576, 64, 65, 64, 9],
    "ttft_s": [0.2, 0.05, 0.1, 0.1, np.nan],
    "kv_cache_bytes": [3e8, 7e7, 7.1e7, 7e7, 4e7],
    "flops_total_flop": [8e12, 2e12, 2e12, 2e12, 1e12],
    "fits": [True, True, False, True, True],
})  # fmt: skip


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("ttft_s <= 100ms", [1, 2, 3]),
        ("ttft_s<0.1", [1]),
        ("ttft_s >= 1e5us", [0, 2, 3]),
        ("ttft_s != 0.2", [1, 2, 3]),
        ("kv_cache_bytes <= 70 MB", [1, 3, 4]),
        ("kv_cache_bytes > 66.8MiB", [0, 2]),
        ("flops_total_flop < 8 TFLOP", [1, 2, 3, 4]),
        ("visual_tokens_kept == 64", [1, 3]),
        ("gpu == a30", [2, 3]),
        ("method != 'cluster:k=64'", [0, 1, 2, 4]),
        ("fits == true", [0, 1, 3, 4]),
        ("fits != yes", [2]),
        ("score >= 99", [0]),
    ],
)
def test_constraints(where: str, rows: list[int]) -> None:
    found = search_results(FRAME, where=[where])
    pd.testing.assert_series_equal(
        found.frame["kv_cache_bytes"], FRAME["kv_cache_bytes"].iloc[rows].reset_index(drop=True)
    )
    assert (found.read, found.met) == (len(FRAME), len(rows))


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("ttft_s", ("'ttft_s'", "COLUMN OPERATOR VALUE")),
        ("ttft_s = 1", ("'ttft_s = 1'", "==")),
        ("ttft_s <= ", ("COLUMN OPERATOR VALUE",)),
        ("ttft_s <=> 1", ("COLUMN OPERATOR VALUE",)),
        ("ttft_s <= 5 GB", ("5 GB", "ms")),
        ("kv_cache_bytes <= 5 ms", ("5 ms", "GiB")),
        ("visual_tokens_kept <= 5 k", ("5 k", "no unit")),
        ("ttft_s <= fast", ("fast", "a number")),
        ("ttft_s <= __import__('os')", ("__import__", "a number")),
        ("ttft_s <= nan", ("nan", "a number")),
        ("tfft_s <= 1", ("'tfft_s'", "Did you mean ttft_s?")),
        ("gpu < a30", ("gpu < a30", "text")),
        ("fits > 0", ("fits > 0", "true or false")),
        ("fits == maybe", ("maybe", "true or false")),
    ],
)
def test_bad_constraints(where: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(CostModelError) as caught:
        search_results(FRAME, where=[where])
    assert all(part in str(caught.value) for part in parts)


def test_a_constraint_is_read_again_from_its_text() -> None:
    one = parse_constraint(" ttft_s<= 100ms ")
    assert one == Constraint("ttft_s", "<=", "100ms") == parse_constraint(str(one))


def test_scores_are_those_of_the_sources() -> None:
    def published(method: str) -> ScoreRange | None:
        rows = scores_for(method, "llava-1.5-7b", 64)
        return score_range(by_source(row for row in rows if not row.variant))

    found = search_results(FRAME, scores=True)
    row = found.frame.iloc[1]
    expected = published("visionzip")
    assert expected is not None
    assert (row["score_low_pct"], row["score_high_pct"]) == (expected.low_pct, expected.high_pct)
    assert len(row["score_sources"].split("; ")) == expected.sources
    # One token more was never published, a chain of methods is none of its parts.
    missing = [True, published("cluster") is None, True]
    assert found.frame["score_low_pct"].isna().tolist()[2:] == missing
    assert found.frame["score_low_pct"][0] == 100
    assert found.unscored[("llava-1.5-7b", "fastv then cluster:k=9")] == 1


def test_tokens_that_no_image_gives_have_no_score() -> None:
    asked = FRAME.assign(visual_tokens=np.array([np.nan, 1000, np.nan, np.nan, np.nan]))
    found = search_results(asked, scores=True).frame
    assert found["score_low_pct"].isna().tolist()[:2] == [False, True]
    assert search_results(FRAME, scores=True).frame["score_low_pct"].notna().tolist()[1]


def test_front_with_scores_leaves_out_and_counts_what_has_none() -> None:
    found = search_results(FRAME, pareto=["ttft_s", "score:max"])
    assert found.frame["method"].tolist() == ["visionzip", "none"]
    assert found.on_front == 2
    assert found.without_value == sum(found.unscored.values()) > 0


def test_equal_points_stay_together() -> None:
    twice = pd.concat([FRAME, FRAME], ignore_index=True)
    found = search_results(twice, pareto=["ttft_s", "kv_cache_bytes"])
    assert found.frame["gpu"].tolist() == ["a40", "a40"]


def _random(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {name: np.floor(40 * random.random(rows)) for name in ("a", "b", "c")}
        | {"label": random.choice(["x", "y"], rows)}
    )


@pytest.mark.parametrize(
    "options",
    [
        {"pareto": ["a", "b", "c:max"]},
        {"where": ["a >= 3", "label == x"], "pareto": ["a", "b"]},
        {"where": ["b < 30"], "sort": "c:max", "limit": 17},
        {"where": ["b < 3"]},
    ],
)
def test_parts_give_what_the_whole_gives(options: dict[str, Any]) -> None:
    whole = _random(3000)
    parts = [whole.iloc[first : first + 250] for first in range(0, len(whole), 250)]
    one, other = search_results(whole, **options), search_results(iter(parts), **options)
    pd.testing.assert_frame_equal(
        one.frame.sort_values([*"abc", "label"], ignore_index=True),
        other.frame.sort_values([*"abc", "label"], ignore_index=True),
    )
    assert (one.read, one.met, one.on_front) == (other.read, other.met, other.on_front)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results.{suffix}"
    if suffix == "csv":
        path.write_text("# a comment\n# another\n" + FRAME.to_csv(index=False), encoding="utf-8")
    else:
        FRAME.astype({"gpu": "category"}).to_parquet(path)
    read = pd.concat(read_batches(str(path)), ignore_index=True)
    pd.testing.assert_frame_equal(read, FRAME, check_dtype=False)


def test_an_empty_table_has_no_points(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    FRAME.iloc[:0].to_parquet(path)
    assert search_results(read_batches(str(path)), pareto=["ttft_s"]).met == 0


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"pareto": ["ttft_s:low"]}, ("ttft_s:low", "min")),
        ({"pareto": ["gpu"]}, ("gpu", "numbers")),
        ({"pareto": ["speed"]}, ("'speed'", "ttft_s")),
        ({"sort": "speed"}, ("'speed'",)),
        ({"limit": 0}, ("limit", "0")),
    ],
)
def test_bad_questions(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(CostModelError) as caught:
        search_results(FRAME, **options)
    assert all(part in str(caught.value) for part in parts)


def test_scores_need_to_know_the_method() -> None:
    with pytest.raises(CostModelError, match="method"):
        search_results(FRAME.drop(columns="method"), scores=True)
