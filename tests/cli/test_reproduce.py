"""``costmodel reproduce``: table, JSON, CSV, page and bad input."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Json = Callable[..., Any]
Text = Callable[..., str]
CONTRACT = {
    "source", "method", "model", "metric", "kind", "theirs", "ours", "ratio", "verdict", "reason",
}  # fmt: skip


def test_json_of_all(as_json: Json) -> None:
    found = as_json("reproduce all --format json")
    assert found == as_json("reproduce --format json")
    assert len(found["rows"]) == 215
    for row in found["rows"]:
        assert set(row) >= CONTRACT
        assert row["kind"] in {"formula", "measured", "other"}
        assert row["verdict"] in {"reproduced", "differs", "measured", "not a cost quantity"}
        assert (row["ratio"] is None) == (row["ours"] is None)
        if row["ours"] is not None:
            assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
    formula = [row for row in found["rows"] if row["kind"] == "formula"]
    good = [row for row in formula if row["verdict"] == "reproduced"]
    assert len(good) / len(formula) >= 0.85
    assert found["summary"]["reproduced"] == len(good)


def test_json_of_m3(as_json: Json) -> None:
    rows = as_json("reproduce m3 --format json")["rows"]
    assert len(rows) == 20
    assert sum(row["rounds"] for row in rows) == 17


def test_table_says_rule_reasons_and_counts(ok: Text) -> None:
    text = " ".join(ok("reproduce prumerge").split())
    assert "15 of 16 reproduced (93.8 %), 15 of them to the last printed digit" in text
    assert "Rule llm-viewer-legacy on a V100" in text
    assert "PruMerge 40 FLOPs 0.28 (18.8 % below the printed figure): a quarter of" in text


def test_table_of_measured_figures_has_bands(ok: Text) -> None:
    text = ok("reproduce visionzip")
    assert re.search(r"prefill time\s.*\d \(\d+(\.\d+)? to \d+(\.\d+)?\)", text)
    assert "not a cost quantity" in text


def test_csv(ok: Text) -> None:
    rows = list(csv.DictReader(io.StringIO(ok("reproduce dymu --format csv"))))
    assert [row["printed"] for row in rows] == ["1359.0", "64.9", "311.5", "1272"]
    assert {row["verdict"] for row in rows} == {"reproduced"}


def test_page_needs_nothing_else(ok: Text, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert ok("reproduce", "m3", "-o", str(target)) == ""
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", page)
    assert page.count("<tr class=") == 20
    assert "17 of them to the last printed digit" in page
    assert ok("reproduce m3 --format html") == page


def test_other_endings_get_what_format_says(ok: Text, tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    ok("reproduce", "stf", "--format", "json", "-o", str(target))
    assert json.loads(target.read_text(encoding="utf-8"))["rows"][0]["printed"] == "1.9"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("reproduce m4", ("'m4'", "m3", "prumerge", "all")),
        ("reproduce m3 --format xml", ("xml", "html")),
        ("reproduce m3 -o missing/page.html", ("output", "missing")),
        ("reproduce m3 fastv", ("fastv",)),
    ],
)
def test_bad_input_is_one_line(
    run: Callable[..., Result], words: str, parts: tuple[str, ...]
) -> None:
    result = run(words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(part in result.stderr for part in parts)


CASE = "estimate llava-1.5-7b --gpu rtx-a6000 --text-tokens 30"


def test_estimate_has_a_convention_only_where_asked(as_json: Json) -> None:
    alone, asked = (as_json(f"{CASE} {more} --format json") for more in ("", "--convention flop"))
    assert set(asked) - set(alone) == {"convention"}
    assert {key: asked[key] for key in alone} == alone
    true = asked["flops"]["llm_prefill"] + asked["flops"]["lm_head"]
    assert asked["convention"]["name"] == "flop"
    assert asked["convention"]["flops"] == asked["convention"]["true_flops"] == true


def test_estimate_under_llm_viewer_is_the_row_of_m3(as_json: Json, ok: Text) -> None:
    """M3's row of 576 tokens: 8.0 TB, 58.1 ms, 21.6 GB, 3.8 GB."""
    found = as_json(f"{CASE} --convention llm-viewer --format json")["convention"]
    viewer = found["llm_viewer"]
    assert viewer["device"] == "nvidia_A6000"
    assert round(found["flops"] / 1e12, 1) == 8.0
    assert round(1e3 * viewer["time_s"], 1) == 58.1
    assert round(viewer["bytes_moved"] / 1e9, 1) == 21.6
    assert round(viewer["activations_stored_bytes"] / 1e9, 1) == 3.8
    text = ok(f"{CASE} --convention llm-viewer")
    assert "Convention llm-viewer" in text
    assert "58.1 ms on nvidia_A6000" in text


def test_table_has_no_convention_unless_asked(ok: Text) -> None:
    assert "Convention" not in ok(CASE)


def test_help_names_every_convention(ok: Text) -> None:
    from costmodel.conventions import list_conventions

    text = " ".join(ok("estimate --help").replace("│", " ").split())
    for name in list_conventions():
        assert re.search(rf"[ ]{name}[ ,.]", text), name


def test_unknown_convention(run: Callable[..., Result]) -> None:
    result = run(f"{CASE} --convention mac-4mlp")
    assert result.exit_code == 2
    assert "Did you mean mac-" in result.stderr
