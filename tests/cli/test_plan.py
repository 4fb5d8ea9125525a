"""``plan``: a service sized from the command line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]

LINE = (
    "plan llava-1.5-7b --gpu a100-80gb-sxm,rtx-a6000 --text-tokens 64 --output-tokens 64 "
    "--rate 40 --ttft 400ms --methods none,random:k=64"
)


def test_table_names_the_cheapest(ok: Callable[..., str]) -> None:
    text = ok(f"{LINE} --price a100-80gb-sxm=2 --price rtx-a6000=0.1")
    assert "40 requests/s, 95 % of first tokens within 400 ms" in text
    assert "Cheapest" in text
    assert "rtx-a6000 with random:k=64" in text
    assert "Fewest GPUs" in ok(LINE)


def test_json_and_csv_say_the_same(ok: Callable[..., str], as_json: Callable[..., Any]) -> None:
    found = as_json(f"{LINE} --format json")
    assert found["requests_per_s"] == 40
    assert found["target"] == {"ttft_s": 0.4, "quantile": 0.95, "tpot_s": None}
    rows = list(csv.DictReader(io.StringIO(ok(f"{LINE} --format csv"))))
    assert [row["bound"] for row in rows[:3]] == ["low", "predicted", "high"]
    assert len(rows) == len(found["options"]) == 12
    for row, option in zip(rows, found["options"], strict=True):
        assert int(row["gpus"]) == option["gpus"]
        assert option["ttft_alone_s"] < option["ttft_quantile_s"] <= 0.4
        assert option["concurrent_requests_99"] <= option["fits_requests"]
    counts = {(one["gpu"], one["method"], one["bound"]): one["gpus"] for one in found["options"]}
    for (gpu, method, _), count in counts.items():
        assert counts[gpu, method, "low"] <= count <= counts[gpu, method, "high"]
    assert counts["rtx-a6000", "random:k=64", "high"] < counts["rtx-a6000", "none", "low"] + 3


def test_more_traffic_needs_more(as_json: Callable[..., Any]) -> None:
    def needed(rate: int) -> int:
        line = LINE.replace("--rate 40", f"--rate {rate}")
        return int(as_json(f"{line} --format json")["options"][1]["gpus"])

    assert needed(10) < needed(100) < needed(1000)


def test_a_target_that_nobody_meets(ok: Callable[..., str]) -> None:
    text = ok(LINE.replace("400ms", "1ms"))
    assert "No option" in text
    assert "TTFT target is missed without any load" in text


def test_a_model_that_does_not_fit(ok: Callable[..., str]) -> None:
    text = ok(
        "plan llama-2-70b --gpu rtx-a6000 --text-tokens 64 --output-tokens 8 --rate 1 --ttft 9s"
    )
    assert "memory is missed without any load" in text


def test_one_method_that_cannot_act_leaves_the_others(ok: Callable[..., str]) -> None:
    text = ok(LINE.replace("random:k=64", "random:k=64,avgpool:window=7"))
    assert "Not possible" in text
    assert "avgpool:window=7" in text


BAD: list[tuple[str, str, tuple[str, ...]]] = [
    ("--rate 40", "--rate 0", ("rate", "0", "positive")),
    ("--rate 40", "--rate nan", ("rate", "nan")),
    ("--ttft 400ms", "--ttft 4GB", ("ttft", "'4GB'", "s or ms or us")),
    ("--ttft 400ms", "--ttft 400", ("ttft", "'400'", "with a unit")),
    ("--ttft 400ms", "--ttft fast", ("ttft", "'fast'")),
    ("--ttft 400ms", "--ttft -1s", ("ttft_s", "-1")),
    ("--rate 40", "--rate 40 --quantile 1", ("quantile", "1.0", "between 0 and 1")),
    ("--rate 40", "--rate 40 --tpot x", ("tpot", "'x'")),
    ("--rate 40", "--rate 40 --price a40=1", ("price", "'a40'", "a100-80gb-sxm")),
    ("--rate 40", "--rate 40 --price 1.8", ("price", "'1.8'", "GPU=NUMBER")),
    ("--rate 40", "--rate 40 --reserve 1", ("reserve", "1.0")),
    ("random:k=64", "randm", ("'randm'", "random")),
    ("rtx-a6000", "rtx-a600", ("'rtx-a600'", "rtx-a6000")),
]


@pytest.mark.parametrize(("old", "new", "words"), BAD)
def test_bad_input(run: Run, old: str, new: str, words: tuple[str, ...]) -> None:
    result = run(LINE.replace(old, new))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr
