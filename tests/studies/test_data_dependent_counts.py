"""Counts over images: order statistics by simulation, times as the facade has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Integer

import costmodel
from costmodel.compression.counts import longest_of_batch
from costmodel.errors import InputError
from costmodel.studies.named.data_dependent_counts import PUBLISHED, STUDY
from costmodel.studies.study import Finding
from costmodel.studies.token_counts import TokenCounts
from costmodel.symbols import sym

MODEL, GPU = "llava-1.5-7b", "a100-80gb-sxm"


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run()


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize(("mean", "deviation"), [(89, 27), (195, 47), (394, 57), (32, 9.6)])
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_longest_of_a_batch_by_simulation(mean: float, deviation: float, batch: int) -> None:
    counts = TokenCounts.normal(mean, deviation, 576)
    draws = np.random.default_rng(0).normal(mean, deviation, (20_000, batch))
    longest = np.clip(np.rint(draws), 1, 576).max(axis=1)
    error = longest.std() / np.sqrt(len(longest))
    assert counts.expected_longest(batch) == pytest.approx(longest.mean(), abs=4 * error)


@pytest.mark.parametrize("batch", [1, 4, 64, 512])
def test_longest_of_a_batch_is_near_the_approximation_of_plans(batch: int) -> None:
    """The closed form of `longest_of_batch` is good to 1.1 % of the excess, and rounds up."""
    exact = TokenCounts.normal(89, 27, 576).expected_longest(batch)
    close = longest_of_batch(Integer(89), Integer(576), Integer(27)).subs(sym("b"), batch)
    assert float(close) == pytest.approx(exact, abs=2.0)


def test_distribution_by_hand() -> None:
    """Two thirds of a normal variable are within 0.967 deviations, 95 % below 1.645."""
    counts = TokenCounts.normal(195, 47, 576)
    assert counts.share.sum() == pytest.approx(1)
    assert counts.mean == pytest.approx(195, abs=0.01)
    assert counts.quantile(0.95) == round(195 + 1.645 * 47)
    inside = counts.share[(counts.tokens >= 195 - 47) & (counts.tokens <= 195 + 47)].sum()
    assert inside == pytest.approx(0.683, abs=0.01)


def test_buckets_by_enumeration() -> None:
    counts = TokenCounts.normal(30, 8, 64)
    padded = counts.bucketed(16)
    assert [padded[n - 1] for n in (1, 16, 17, 48, 49, 64)] == [16, 16, 32, 48, 64, 64]
    assert counts.buckets(16, share=1 - 2e-12) == 4
    assert counts.buckets(16, share=0.5) == 2
    assert counts.expected(padded) == pytest.approx(
        sum(16 * -(-n // 16) * p for n, p in zip(counts.tokens, counts.share, strict=True))
    )


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (577, 1), (5, -1)])
def test_impossible_counts_are_refused(mean: float, deviation: float) -> None:
    with pytest.raises(InputError):
        TokenCounts.normal(mean, deviation, 576)


@pytest.mark.parametrize("name", PUBLISHED)
def test_quantiles_are_estimates_of_as_many_tokens(finding: Finding, name: str) -> None:
    """`kept` sets the mean, which costs of one request are worked out for."""
    (row,) = (row for row in records(finding, "One request") if row["method"] == name)
    method = PUBLISHED[name][0]
    for quantile in ("p50", "p95"):
        found = costmodel.estimate(
            MODEL, GPU, text_tokens=64, runtime="eager",
            compress=f"{method}:kept={row[f'{quantile}_tokens']}",
        )  # fmt: skip
        seconds = found.time_s["ttft"]
        assert row[f"{quantile}_ttft_ms"] == pytest.approx(1e3 * seconds, rel=0.01)


def test_published_levels(finding: Finding) -> None:
    """DyMU, table 1: 89 +- 27, 195 +- 47, 394 +- 57 tokens; 95 % are below 1.645 deviations."""
    rows = {row["method"]: row for row in records(finding, "One request")}
    for name, mean, deviation in (("low", 89, 27), ("mid", 195, 47), ("high", 394, 57)):
        assert rows[f"DyMU {name}"]["mean_tokens"] == pytest.approx(mean, abs=0.1)
        assert rows[f"DyMU {name}"]["p95_tokens"] == round(mean + 1.645 * deviation)


def test_padding_of_a_batch(finding: Finding) -> None:
    for row in records(finding, "Batches padded"):
        assert row["padding_pct_of_ttft"] >= -0.01
        if row["batch"] == 1:
            assert row["padding_pct_of_tokens"] == pytest.approx(0, abs=0.1)
    (row,) = (
        row for row in records(finding, "Batches padded")
        if (row["method"], row["batch"]) == ("DyMU low", 8)
    )  # fmt: skip
    found = costmodel.estimate(
        MODEL, GPU, text_tokens=64, runtime="eager", batch=8, compress="dymu:level=low"
    )
    assert row["ttft_padded_ms"] == pytest.approx(1e3 * found.time_s["ttft"], rel=0.01)


def test_one_bucket_of_all_tokens_is_no_compression(finding: Finding) -> None:
    plain = costmodel.estimate(MODEL, GPU, text_tokens=64)
    for row in records(finding, "Any such count"):
        if row["bucket_tokens"] == 576:
            assert row["graphs"] == 1
            assert row["mean_ttft_ms"] == pytest.approx(1e3 * plain.time_s["ttft"])
        if row["bucket_tokens"] == 1:
            assert row["over_exact_pct"] == 0
            assert row["mean_ttft_ms"] < row["compiled_without_graphs_ms"] < row["eager_ms"]
