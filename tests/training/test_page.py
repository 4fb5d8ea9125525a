"""docs/training.md says what the model says now, and what it is checked against."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from costmodel.reproduction import Reproduction, reproduce
from costmodel.training import Recipe, load_recipe, train_cost

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
UNITS = {"h", "GPU h", "min"}


@pytest.fixture(scope="module")
def runs() -> list[Reproduction]:
    return [row for row in reproduce() if row.published.unit in UNITS]


def test_every_published_run_is_on_the_page(runs: list[Reproduction]) -> None:
    rows = re.findall(
        r"^\|[^|]+\| ([\d.]+) (h|GPU h|min) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \| ([\d.]+) \|$",
        PAGE.read_text(encoding="utf-8"), re.MULTILINE,
    )  # fmt: skip
    assert len(rows) == len(runs) == 9
    for printed, unit, *ours in rows:
        (run,) = [r for r in runs if (r.published.printed, r.published.unit) == (printed, unit)]
        assert run.ours is not None
        assert run.ratio is not None
        assert run.band is not None
        shown = [float(value) for value in ours]
        assert shown == pytest.approx([run.ours, *run.band, run.ratio], rel=0.01)


def test_hours_that_pyramiddrop_saves(runs: list[Reproduction]) -> None:
    """PyramidDrop, table 1: 104 to 79 and 366 to 218 GPU-hours."""
    ours = {row.published.printed: row.ours or 0.0 for row in runs}
    assert ours["104"] - ours["79"] == pytest.approx(104 - 79, rel=0.05)
    assert ours["366"] - ours["218"] == pytest.approx(366 - 218, rel=0.05)


def test_how_far_off_and_how_many_are_inside(runs: list[Reproduction]) -> None:
    """A statement of the page; it may change when the model does."""
    ratios = [row.ratio or 0.0 for row in runs]
    assert (round(min(ratios), 2), round(max(ratios), 2)) == (0.84, 1.07)
    assert sum(row.inside is True for row in runs) == 9


def test_padding_explains_most_of_what_was_missing() -> None:
    """What the page says of the same model before padding was counted."""
    padded, alone = (
        train_cost("llava-1.5-7b", "a100-40gb-sxm", recipe=recipe).stages[-1].hours
        for recipe in (load_recipe("llava-1.5"), _without_padding())
    )
    assert padded == pytest.approx(10.7, rel=0.01)
    assert alone == pytest.approx(6.25, rel=0.01)


def _without_padding() -> Recipe:
    """No sample is longer than the others of its kind."""
    recipe = load_recipe("llava-1.5").model_dump(mode="json")
    for stage in recipe["stages"]:
        stage["max_tokens"] = 576
    return Recipe.parse(recipe, "test")
