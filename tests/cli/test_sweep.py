"""``costmodel sweep``: options, what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

Run = Callable[..., Result]

SPEC = {"model": "llava-1.5-7b", "gpu": "a40", "methods": ["none", "avgpool"],
        "visual_tokens_kept": [100, 144], "text_tokens": {"range": [1, 30, 1]}}  # fmt: skip
HUGE = SPEC | {"text_tokens": {"range": [1, 4_000_000, 1]}, "batch": {"range": [1, 20, 1]}}


def write(folder: Path, data: Any) -> str:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def test_json_summary(as_json: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    found = as_json("sweep", write(tmp_path, SPEC), "-o", str(output), "--format", "json")
    assert found["points"] == 60
    assert found["bytes"] == output.stat().st_size
    assert found["points_per_second"] == pytest.approx(60 / found["seconds"])
    (lost,) = found["left_out"]
    assert (lost["what"], lost["points"]) == ("llava-1.5-7b, avgpool", 30)
    assert lost["reason"].startswith("a count avgpool can reach")


def test_table_says_what_is_left_out(ok: Callable[..., str], tmp_path: Path) -> None:
    text = ok("sweep", write(tmp_path, SPEC), "-o", str(tmp_path / "out.csv"))
    assert "60" in text
    assert "llava-1.5-7b, avgpool" in text
    assert max(map(len, text.splitlines())) <= 100
    assert (tmp_path / "out.csv").read_text().count("\n") == 61


def test_dry_run_writes_nothing(as_json: Callable[..., Any], tmp_path: Path) -> None:
    found = as_json("sweep", write(tmp_path, HUGE), "--dry-run", "--format", "json")
    assert (found["points"], found["blocks"]) == (160_000_000, 2)
    assert found["estimated_bytes"] > 160_000_000 * 50
    assert found["columns"][:3] == ["model", "gpu", "method"]
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_dry_run_as_text(ok: Callable[..., str], tmp_path: Path) -> None:
    text = ok("sweep", write(tmp_path, HUGE), "--dry-run")
    assert "160,000,000" in text
    assert "ttft_s" in text


def test_too_many_points_need_yes(run: Run, tmp_path: Path) -> None:
    result = run("sweep", write(tmp_path, HUGE), "-o", str(tmp_path / "out.parquet"))
    assert result.exit_code == 2
    assert "160000000 is not valid; expected at most 50,000,000 without --yes" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "missing option '-o'"),
        (["-o", "missing/out.csv"], "there is no folder 'missing'"),
        (["-o", "out.xlsx"], "a file name that ends in .parquet, .csv"),
        (["-o", "folder.csv"], "not of a folder"),
        (["-o", "out.csv", "--workers", "0"], "workers: 0 is not valid"),
        (["-o", "out.csv", "--workers", "two"], "workers: 'two' is not valid"),
        (["-o", "out.csv", "--workers", "2", "--scheduler", "x"], "1 with a scheduler"),
    ],
)
def test_bad_options(words: list[str], message: str, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    words = [str(folder) if word == folder.name else word for word in words]
    result = run("sweep", write(tmp_path, SPEC), *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_missing_spec(run: Run) -> None:
    result = run("sweep", "missing.yaml", "-o", "out.csv")
    assert result.exit_code == 2
    assert "a YAML file that can be read (No such file or directory)" in result.stderr


def test_resume_of_a_whole_run_begins_again(as_json: Callable[..., Any], tmp_path: Path) -> None:
    words = ["sweep", write(tmp_path, SPEC), "-o", str(tmp_path / "out.csv"), "--format", "json"]
    first, second = as_json(*words), as_json(*words, "--resume")
    assert (first["resumed"], second["resumed"]) == (0, 0)
    assert json.loads((tmp_path / "out.csv.json").read_text())["points"] == 60
