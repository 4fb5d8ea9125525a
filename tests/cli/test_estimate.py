"""``costmodel estimate``: the JSON contract, reference numbers, CSV, tables, files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costmodel import list_gpus, list_methods, list_models

BASE = "estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64"
KEYS = {
    "schema_version", "inputs", "tokens", "params", "flops", "bytes_moved", "memory_bytes",
    "time_s", "interval_s", "baseline", "savings", "savings_interval", "provenance", "notes",
}  # fmt: skip
STAGES = ("vision_encoder", "projector", "compression", "llm_prefill", "lm_head")
METHODS = {
    "none": "none",
    "random": "random:k=64",
    "spatial": "spatial:k=64",
    "cluster": "cluster:k=64",
    "avgpool": "avgpool:window=2",
    "stf": "stf",
    "mbtf": "mbtf",
    "mbtf+stf": "mbtf+stf",
    "saliency": "saliency:k=64,variant=layer",
    "saliency-cluster": "saliency-cluster:k=64",
    "divprune": "divprune:k=64",
    "cdpruner": "cdpruner:k=64",
    "random:k=192 then": "random:k=192 --compress cluster:k=64",
}

Json = Callable[..., Any]
Text = Callable[..., str]


def test_json_has_the_keys_of_the_contract(as_json: Json) -> None:
    found = as_json(f"{BASE} --format json")
    assert set(found) == KEYS
    assert found["schema_version"] == "1"
    assert {"visual_in", "visual_kept", "text", "prefill"} <= set(found["tokens"])
    modules = {"vision_encoder", "projector", "compression", "llm", "lm_head", "total"}
    assert set(found["params"]) == modules
    parts = {*STAGES, "llm_linear", "llm_attention", "total"}
    assert set(found["flops"]) == parts
    assert set(found["bytes_moved"]) == parts
    memory = {"weights", "kv_cache", "activations_peak", "total", "device", "fits"}
    assert memory <= set(found["memory_bytes"])
    assert set(found["time_s"]) == {*STAGES, "host_overhead", "ttft", "tpot"}
    assert set(found["interval_s"]) == {"ttft", "stages", "tpot", "level"}
    for which in ("ttft", "tpot"):
        assert set(found["interval_s"][which]) == {"same_stack", "any_stack"}
    assert set(found["baseline"]) == KEYS - {
        "schema_version", "baseline", "savings", "savings_interval", "provenance", "notes",
    }  # fmt: skip


def test_reference_numbers(as_json: Json) -> None:
    """Counts of torch's FlopCounterMode and parameters of transformers (tests/verify)."""
    found = as_json(f"{BASE} --format json")
    assert found["flops"] | {"total": None} == {
        "vision_encoder": 381918216192,
        "projector": 24159191040,
        "compression": 0,
        "llm_prefill": 8504035246080,
        "llm_linear": 8289286881280,
        "llm_attention": 214748364800,
        "lm_head": 262668288,
        "total": None,
    }
    assert found["memory_bytes"]["kv_cache"] == 335544320
    assert found["params"]["total"] == 7063427072
    assert found["tokens"]["visual_in"] == 576


def _whole(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_whole(item) for item in value.values())
    if isinstance(value, list):
        return all(_whole(item) for item in value)
    return not isinstance(value, float)


def test_counts_are_whole_numbers(as_json: Json) -> None:
    found = as_json(f"{BASE} --compress cluster:k=64 --format json")
    for section in ("tokens", "params", "flops", "bytes_moved", "memory_bytes"):
        assert _whole(found[section]), section


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--compress cluster:k=64",
        "--compress mbtf+stf --batch 3 --runtime eager --attention eager",
        "--output-tokens 100 --weights-dtype int4 --tp 2 --head-tokens all",
    ],
)
def test_sums(as_json: Json, options: str) -> None:
    found = as_json(f"{BASE} {options} --format json --explain")
    for section in ("flops", "bytes_moved"):
        values = found[section]
        assert sum(values[stage] for stage in STAGES) == values["total"]
        assert values["llm_linear"] + values["llm_attention"] == values["llm_prefill"]
    times = found["time_s"]
    parts = sum(times[stage] for stage in STAGES) + times["host_overhead"]
    assert math.isclose(parts, times["ttft"], rel_tol=1e-12)
    for stage in STAGES:
        ops = [op for op in found["ops"] if op["stage"] == stage]
        assert sum(op["flops"] for op in ops if op["counted"]) == found["flops"][stage]
        assert sum(op["bytes"]["total"] for op in ops) == found["bytes_moved"][stage]
        assert math.isclose(sum(op["time_s"] for op in ops), times[stage], rel_tol=1e-12)
    assert {op["stage"] for op in found["ops"]} <= set(STAGES)
    assert len(found["ops_decode"]) < len(found["ops"])


def test_savings_against_the_baseline(as_json: Json) -> None:
    found = as_json(f"{BASE} --compress random:k=64 --format json")
    alone = as_json(f"{BASE} --format json")
    for section in ("flops", "time_s", "memory_bytes"):
        assert found["baseline"][section] == alone[section]
    before, after = alone["time_s"]["ttft"], found["time_s"]["ttft"]
    assert found["savings"]["ttft_s_ratio"] == pytest.approx(before / after)
    assert found["tokens"]["visual_kept"] == 64


def test_several_gpus_are_a_list(as_json: Json) -> None:
    found = as_json(f"{BASE} --gpu a40,h100-sxm --format json")
    assert [item["inputs"]["gpu"] for item in found] == ["a100-80gb-sxm", "a40", "h100-sxm"]


def test_images_repeat_or_are_listed(as_json: Json) -> None:
    base = "estimate qwen2-vl-7b --gpu a40 --text-tokens 64 --format json"
    one = as_json(f"{base} --image 336x336 --image 672x672")
    two = as_json(f"{base} --image 336x336,672x672")
    assert one == two
    assert one["inputs"]["images"] == ["336x336", "672x672"]


def test_a_request_that_does_not_fit_is_an_answer(as_json: Json, ok: Text) -> None:
    command = "estimate llama-2-70b --gpu a40 --text-tokens 64"
    memory = as_json(f"{command} --format json")["memory_bytes"]
    assert memory["fits"] is False
    assert memory["missing"] == memory["total"] - memory["device"] > 0
    assert memory["largest_batch"] == 0
    assert "no, " in ok(command)


@pytest.mark.parametrize("model", list_models())
def test_every_model(as_json: Json, model: str) -> None:
    found = as_json(f"estimate {model} --gpu h200 --text-tokens 64 --format json")
    assert found["inputs"]["model"] == model
    assert found["time_s"]["ttft"] > found["time_s"]["lm_head"] > 0


@pytest.mark.parametrize("gpu", list_gpus())
def test_every_gpu(as_json: Json, gpu: str) -> None:
    found = as_json(f"estimate llava-1.5-7b --gpu {gpu} --text-tokens 64 --format json")
    assert found["flops"]["llm_prefill"] == 8504035246080


@pytest.mark.parametrize("method", METHODS)
def test_methods(as_json: Json, ok: Text, method: str) -> None:
    found = as_json(f"{BASE} --compress {METHODS[method]} --format json")
    assert found["inputs"]["compress"].startswith(method)
    assert found["tokens"]["visual_kept"] <= 576
    assert "total = TTFT" in ok(f"{BASE} --compress {METHODS[method]}")


@pytest.mark.parametrize("method", list_methods())
def test_every_method_is_compared_or_says_why_not(as_json: Json, method: str) -> None:
    command = BASE.replace("estimate", "compare")
    options = f"--methods none,{method} --visual-tokens-kept 144 --format json"
    row = as_json(f"{command} {options}")["methods"][-1]
    assert row["method"].startswith(method)
    assert bool(row["reason"]) != bool(row["ttft_s"])


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_row_per_stage(ok: Text, as_json: Json) -> None:
    rows = _rows(ok(f"{BASE} --compress stf --format csv"))
    found = as_json(f"{BASE} --compress stf --format json")
    by_stage = {row["stage"]: row for row in rows}
    assert set(by_stage) == {*STAGES, "llm_linear", "llm_attention", "host_overhead", "total"}
    for stage in STAGES:
        assert int(by_stage[stage]["flops"]) == found["flops"][stage]
        assert float(by_stage[stage]["time_s"]) == found["time_s"][stage]
        assert int(by_stage[stage]["baseline_flops"]) == found["baseline"]["flops"][stage]
    parts = [row for row in rows if row["part_of"] == "total"]
    assert sum(int(row["flops"]) for row in parts) == int(by_stage["total"]["flops"])


def test_csv_has_a_row_per_operator(ok: Text, as_json: Json) -> None:
    rows = _rows(ok(f"{BASE} --gpu a40 --explain --format csv"))
    found = as_json(f"{BASE} --explain --format json")
    assert len(rows) == 2 * (len(found["ops"]) + len(found["ops_decode"]))
    first = found["ops"][0]
    assert (rows[0]["name"], int(rows[0]["flops"])) == (first["name"], first["flops"])
    assert rows[0]["formula_flops"] == first["formula"]["flops"]


def test_table_is_plain_and_not_cut(ok: Text) -> None:
    text = ok(f"{BASE} --compress cluster:k=64 --explain")
    assert "\x1b" not in text
    assert "…" not in text
    for word in ("vision encoder", "compression", "TPOT", "KV cache", "bound by", "before"):
        assert word in text
    for name in ("decoder.post_attention_norm", "cluster.assign_distance", "2*b*d*s*(2*D*G + D*H)"):
        assert name in text


def test_table_without_compression_has_no_baseline(ok: Text) -> None:
    text = ok(BASE)
    assert "before" not in text
    assert "Savings" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_output_file_replaces_the_terminal(ok: Text, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    assert ok(f"{BASE} --format json -o {target}") == ""
    assert json.loads(target.read_text())["schema_version"] == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_options_reach_the_estimate(as_json: Json) -> None:
    found = as_json(
        f"{BASE} --output-tokens 7 --batch 2 --runtime eager --attention sdpa --dtype bf16 "
        "--weights-dtype int8 --kv-dtype fp8 --tp 2 --vision-layers 23 --head-tokens all "
        "--visual-tokens 100 --format json"
    )["inputs"]
    assert found | {
        "output_tokens": 7, "batch": 2, "runtime": "eager", "attention": "sdpa",
        "dtype": "bf16", "weights_dtype": "int8", "kv_dtype": "fp8", "tp": 2,
        "vision_layers": 23, "head_tokens": "all", "visual_tokens": 100,
    } == found  # fmt: skip


def test_config_file_is_a_model(as_json: Json, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 100, "rms_norm_eps": 1e-5, "max_position_embeddings": 512,
    }))  # fmt: skip
    found = as_json(f"estimate {tmp_path} --gpu a40 --text-tokens 8 --format json")
    assert found["tokens"]["visual_in"] == 0
    assert found["flops"]["vision_encoder"] == 0
