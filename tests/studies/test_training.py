"""The training study: totals of `train_cost`, published hours, bytes by hand."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.catalog.hardware import load_gpu
from costmodel.studies.named.training import STUDY, VARIANTS
from costmodel.studies.sharing import linked
from costmodel.studies.study import Finding
from costmodel.training import train_cost

MODEL = "llava-1.5-7b"


@pytest.fixture(scope="module")
def finding() -> Finding:
    return STUDY.run(gpus=("a100-80gb-sxm", "rtx-a6000"))


def records(finding: Finding, start: str) -> list[dict[str, Any]]:
    (table,) = (one for one in finding.tables if one.title.startswith(start))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_are_those_of_a_training_run(finding: Finding, name: str) -> None:
    cost = train_cost(MODEL, "a100-80gb-sxm", compress=VARIANTS[name])
    rows = [
        row for row in records(finding, "Training by")
        if (row["gpu"], row["method"]) == ("a100-80gb-sxm", name)
    ]  # fmt: skip
    assert [row["stage"] for row in rows] == ["alignment", "instruction tuning", "both"]
    expected = [*(stage.hours for stage in cost.stages), cost.hours]
    assert [row["hours"] for row in rows] == pytest.approx(expected)
    assert (rows[2]["hours_low"], rows[2]["hours_high"]) == pytest.approx(cost.band_hours)
    assert rows[2]["gpu_hours"] == pytest.approx(8 * cost.hours)
    assert rows[2]["exaflop"] == pytest.approx(cost.flops / 1e18)


def test_published_hours(finding: Finding) -> None:
    """LLaVA's README: 3.5 h and 10 h on 8 A100; PyramidDrop, table 1: 104, 79, 366, 218 GPU-h."""
    rows = records(finding, "Against published")
    assert sorted(row["published_value"] for row in rows) == [3.5, 10, 79, 104, 218, 366]
    for row in rows:
        inside = row["predicted_low"] <= row["published_value"] <= row["predicted_high"]
        assert row["in_band"] == inside
        # Within a factor of two, whatever was assumed of text and padding.
        assert 0.5 < row["predicted_over_published"] < 2
    assert f"{sum(row['in_band'] for row in rows)} lie in their bands" in finding.answer


def test_pyramiddrop_saves_about_what_it_prints(finding: Finding) -> None:
    """79 of 104 and 218 of 366 GPU-hours: 0.76 and 0.60; ratios do not depend on the lab."""
    rows = {(row["model"], row["method"]): row for row in records(finding, "Against published")
            if row["published"].endswith("GPU h")}  # fmt: skip
    for model in ("LLaVA-1.5-7B", "LLaVA-NeXT-7B"):
        ours, theirs = (
            rows[model, "PDrop"][f"{which}_value"] / rows[model, "Vanilla"][f"{which}_value"]
            for which in ("predicted", "published")
        )
        assert ours == pytest.approx(theirs, abs=0.1)


def test_eight_a6000_exchange_over_pcie(finding: Finding) -> None:
    """No bridge joins eight: 32 GB/s, as `linked` has it, and more hours than over a bridge."""
    card = load_gpu("rtx-a6000")
    assert linked(card, 8).link_bytes_per_s == 32e9
    assert linked(card, 2).link_bytes_per_s == card.link_bytes_per_s
    assert linked(load_gpu("a100-80gb-sxm"), 8) == load_gpu("a100-80gb-sxm")
    bridged = train_cost(MODEL, card).stages[1]
    (row,) = (
        row for row in records(finding, "Training by")
        if (row["gpu"], row["method"], row["stage"])
        == ("rtx-a6000", "none (576)", "instruction tuning")
    )  # fmt: skip
    more = bridged.communication_s / 3600 * (card.link_bytes_per_s / 32e9 - 1)
    assert row["hours"] == pytest.approx(bridged.hours + more)


def test_own_recipes_have_their_data(finding: Finding) -> None:
    """LCS-558K and mix665K by the scripts; CC-595K and LLaVA-158K by the paper."""
    samples = {row["recipe"]: row["samples"] for row in records(finding, "STF's own")}
    assert samples == {"stf": 558128 + 665298, "stf-paper": 595375 + 157712}
