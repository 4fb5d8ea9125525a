"""What `report` makes of a GPU's runs whose truth is known."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from costmodel import estimate
from costmodel.calibration.files import sha256_of
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.calibrations import load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.specs.calibration import Calibration

GPU, MODEL = "h200", "llava-1.5-7b"
NOISE_PCT = 3.0
HOST_US = {"eager": (5.0, 0.0, 0.8, 9.0), "compiled": (2.5, 20.0, 0.8, 9.0),
           "cuda-graph": (0.7, 12.0, 0.3, 10.0)}  # fmt: skip
"""Launch, start, gap and synchronisation that the runs were made with."""
MANY = 15
"""Fewer judged kernels say nothing about their noise."""


@pytest.fixture(scope="module")
def output(made: Any, loop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    loop("report").write_report(list(made.runs), GPU, folder)
    return folder


@pytest.fixture(scope="module")
def figures(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def own(output: Path) -> Calibration:
    return load_calibration(output / "calibration.yaml", load_gpu(GPU))


def test_every_table_is_filled(output: Path) -> None:
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "Not measured." not in text
    assert text.count("\n### ") == 9
    assert "Measured by this project: NVIDIA H200 141GB SXM5" in text
    assert "commit abc" in text


def test_kernels_are_predicted_as_well_as_their_noise_allows(figures: dict[str, Any]) -> None:
    kinds = {row["kind"]: row for row in figures["kernels"]}
    assert {"gemm", "rmsnorm", "attention_prefill", "attention_encoder", "attention_decode"} <= {
        *kinds
    }
    judged = [row for row in kinds.values() if row["cv_rows"] >= MANY]
    assert len(judged) >= 6
    for row in judged:
        assert row["cv_mape_pct"] < 2.5 * NOISE_PCT, row["kind"]
        assert row["again_mape_pct"] < 2 * NOISE_PCT, row["kind"]
    counts = [row["again_n"] for row in judged]
    coverage = np.average([row["again_coverage90_pct"] for row in judged], weights=counts)
    assert 84 <= coverage <= 99


def test_the_calibration_of_another_kernel_is_seen_to_be_one(figures: dict[str, Any]) -> None:
    (row,) = (row for row in figures["kernels"] if row["kind"] == "attention_prefill")
    assert row["kernel"] == "sdpa-flash"
    assert row["shipped_mape_pct"] > 2 * row["again_mape_pct"]


@pytest.mark.parametrize("runtime", HOST_US)
def test_host_costs_come_back(own: Calibration, runtime: str) -> None:
    fit = own.find_host(runtime)
    assert fit is not None
    launch, start, gap, sync = (1e6 * s for s in (fit.launch_s, fit.start_s, fit.gap_s, fit.sync_s))
    assert launch == pytest.approx(HOST_US[runtime][0], rel=0.03)
    assert start == pytest.approx(HOST_US[runtime][1], rel=0.03)
    assert gap == pytest.approx(HOST_US[runtime][2], abs=0.05)
    assert sync == pytest.approx(HOST_US[runtime][3], rel=0.03)


def host_overhead_s(calibration: Path) -> float:
    result = estimate(
        MODEL, GPU, text_tokens=64, compress="random:k=64", runtime="eager", dtype="bf16",
        calibration=str(calibration),
    )  # fmt: skip
    return result.time_s["host_overhead"]


def test_predictions_use_the_host_of_the_launch_rows(
    output: Path, own: Calibration, made: Any
) -> None:
    without = output / "without.yaml"
    write_calibration(own.model_copy(update={"host": ()}), without)
    fitted = host_overhead_s(output / "calibration.yaml")
    assert fitted == pytest.approx(host_overhead_s(made.truth), rel=0.15)
    assert host_overhead_s(without) > 2 * fitted


def test_the_command_line_fits_launch_rows_too(output: Path, tmp_path: Path) -> None:
    (script,) = entry_points(group="console_scripts", name="costmodel")
    kept, made = output / "measurements" / GPU, tmp_path / "own.yaml"
    files = [str(kept / name) for name in ("attention_decode.parquet", "launch.parquet")]
    words = ["calibrate", *files, "--gpu", GPU, "-o", str(made)]
    result = CliRunner().invoke(script.load(), words, prog_name="costmodel")
    assert result.exit_code == 0, result.output
    fit = load_calibration(made, load_gpu(GPU)).find_host("compiled")
    assert fit is not None
    assert 1e6 * fit.start_s == pytest.approx(HOST_US["compiled"][1], rel=0.03)


def test_first_tokens_of_all_runtimes_and_prompts(figures: dict[str, Any]) -> None:
    rows = {(row["runtime"], row["prompt"]): row for row in figures["prefill"]}
    assert {*rows} >= {(r, n) for r in HOST_US for n in (40, 640, 4096)}
    errors = [abs(row["own_error_pct"]) for row in rows.values()]
    assert np.mean(errors) < NOISE_PCT
    assert max(errors) < 3 * NOISE_PCT
    inside = [row["own_inside"] == "yes" for row in rows.values()]
    assert np.mean(inside) >= 0.75
    # The shipped calibration has the runtimes' default host, three times as slow.
    assert rows["eager", 40]["shipped_error_pct"] > 50
    for row in rows.values():
        assert row["shipped_high_s"] / row["shipped_low_s"] > row["own_high_s"] / row["own_low_s"]


def test_stages_tokens_and_single_layers_are_judged(figures: dict[str, Any]) -> None:
    rows = {(r["model"], r["runtime"], r["stage"]): r for r in figures["stages"]}
    for runtime in HOST_US:
        for stage in ("ttft", "tpot", "vision", "llm"):
            assert rows[MODEL, runtime, stage]["mape_pct"] < 3 * NOISE_PCT, (runtime, stage)
    for part in (("decoder-layer", "llm_prefill"), ("vision-layer", "vision_encoder")):
        assert rows[f"{MODEL}@{part[0]}", "compiled", part[1]]["mape_pct"] < 3 * NOISE_PCT


def test_memory_is_compared(figures: dict[str, Any]) -> None:
    rows = {(row["runtime"], row["prompt"]): row for row in figures["memory"]}
    assert {*rows} >= {(r, n) for r in HOST_US for n in (40, 640, 4096)}
    assert all(abs(row["error_pct"]) < 0.1 for row in rows.values())
    assert rows["eager", 4096]["memory_bytes"] > rows["eager", 40]["memory_bytes"]


def test_clustering_stands_beside_what_it_saves(figures: dict[str, Any]) -> None:
    rows = figures["clusterings"]
    assert {row["batch"] for row in rows} == {1, 4}
    assert {row["k"] for row in rows} == {64, 144}
    assert {row["iterations"] for row in rows} == {2, 10, 20}
    assert {row["impl"] for row in rows} >= {"eager", "fused", "compiled"}
    off = [abs(row["predicted_s"] / row["time_s"] - 1) for row in rows]
    assert 100 * np.mean(off) < 3 * NOISE_PCT
    known = [row for row in rows if not np.isnan(row["saved_measured_s"])]
    assert known
    for row in known:
        assert row["saved_measured_s"] == pytest.approx(row["saved_predicted_s"], rel=0.2)
    # More tokens kept save less, and more clusters and iterations cost more.
    alone = {(r["k"], r["iterations"]): r for r in rows
             if (r["impl"], r["batch"], r["tested"]) == ("eager", 1, False)}  # fmt: skip
    assert alone[144, 20]["share_predicted_pct"] > alone[64, 10]["share_predicted_pct"]
    added = figures["in_requests"]
    assert {row["compress"].partition(":")[0] for row in added} == {"cluster"}


def test_two_runs_differ_by_their_noise(figures: dict[str, Any]) -> None:
    rows = {row["kind"]: row for row in figures["repeatability"]}
    # The median of the absolute difference of two normal values is 0.95 standard deviations.
    assert rows["gemm"]["median_pct"] == pytest.approx(0.95 * NOISE_PCT, rel=0.35)
    assert rows["memory_bound"]["median_pct"] == pytest.approx(0.95 * NOISE_PCT, rel=0.35)
    assert {"ttft eager", "tpot cuda-graph", "compression", "launch"} <= {*rows}


def test_kept_files_are_small_and_are_what_was_fitted(output: Path, own: Calibration) -> None:
    kept = sorted((output / "measurements" / GPU).glob("*.parquet"))
    names = {path.name for path in kept}
    assert {"gemm.parquet", "requests.parquet", "requests_again.parquet"} <= names
    assert all(path.stat().st_size < 60_000 for path in kept)
    for path in kept:
        schema = pq.read_schema(path)
        assert "case" not in schema.names
        assert b"costmodel.runs" in schema.metadata
    digests = {sha256_of(path) for path in kept}
    assert {fit.sha256 for fit in own.kinds if fit.origin == "fitted"} <= digests


def test_one_run_alone_has_no_second(made: Any, loop: Any, tmp_path: Path) -> None:
    runs = loop("runs")
    run = runs.open_run(made.runs[0], tmp_path)
    assert run.options["model"] == MODEL
    nothing = runs.Run({}, {}, {}, (), None)
    assert loop("kernels").repeat_rows(run, nothing) == []


def test_a_folder_without_timings_is_refused(loop: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no timings"):
        loop("runs").open_run(tmp_path, tmp_path)


def test_a_gpu_without_a_name_is_asked_for(made: Any, loop: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpu: needed, the runs are of 'NVIDIA H200'"):
        loop("report").write_report([made.runs[0]], None, tmp_path)


def test_a_summary_names_counts_failures_and_medians(made: Any, loop: Any, tmp_path: Path) -> None:
    packing = loop("packing")
    packing.unpack(made.runs[0], tmp_path)
    entry = {"suite": "prefill", "kind": "whole_model", "key": {}, "reason": "out of memory"}
    failures = tmp_path / "timings" / "failures.jsonl"
    failures.write_text(2 * (json.dumps(entry) + "\n"), encoding="utf-8")
    text = "\n".join(packing.summary_lines(tmp_path))
    assert "device NVIDIA H200, torch 2.11.0+cu130" in text
    assert "  prefill, 2 times: out of memory" in text
    assert "llava-1.5-7b eager tpot: 3" in text
    assert "llava-1.5-7b cuda-graph, 4096 tokens: first token " in text
    assert packing.summary_lines(tmp_path / "logs") == ["nothing was measured"]
