"""``costmodel breakeven``: table, JSON, CSV and bad input."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

CASE = "breakeven llava-1.5-7b --gpu a100-80gb-sxm --compress cluster:check=false"


def test_json_has_ranges_and_crossings(as_json: Callable[..., Any]) -> None:
    found = as_json(f"{CASE} --solve k --format json")
    assert found["inputs"]["compress"] == "cluster:k=?,check=False"
    ((first, last),) = found["pays"]
    assert found["crossings"] == [{"below": last, "above": last + 1, "pays": "below", "root": None}]
    assert found["range"] == {
        "low": 1, "high": 576, "evaluated": 576, "not_possible": 0, "reason": "",
    }  # fmt: skip
    sure, maybe = found["surely_pays"]["any_stack"], found["may_pay"]["any_stack"]
    assert sure[0][1] < last < maybe[0][1]
    assert first == 1


def test_json_of_counts_has_the_formula(as_json: Callable[..., Any]) -> None:
    found = as_json(f"{CASE} --solve k --metric flops --range 500:576 --format json")
    assert found["formula"]["symbol"] == "k"
    (crossing,) = found["crossings"]
    assert crossing["below"] < crossing["root"] < crossing["above"]
    assert found["formula"]["roots"] == [pytest.approx(crossing["root"])]
    assert found["surely_pays"] == {}


def test_csv_has_every_value_of_every_gpu(ok: Callable[..., str]) -> None:
    text = ok(f"{CASE} --gpu v100-sxm --solve k --range 120:135 --format csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["gpu"], int(row["value"])) for row in rows] == [
        (gpu, value) for gpu in ("a100-80gb-sxm", "v100-sxm") for value in range(120, 136)
    ]
    for row in rows:
        assert (float(row["difference_s"]) < 0) is (row["pays"] == "True")
        assert (row["low_any_stack_s"] == "") is (row["gpu"] == "v100-sxm")


def test_table_puts_gpus_and_runtimes_side_by_side(ok: Callable[..., str]) -> None:
    text = ok(f"{CASE} --gpu rtx-a6000 --solve k --range 1:300 --runtime eager,cuda-graph")
    said = " ".join(text.split())
    for part in (
        "cluster:k=?,check=False", "a100-80gb-sxm eager", "a100-80gb-sxm cuda-graph",
        "rtx-a6000 eager", "cancel", "below 153 rows", "below 202 rows",
    ):  # fmt: skip
        assert part in said, part


def test_no_change_of_sign_says_who_wins(ok: Callable[..., str]) -> None:
    said = " ".join(ok(f"{CASE},k=64 --solve batch --range 1:8").split())
    assert "pays for every value of batch from 1 to 8: no break-even there" in said
    said = " ".join(ok(f"{CASE},k=400 --solve batch --range 1:4").split())
    assert "never pays for every value of batch from 1 to 4" in said


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (f"{CASE} --solve z", ("'z'", "iterations", "batch")),
        (f"{CASE}", ("--solve",)),
        (f"{CASE} --solve k --range 5", ("range", "'5'", "LOW:HIGH")),
        (f"{CASE} --solve k --range 9:3", ("9:3", "LOW < HIGH")),
        (f"{CASE} --solve k --range 700:800", ("700", "576")),
        (f"{CASE} --solve k --metric joules", ("joules", "ttft", "flops")),
        (f"{CASE} --solve k --runtime jit", ("jit", "cuda-graph")),
        (f"{CASE} --solve k --batch 0", ("batch", "0")),
        ("breakeven llava-1.5-7b --gpu a100-80gb-sxm --solve k", ("compress", "--compress")),
        ("breakeven llava-1.5-7b --gpu a100-80gb-sxm --solve batch --compress none",
         ("compress", "none")),
        ("breakeven llama-2-7b --gpu a100-80gb-sxm --solve k --compress cluster", ("llama-2-7b",)),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    run: Callable[..., Result], words: str, parts: tuple[str, ...]
) -> None:
    result = run(words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(part in result.stderr for part in parts)
