"""The worked examples of docs/image-tokens.md are what the code computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from costmodel.specs.vision_rules import ImageRule
from costmodel.vision_tokens import parse_image, visual_layout

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "image-tokens.md"
RULES: dict[str, ImageRule] = TypeAdapter(dict[str, ImageRule]).validate_python(
    json.loads((TESTS / "data" / "image_rules.json").read_text("utf-8"))
)
ROWS = [
    cells
    for line in PAGE.read_text("utf-8").splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0] in RULES
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_worked_example(row: list[str]) -> None:
    found = visual_layout(RULES[row[0]], [parse_image(row[1])])
    computed = (found.features, found.markers, found.projected, found.tower_sequences)
    assert computed == tuple(int(cell) for cell in row[2:])


def test_every_rule_has_a_worked_example() -> None:
    assert {RULES[row[0]].rule for row in ROWS} == {rule.rule for rule in RULES.values()}
