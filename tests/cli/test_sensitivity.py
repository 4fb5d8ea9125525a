"""``costmodel sensitivity``: table, JSON, CSV and bad input."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

CASE = "sensitivity llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64"
METHOD = f"{CASE} --compress cluster:k=64"
SOBOL = f"{METHOD} --method sobol --samples 8"


def test_json_has_changes_and_elasticities(as_json: Callable[..., Any]) -> None:
    found = as_json(f"{METHOD} --vary bandwidth,launch --by 0.5,2,4 --format json")
    assert [(c["quantity"], c["factor"]) for c in found["changes"]] == [
        (name, factor) for name in ("bandwidth", "launch") for factor in (0.5, 2.0, 4.0)
    ]
    slopes = {one["quantity"]: one["ttft"] for one in found["elasticities"]}
    assert slopes["bandwidth"] < 0 < slopes["launch"]
    assert found["base"]["ttft_s"] == pytest.approx(sum(found["base"]["stages_s"].values()))


def test_csv_has_a_row_per_change_and_gpu(ok: Callable[..., str]) -> None:
    text = ok(f"{METHOD} --gpu rtx-a6000 --vary compute --format csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["gpu"], row["factor"]) for row in rows] == [
        (gpu, factor) for gpu in ("a100-80gb-sxm", "rtx-a6000") for factor in ("1.0", "0.5", "2.0")
    ]


def test_table_is_readable(ok: Callable[..., str]) -> None:
    text = ok(METHOD)
    assert "bandwidth x 2" in text
    assert "faster" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "faster" not in ok(f"{CASE} --vary bandwidth")


def test_sobol_in_every_format(as_json: Callable[..., Any], ok: Callable[..., str]) -> None:
    found = as_json(f"{SOBOL} --range launch=0.5:4 --format json")
    spans = {span["name"]: span for span in found["spans"]}
    assert (spans["launch"]["low"], spans["launch"]["high"]) == (0.5, 4)
    for output in found["outputs"].values():
        assert [one["quantity"] for one in output["indices"]] == list(spans)
    rows = list(csv.DictReader(io.StringIO(ok(f"{SOBOL} --format csv"))))
    assert len(rows) == 3 * len(spans)
    text = ok(SOBOL)
    assert "fp16/int8/int4" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (f"{CASE} --vary l3", ("'l3'", "l2", "bandwidth")),
        (f"{CASE} --by 0", ("0.0", "above 0")),
        (f"{CASE} --by -2", ("by", "'-2'")),
        (f"{CASE} --by two", ("by", "'two'")),
        (f"{CASE} --by ,", ("by", "''")),
        (f"{CASE} --method morris", ("'morris'", "oat", "sobol")),
        (f"{SOBOL} --vary l2,launch", ("'l2'", "one at a time")),
        (f"{SOBOL} --vary launch", ("vary", "two")),
        (f"{SOBOL} --samples 7", ("samples", "7", "power of two")),
        (f"{SOBOL} --samples x", ("samples", "'x'", "power of two")),
        (f"{SOBOL} --seed -1", ("seed", "-1")),
        (f"{SOBOL} --range launch", ("range", "'launch'", "NAME=LOW:HIGH")),
        (f"{SOBOL} --range launch=3:2", ("launch=3:2", "LOW < HIGH")),
        (f"{SOBOL} --range rate=1:2", ("'rate'", "launch")),
        (f"{CASE} --tp 3", ("tp", "3")),
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
