"""Catalogue, comparison, formulas and roofline through the command."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy

from costmodel import list_gpus, list_methods, list_models

Run = Callable[..., Any]
Json = Callable[..., Any]
Text = Callable[..., str]


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("command", "names"),
    [("models", list_models()), ("gpus", list_gpus()), ("methods", list_methods())],
)
def test_lists(ok: Text, as_json: Json, command: str, names: tuple[str, ...]) -> None:
    text = ok(command)
    assert all(name in text for name in names)
    assert "…" not in text
    assert [row["name"] for row in as_json(f"{command} --format json")] == list(names)
    assert [row["name"] for row in _rows(ok(f"{command} --format csv"))] == list(names)


def test_models_say_what_they_are(as_json: Json) -> None:
    rows = {row["name"]: row for row in as_json("models --format json")}
    llava = rows["llava-1.5-7b"]
    assert (llava["parameters"], llava["visual_tokens"]) == (7063427072, 576)
    assert rows["llava-next-vicuna-7b"]["visual_tokens"] == 2928
    assert rows["llama-2-7b"]["visual_tokens"] == 0


@pytest.mark.parametrize("name", list_models())
def test_one_model(ok: Text, as_json: Json, name: str) -> None:
    record = as_json(f"models show {name} --format json")
    assert record["parameters"]["total"] > 0
    assert all(source["url"] in ok(f"models {name}") for source in record["sources"])


@pytest.mark.parametrize("name", list_gpus())
def test_one_gpu_shows_every_number_with_its_source(ok: Text, as_json: Json, name: str) -> None:
    record = as_json(f"gpus show {name} --format json")
    numbers = _rows(ok(f"gpus {name} --format csv"))
    assert len([row for row in numbers if row["what"].startswith("peak ")]) == len(record["peaks"])
    assert {row["source"] for row in numbers} <= set(record["sources"])
    assert all(row["unit"] and row["url"] for row in numbers)
    assert {"memory capacity", "memory bandwidth", "l2 cache", "tdp"} <= {
        row["what"] for row in numbers
    }
    text = ok(f"gpus {name}")
    assert all(row["what"] in text for row in numbers)


@pytest.mark.parametrize("name", list_methods())
def test_one_method_documents_its_parameters(ok: Text, as_json: Json, name: str) -> None:
    record = as_json(f"methods show {name} --format json")
    assert record["url"].startswith("http")
    assert all(item["description"] and item["type"] for item in record["parameters"])
    text = ok(f"methods {name}")
    assert all(item["name"] in text for item in record["parameters"])


COMPARE = "compare llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64"


def test_compare(as_json: Json, ok: Text) -> None:
    options = "--methods random,cluster:iterations=5,impl=fused,stf,mbtf --visual-tokens-kept 144"
    found = as_json(f"{COMPARE} {options} --format json")
    rows = found["methods"]
    assert [row["method"].partition(":")[0] for row in rows] == [
        "none", "random", "cluster", "stf", "mbtf",
    ]  # fmt: skip
    assert rows[2]["method"] == "cluster:k=144,iterations=5,impl=fused"
    assert [row["visual_tokens_kept"] for row in rows] == [576, 144, 144, 144, None]
    assert rows[0]["speedup_ttft"] == 1
    assert rows[1]["speedup_ttft"] > rows[2]["speedup_ttft"] > 1
    assert rows[0]["speedup_ttft_low"] is None
    for row in rows[1:4]:
        assert row["speedup_ttft_low"] < row["speedup_ttft"] < row["speedup_ttft_high"]
    assert rows[0]["compression_flops"] == 0 < rows[3]["compression_flops"]
    assert "mbtf" in rows[4]["reason"]
    assert rows[3]["training"] != "none" == rows[1]["training"]
    text = ok(f"{COMPARE} {options}")
    assert "Not possible" in text
    assert max(map(len, text.splitlines())) <= 100
    table = _rows(ok(f"{COMPARE} {options} --format csv"))
    assert [row["method"] for row in table] == [row["method"] for row in rows]


def test_compare_agrees_with_estimate(as_json: Json) -> None:
    rows = as_json(f"{COMPARE} --methods cluster --visual-tokens-kept 64 --format json")["methods"]
    alone = as_json(
        "estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64 --compress cluster:k=64 "
        "--format json --explain"
    )
    own = [op for op in alone["ops"] if op["stage"] == "compression"]
    assert rows[1]["ttft_s"] == alone["time_s"]["ttft"]
    assert rows[1]["flops"] == alone["flops"]["total"]
    assert rows[1]["compression_launches"] == sum(op["launches"] for op in own)
    assert rows[1]["compression_host_syncs"] == sum(op["host_syncs"] for op in own) > 0
    assert rows[0]["ttft_s"] == alone["baseline"]["time_s"]["ttft"]


def test_compare_goes_on_where_one_method_is_misspelt(as_json: Json, run: Run) -> None:
    options = "--methods random:k=5,cluster:iters=3,spatial --visual-tokens-kept 64"
    rows = as_json(f"{COMPARE} {options} --format json")["methods"]
    assert [row["method"] for row in rows] == [
        "none", "random:k=5", "cluster:iters=3", "spatial:k=64",
    ]  # fmt: skip
    assert "already sets 'k'" in rows[1]["reason"]
    assert "did you mean 'iterations'" in rows[2]["reason"]
    assert rows[3]["reason"] is None
    # None is left, or one does not exist.
    assert run(f"{COMPARE} --methods random:k=5,cluster:iters=3 --visual-tokens-kept 64").exit_code
    assert run(f"{COMPARE} --methods spatial,spatail --visual-tokens-kept 64").exit_code == 2


def test_methods_one_after_the_other(as_json: Json, ok: Text) -> None:
    options = "--text-tokens 64 --compress random:k=192 --compress cluster:k=64"
    found = as_json(f"estimate llava-1.5-7b --gpu a40 --format json {options}")
    assert found["inputs"]["compress"] == "random:k=192 then cluster:k=64"
    assert [item["method"] for item in found["inputs"]["compress_params"]] == ["random", "cluster"]
    assert found["tokens"]["visual_kept"] == 64
    text = ok(f"formulas llava-1.5-7b {options} --stage compression")
    assert "random:k=192 then cluster:k=64" in text
    # The second starts from the k tokens that the first keeps, and keeps k_1.
    assert "2*c_1*k*k_1" in text


def test_compare_takes_methods_one_after_the_other(as_json: Json, ok: Text) -> None:
    methods = "visionzip:k=256 then fastv:variant=paper,visionzip"
    name = "visionzip:k=256 then fastv:layer=2,k=188,variant=paper"
    command = [*COMPARE.split(), "--methods", methods, "--visual-tokens-kept", "192"]
    chain, alone = as_json(*command, "--format", "json")["methods"][1:]
    assert (chain["method"], alone["method"]) == (name, "visionzip:k=192")
    assert chain["visual_tokens_equivalent"] == pytest.approx(192, abs=0.5)
    # What others published for VisionZip is not what both do together.
    assert alone["scores"]
    assert not chain["scores"]
    assert chain["score_sources"] in (None, 0)
    assert f"{name}: none, or the projector" in " ".join(ok(*command).split())


def test_compare_lists_the_baseline_once_and_several_gpus(as_json: Json) -> None:
    found = as_json(
        f"{COMPARE} --gpu a40 --methods none --methods random --visual-tokens-kept 64 --format json"
    )
    assert [item["inputs"]["gpu"] for item in found] == ["a100-80gb-sxm", "a40"]
    assert [row["method"] for row in found[0]["methods"]] == ["none", "random:k=64"]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_formulas_give_the_numbers_of_the_estimate(as_json: Json, phase: str) -> None:
    options = "--text-tokens 64 --compress cluster:k=64"
    found = as_json(f"formulas llava-1.5-7b --phase {phase} --format json {options}")
    numbers = as_json(f"estimate llava-1.5-7b --gpu a40 --format json --explain {options}")
    ops = numbers["ops" if phase == "prefill" else "ops_decode"]
    values = {
        sympy.Symbol(symbol["name"]): sympy.Rational(str(symbol["value"]))
        for symbol in found["symbols"]
    }
    names = {str(symbol): symbol for symbol in values}
    for item, op in zip(found["ops"], ops, strict=True):
        flops = sympy.sympify(item["flops"], locals=names) * sympy.sympify(item["repeat"], names)
        assert flops.subs(values) == op["flops"], item["name"]
    if phase == "prefill":
        for stage, key in (("vision_encoder", "vision_encoder"), ("llm", "llm_prefill")):
            total = found["totals"][stage]
            assert sympy.sympify(total["flops"], names).subs(values) == numbers["flops"][key]
            moved = sympy.sympify(total["bytes"], names).subs(values)
            assert moved == numbers["bytes_moved"][key]


def test_formulas_legend_is_complete(as_json: Json, ok: Text) -> None:
    found = as_json("formulas llava-1.5-7b --stage llm --format json")
    legend = {symbol["name"]: symbol for symbol in found["symbols"]}
    assert set(legend) >= {"b", "s", "d", "T", "V"}
    assert legend["d"]["value"] == 4096
    assert all(symbol["meaning"] and symbol["unit"] for symbol in legend.values())
    assert found["relations"]["s"] == "T + V"
    assert {op["stage"] for op in found["ops"]} == {"llm"}
    text = ok("formulas llava-1.5-7b --stage llm")
    assert "2*b*d*s*(2*D*G + D*H)" in text
    assert "= T + V" in text
    assert "hidden size" in text


def test_formulas_in_latex(ok: Text, as_json: Json) -> None:
    text = ok("formulas llava-1.5-7b --stage llm --latex")
    assert text.count(r"\begin{align*}") == text.count(r"\end{align*}") == 2
    assert r"\text{decoder.qkv\_proj}" in text
    assert r"\beta_{w}" in text
    found = as_json("formulas llava-1.5-7b --stage lm_head --latex --format json")
    assert found["ops"][0]["flops"] == "2 W b d e"


def test_formulas_of_the_alias_of_a_stage(ok: Text) -> None:
    assert ok("formulas llama-2-7b --stage llm_prefill") == ok("formulas llama-2-7b --stage llm")


def test_roofline_is_one_file(ok: Text, tmp_path: Path) -> None:
    target = tmp_path / "roofline.html"
    ok(f"roofline llava-1.5-7b --gpu a100-80gb-sxm --compress cluster:k=64 -o {target}")
    text = target.read_text(encoding="utf-8")
    assert "plotly.js v" in text
    assert 'src="http' not in text
    assert "decoder.qkv_proj" in text
    assert [path.name for path in tmp_path.iterdir()] == ["roofline.html"]
    assert math.isclose(target.stat().st_size, 4.85e6, rel_tol=0.5)


BUDGETS = "--methods fastv,visionzip,divprune,random --visual-tokens-kept"


def test_compare_shows_scores_beside_costs_at_several_budgets(as_json: Json, ok: Text) -> None:
    found = as_json(f"{COMPARE} {BUDGETS} 192,128 --visual-tokens-kept 64 --format json")
    assert [record["visual_tokens_kept"] for record in found] == [192, 128, 64]
    for record in found:
        alone = as_json(f"{COMPARE} {BUDGETS} {record['visual_tokens_kept']} --format json")
        assert alone == record
        none, fastv, visionzip, _, random = record["methods"]
        asked = record["visual_tokens_kept"]
        assert none["score_low_pct"] == none["score_high_pct"] == 100
        # FastV keeps fewer than that in its last layer; the mean is what sources count.
        assert fastv["visual_tokens_kept"] < asked
        assert fastv["visual_tokens_equivalent"] == pytest.approx(asked, abs=1)
        assert (random["score_low_pct"], random["score_sources"], random["scores"]) == (None, 0, [])
        assert {row["tokens"] for row in visionzip["scores"]} == {asked}
        for row in visionzip["scores"]:
            assert row["source"]
            assert row["url"].startswith("https://")
        plain = [one for one in visionzip["scores_by_source"] if not one["variant"]]
        values = [one["relative_pct"] for one in plain]
        assert len(values) == visionzip["score_sources"] == 3
        assert [visionzip["score_low_pct"], visionzip["score_high_pct"]] == [
            min(values), max(values),
        ]  # fmt: skip
        assert min(values) < max(values)
    table = _rows(ok(f"{COMPARE} {BUDGETS} 192,128,64 --format csv"))
    assert [row["visual_tokens_asked"] for row in table[1::5]] == ["192", "128", "64"]
    assert "scores" not in table[0]
    text = ok(f"{COMPARE} {BUDGETS} 192,128,64")
    assert max(map(len, text.splitlines())) <= 100
    assert [f"about {n} kept" in text for n in (192, 128, 64)] == [True] * 3
    assert text.count("divprune: 98.0 % (1 source): MMTok table 16 98.0 (9 benchmarks)") == 1
    assert "visionzip, projector fine-tuned: 98.4-99.1 % (2 sources)" in text


def test_compare_has_no_scores_where_none_were_published(as_json: Json) -> None:
    for model, options in [
        ("qwen2-vl-7b", "--image 672x672"),
        ("llava-1.5-7b", "--visual-tokens 400"),
    ]:
        command = COMPARE.replace("llava-1.5-7b", model)
        rows = as_json(
            f"{command} {options} --methods divprune --visual-tokens-kept 64 --format json"
        )["methods"]
        assert [(row["score_sources"], row["scores"]) for row in rows] == [(0, [])] * 2


def test_compare_reads_every_budget(run: Run) -> None:
    result = run(f"{COMPARE} --methods random --visual-tokens-kept 192,some")
    assert result.exit_code == 2
    assert "'some'" in result.stderr
