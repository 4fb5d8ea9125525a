"""``costmodel train-cost``: table, JSON, CSV and bad input."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

CASE = "train-cost llava-1.5-7b --gpu a100-80gb-sxm"


def test_json_has_stages_and_sums(as_json: Callable[..., Any]) -> None:
    found = as_json(f"{CASE} --format json")
    assert found["inputs"] == {
        "model": "llava-1.5-7b", "gpu": "a100-80gb-sxm", "recipe": "llava-1.5", "gpus": 8,
        "compress": "none",
    }  # fmt: skip
    total = found["total"]
    for name in ("flops", "hours", "gpu_hours", "energy_kwh", "low_hours", "high_hours"):
        assert total[name] == pytest.approx(sum(stage[name] for stage in found["stages"]))
    assert total["low_hours"] < total["hours"] < total["high_hours"]
    assert total["gpu_hours"] == pytest.approx(8 * total["hours"])
    assert total["energy_j"] == pytest.approx(3.6e6 * total["energy_kwh"])
    for stage in found["stages"]:
        parts = stage["compute_s"] + stage["optimizer_s"] + stage["communication_s"]
        assert stage["time_s"] == pytest.approx(parts)
        assert stage["flops"] == pytest.approx(sum(stage["flops_by_part"].values()))


def test_csv_has_a_row_per_stage_and_the_total(ok: Callable[..., str]) -> None:
    rows = list(csv.DictReader(io.StringIO(ok(f"{CASE} --compress pyramiddrop --format csv"))))
    assert [row["stage"] for row in rows] == ["alignment", "instruction tuning", "total"]
    assert {row["compress"] for row in rows} == {"pyramiddrop"}


def test_table_names_assumptions_and_fits(ok: Callable[..., str]) -> None:
    text = ok(f"{CASE} --recipe stf --compress mbtf+stf --gpus 4")
    assert "on 4 x a100-80gb-sxm, mbtf+stf" in text
    assert re.search(r"instruction tuning +665,298 ", text)
    said = " ".join(text.split())
    for part in ("text tokens of a sample, assumed", "PUE of 1.1", "not checked"):
        assert part in said
    assert max(map(len, text.splitlines())) <= 100


def test_several_gpus(as_json: Callable[..., Any]) -> None:
    found = as_json(f"{CASE},h100-sxm --format json")
    assert [one["inputs"]["gpu"] for one in found] == ["a100-80gb-sxm", "h100-sxm"]
    assert found[1]["total"]["hours"] < found[0]["total"]["hours"]


def test_without_checkpointing_a_forward_pass_less(as_json: Callable[..., Any]) -> None:
    found = as_json(f"{CASE} --no-checkpointing --format json")
    assert [stage["passes"] for stage in found["stages"]] == [
        {"vision": 1, "projector": 3, "llm": 2},
        {"vision": 1, "projector": 3, "llm": 3},
    ]


def test_help_names_every_recipe(ok: Callable[..., str]) -> None:
    from costmodel.training import list_recipes

    text = " ".join(ok("train-cost --help").replace("│", " ").split())
    for name in list_recipes():
        assert re.search(rf"[ ]{name}[ ,.]", text), name


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (f"{CASE} --recipe llava-1.6", ("'llava-1.6'", "llava-1.5", "stf-paper")),
        (f"{CASE} --gpus 0", ("gpus", "0")),
        (f"{CASE} --gpus 129", ("gpus", "129", "instruction tuning", "128")),
        (f"{CASE} --dtype int8", ("dtype", "int8", "bf16")),
        (f"{CASE} --visual-tokens 0", ("llava-1.5-7b", "images")),
        ("train-cost llama-2-7b --gpu a100-80gb-sxm", ("llama-2-7b", "images")),
        ("train-cost llava-1.5-7b --gpu v100-sxm", ("bf16", "fp16", "v100-sxm")),
        (f"{CASE} --compress nothing", ("nothing",)),
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
