"""Goals of the accuracy page: pairs of mean and 90th percentile, both of which must be met."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.calibration.accuracy import AccuracyRow, Targets, judge
from costmodel.calibration.page_tables import missed, summary, target_table

STACK = ("a40", "lab@1", "frame/2", "fp16")


def judged(targets: Targets | None, quantity: str = "add") -> AccuracyRow:
    """Nine rows predicted exactly and one by a half too long: mean 5 %, p90 between the two."""
    times = np.full(10, 20e-6)
    predicted = np.where(np.arange(10) == 9, 1.5, 1.0) * times
    return judge(quantity, STACK, times, predicted, times, targets=targets)


@pytest.mark.parametrize(
    ("at_most", "met"),
    [(5.1, True), (4.9, False), ((5.1, 5.1), True), ((5.1, 4.9), False), ((4.9, 5.1), False)],
)
def test_both_parts_of_a_goal_count(at_most: float | tuple[float, float], met: bool) -> None:
    row = judged((at_most, 1.0))
    assert row.mape_pct == pytest.approx(5.0)
    assert row.p90_pct == pytest.approx(5.0)
    assert row.met is met
    assert row.aim_met is False


def test_no_goal_and_no_rows() -> None:
    assert judged(None).met is None
    nothing = np.array([])
    assert judge("add", STACK, nothing, nothing, nothing, targets=(6.0, 4.0)).met is False


def test_goals_are_shown_as_pairs_and_counted() -> None:
    rows = [judged(((6.0, 12.5), (5.1, 9.0)), "seen"), judged(((6.0, 4.5), (4.0, 3.0)), "worse"),
            judged((8.0, 2.0), "mean"), judged(None, "none")]  # fmt: skip
    lines = target_table(rows).splitlines()[2:]
    assert "| 6 / 12.5 | 5.1 / 9 | 5.0 / 5.0 |" in lines[0]
    assert "| 8 | 2 | 5.0 / 5.0 |" in lines[2]
    assert [line.split(" | ")[-2:] for line in lines] == [
        ["yes", "yes |"], ["no", "**no** |"], ["no", "yes |"], ["-", "- |"]
    ]  # fmt: skip
    text = summary(rows)
    assert text.startswith("Of 3 goals, 2 are met (1 of them as well as aimed for) and 1 missed: ")
    assert text.endswith("worse (a40, lab frame).")
    assert missed(rows).splitlines() == [
        "- worse, a40, frame/2: 5.0 / 5.0 %, at most 6 / 4.5 % asked: reason not known."
    ]
