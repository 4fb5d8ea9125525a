"""The accuracy page: not stale, and its prefill sum as good as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.calibration.accuracy import AccuracyRow
from costmodel.calibration.loading import load_timings
from costmodel.calibration.page import calibration_section
from costmodel.calibration.page_tables import (
    BEGIN,
    END,
    PEERS_MS,
    PREFILL_TARGETS,
    missed,
    target_table,
)
from costmodel.calibration.prefill_sum import (
    TOKENS,
    PrefillSum,
    mean_error_pct,
    prefill_sums,
)
from costmodel.catalog.calibrations import list_calibrations

MEASURED_MS = (10.2, 12.8, 18.7, 43.5, 71.9, 143.7, 291.9)


def test_page_shows_the_shipped_calibrations(repo_root: Path) -> None:
    """Run `python -m costmodel.calibration.page TIMINGS... -o docs/accuracy.md` if this fails."""
    text = (repo_root / "docs" / "accuracy.md").read_text(encoding="utf-8")
    shown = text[text.index(BEGIN) : text.index(END) + len(END)] + "\n"
    assert shown == calibration_section()
    assert all(f"### `{name}`" in shown for name in list_calibrations())


def test_every_peer_is_shown_at_every_length(repo_root: Path) -> None:
    assert all(len(times) == len(TOKENS) for times in PEERS_MS.values())
    text = (repo_root / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert all(peer in text for peer in PEERS_MS)


def row(mape: float, at_most: float | None) -> AccuracyRow:
    return AccuracyRow("add", "a40", "s@1", "w", "fp16", 9, mape, 20.0, 1.0, 30.0, at_most, at_most)


def test_what_is_missed_is_said() -> None:
    rows = [row(5.0, 6.0), row(7.0, 6.0), row(9.0, None)]
    table = target_table(rows)
    for line, met in zip(table.splitlines()[2:], ("yes", "**no**", "-"), strict=True):
        assert line.endswith(f"| {met} |")
    assert missed(rows).count("\n") == 1
    assert "7.0 %, at most 6 % asked: reason not known" in missed(rows)
    assert missed(rows[:1]) == "None.\n"


@pytest.fixture(scope="module")
def sums(shared_dir: Path) -> list[PrefillSum]:
    names = ("gemm", "elementwise", "attention_prefill")
    timings, _ = load_timings([shared_dir / "measurements" / f"{name}.parquet" for name in names])
    return prefill_sums(timings)


def test_measured_prefill_is_the_published_sum(sums: list[PrefillSum]) -> None:
    found = [1e3 * item.measured_s for item in sums]
    assert found == pytest.approx(MEASURED_MS, rel=0.005)


def test_prefill_at_unseen_shapes_is_within_target(sums: list[PrefillSum]) -> None:
    errors = [item.unseen_error_pct for item in sums]
    assert max(map(abs, errors)) <= PREFILL_TARGETS["each"][0]
    assert mean_error_pct(errors) <= PREFILL_TARGETS["mean"][0]
    assert all(abs(item.roofline_error_pct) > 25 for item in sums)
