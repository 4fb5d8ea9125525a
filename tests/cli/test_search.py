"""``costmodel search``: table, JSON, CSV and bad input."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

ROWS = [
    ("none", 576, 0.2, 3.3e8, True),
    ("visionzip", 64, 0.05, 7e7, True),
    ("visionzip", 192, 0.08, 1.3e8, True),
    ("cluster", 65, 0.04, 7.1e7, False),
]


@pytest.fixture
def results(tmp_path: Path) -> str:
    path = tmp_path / "results.parquet"
    columns = ["method", "visual_tokens_kept", "ttft_s", "kv_cache_bytes", "fits"]
    frame = pd.DataFrame(ROWS, columns=columns)
    frame.insert(0, "model", "llava-1.5-7b")
    frame.to_parquet(path)
    return str(path)


def test_json_says_what_was_left_out(as_json: Callable[..., Any], results: str) -> None:
    found = as_json(
        "search", results, "--where", "ttft_s <= 100ms", "--pareto", "ttft_s,score:max",
        "--format", "json",
    )  # fmt: skip
    assert (found["read"], found["met"], found["on_front"]) == (4, 3, 2)
    assert found["without_value"] == 1
    assert found["unscored"] == [{"model": "llava-1.5-7b", "method": "cluster", "points": 1}]
    assert [row["visual_tokens_kept"] for row in found["rows"]] == [64, 192]
    assert found["rows"][0]["score_low_pct"] < found["rows"][1]["score_low_pct"]


def test_csv_and_limit(ok: Callable[..., str], results: str) -> None:
    text = ok("search", results, "--sort", "ttft_s:max", "--limit", "2", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["method"] for row in rows] == ["none", "visionzip"]


def test_table_is_readable(ok: Callable[..., str], results: str) -> None:
    text = ok("search", results, "--scores")
    for part in ("4 of 4 points", "all: model llava-1.5-7b", "200 ms", "330 MB", "cluster on"):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 100


def test_nothing_found_is_an_answer(ok: Callable[..., str], results: str) -> None:
    assert "0 of 4 points" in ok("search", results, "--where", "ttft_s < 1us")
    assert ok("search", results, "--where", "ttft_s < 1us", "--format", "csv") == "\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--where", "ttft_s << 1"], ("where", "<< 1")),
        (["--where", "time <= 1"], ("'time'", "ttft_s")),
        (["--where", "ttft_s <= 4 GB"], ("4 GB", "ms")),
        (["--pareto", "ttft_s,"], ("pareto", "''")),
        (["--pareto", "method"], ("method", "numbers")),
        (["--limit", "0"], ("limit", "0")),
        (["--limit", "some"], ("limit", "'some'")),
        (["-o", "missing-folder/x.csv"], ("missing-folder",)),
    ],
)
def test_bad_input_is_one_line(
    run: Callable[..., Result], results: str, words: list[str], parts: tuple[str, ...]
) -> None:
    result = run("search", results, *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(part in result.stderr for part in parts), result.stderr


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("missing.parquet", None, "no such file"),
        ("damaged.parquet", b"not parquet", "no table"),
        ("empty.csv", b"", "no table"),
        ("binary.csv", b"\xff\xfe\x00\x01\n", "no table"),
        ("results.xlsx", b"", ".parquet"),
    ],
)
def test_bad_files(
    run: Callable[..., Result], tmp_path: Path, name: str, content: bytes | None, part: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = run("search", str(path))
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert part in result.stderr
