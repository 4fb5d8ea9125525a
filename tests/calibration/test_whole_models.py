"""Whole models: measured requests against estimates of the same."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console, Group

from costmodel import estimate
from costmodel.calibration.judging import validate_timings
from costmodel.calibration.whole_models import STAGE_PARTS, predict
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError
from costmodel.report.validation import validation_tables

GPU = "a100-80gb-sxm"
FACTOR = 1.1
TINY = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 32000,
}  # fmt: skip


def request(stage: str = "ttft", **changes: Any) -> dict[str, Any]:
    return {
        "gpu": GPU, "source": "lab", "software": "torch 2.9", "dtype": "fp16",
        "model": "llava-1.5-7b", "runtime": "cuda-graph", "compress": "", "stage": stage,
        "batch": 1, "visual_tokens": 576, "text_tokens": 64, **changes,
    }  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for row in rows:
        stage = row["stage"]
        made = estimate(
            row["model"], GPU, text_tokens=row["text_tokens"], batch=row["batch"],
            visual_tokens=row["visual_tokens"], compress=row["compress"] or None,
            runtime=row["runtime"],
        ) if not row.get("config") else None  # fmt: skip
        parts = STAGE_PARTS[stage]
        seconds = 1e-3
        if made:
            seconds = sum(made.time_s[part] + made.host_s.get(part, (0, 0))[1] for part in parts)
        row["time_us"] = 1e6 * FACTOR * seconds
        row["memory_bytes"] = made.memory_bytes["total"] / FACTOR if made else float("nan")
    path = folder / "whole.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_errors_are_those_of_the_measurement(tmp_path: Path) -> None:
    rows = [
        request(),
        request(compress="random:k=64"),
        request("vision", batch=4),
        request("tpot", runtime="eager"),
    ]
    result = validate_timings([written(tmp_path, rows)])
    kinds = {group.stack.kind: group for group in result.groups}
    assert set(kinds) == {"ttft cuda-graph", "vision cuda-graph", "tpot eager"}
    for group in kinds.values():
        assert group.errors.bias_pct == pytest.approx(100 * (1 / FACTOR - 1), abs=1e-3)
        low, high = group.points["any_low_s"], group.points["any_high_s"]
        assert (low <= group.points["low_s"]).all()
        assert (high >= group.points["high_s"]).all()
    assert kinds["ttft cuda-graph"].errors.n == 2


def test_a_stage_of_code_whose_host_is_late_has_the_gaps_in_its_time() -> None:
    made = estimate("llava-1.5-7b", GPU, text_tokens=64, compress="random:k=64", runtime="eager")
    assert sum(mid for _, mid, _ in made.host_s.values()) == pytest.approx(
        made.time_s["host_overhead"], rel=1e-12
    )
    low, mid, high = made.host_s["vision_encoder"]
    assert 0 < low <= mid <= high
    whole = sum(made.time_s[part] for part in STAGE_PARTS["vision"])
    rows = [request("vision", runtime="eager", time_us=1e6 * whole)]
    frame = pd.DataFrame(rows).assign(
        config="", attention="flash", output_tokens=0, time_s=whole, memory_bytes=float("nan")
    )
    group = (GPU, "lab", "torch 2.9", "fp16", "eager", "vision")
    found = predict(group, frame, load_gpu(GPU), None).iloc[0]
    exposed = mid + made.host_s["projector"][1]
    assert found["predicted_s"] == pytest.approx(whole + exposed, rel=1e-9)
    assert found["low_s"] < found["predicted_s"] < found["high_s"]


def test_tables_say_how_far_memory_is_off(tmp_path: Path) -> None:
    result = validate_timings([written(tmp_path, [request()])])
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as captured:
        console.print(Group(*validation_tables(result)))
    shown = captured.get()
    assert "peak memory of ttft cuda-graph: mean absolute error 10.0 %, bias +10.0 %" in shown


def test_a_model_may_come_as_its_config(tmp_path: Path) -> None:
    row = request(model="tiny@4layers", config=json.dumps(TINY), visual_tokens=0)
    (group,) = validate_timings([written(tmp_path, [row])]).groups
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    same = estimate(str(folder), GPU, text_tokens=64)
    assert group.points["predicted_s"].iloc[0] == same.time_s["ttft"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "lunch"}, "stage 'lunch' is none of vision"),
        ({"config": "{"}, "config of model 'llava-1.5-7b': not JSON"),
        ({"compress": "cluster"}, "k"),
    ],
)
def test_bad_rows(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, [request()])
    frame = pd.read_csv(path).assign(**changes)
    frame.to_csv(path, index=False)
    with pytest.raises(CostModelError, match=message):
        validate_timings([path])
