"""``validate``: errors against times made from a model with known parameters."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from costmodel.calibration import stacks
from costmodel.calibration.building import chip_of
from costmodel.calibration.judging import validate_timings
from costmodel.calibration.loading import load_timings
from costmodel.calibration.schema import Timings
from costmodel.calibration.setups import SETUPS
from costmodel.calibration.stacks import StackRows, choose_calibration, split_stacks
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.report.text import render
from costmodel.report.validation import validation_record, validation_tables
from costmodel.report.validation_figure import validation_figure
from costmodel.specs.calibration import BandTable, Calibration, FitError, KindFit
from costmodel.specs.hardware import HardwareProfile
from costmodel.timing.kernels.registry import kernel_model

GPU = "a100-80gb-sxm"
NOISE = 0.03
DATE = datetime.date(2026, 1, 2)
MODEL = kernel_model(SETUPS["gemm"].model, benchmark=True)
VALUES = {parameter.name: parameter.start for parameter in MODEL.parameters}


def _fit(**changes: Any) -> KindFit:
    reach = float(np.exp(1.645 * NOISE))
    given = {
        "kind": "gemm", "model": SETUPS["gemm"].model, "device": GPU, "values": VALUES,
        "source": "lab@1", "software": "vllm/0.14.0", "dtype": "fp16", "rows": 1, "fitted": DATE,
        "bands": BandTable(size="m", low=(1 / reach,), high=(reach,)),
    }  # fmt: skip
    return KindFit.model_validate({**given, **changes})


def _calibration(name: str = f"{GPU}.test", *fits: KindFit) -> Calibration:
    return Calibration(
        name=name, device=name.partition(".")[0], title="", date=DATE, kinds=fits or (_fit(),)
    )


def _frame(factor: float | np.random.Generator, **columns: Any) -> pd.DataFrame:
    """Times of the model: times a factor, or with noise."""
    sizes = pd.MultiIndex.from_product(
        [[64, 128, 300, 1024, 4096], [2048, 4096, 11008], [2048, 4096, 5120, 8192]],
        names=["m", "n", "k"],
    ).to_frame(index=False)
    shapes = {name: sizes[name].to_numpy(dtype=np.float64) for name in "mnk"}
    time_s = MODEL.time_s(VALUES, shapes, chip_of(load_gpu(columns.get("gpu", GPU))))
    scale = factor if isinstance(factor, float) else np.exp(NOISE * factor.normal(size=len(sizes)))
    stack = {"gpu": GPU, "source": "lab@2", "software": "vllm/0.15.0", "dtype": "fp16"}
    return sizes.assign(**{**stack, **columns}, time_us=1e6 * time_s * scale)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    write_calibration(_calibration(), tmp_path / "cal.yaml")
    return tmp_path / "cal.yaml"


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    path = tmp_path / "noisy.csv"
    _frame(np.random.default_rng(0)).to_csv(path, index=False)
    return path


def test_noise_is_what_is_reported(
    as_json: Callable[..., Any], calibration: Path, noisy: Path
) -> None:
    found = as_json("validate", str(noisy), "--calibration", str(calibration), "--format", "json")
    assert found["schema_version"] == "1"
    (group,) = found["groups"]
    stack = [group[name] for name in ("gpu", "kind", "source", "software", "dtype")]
    assert stack == [GPU, "gemm", "lab@2", "vllm/0.15.0", "fp16"]
    assert group["calibration"] == f"{GPU}.test"
    assert group["same_stack"] is True
    assert group["in_sample"] is False
    # The mean of |x| of a normal x is 0.8 standard deviations.
    assert group["mape_pct"] == pytest.approx(100 * 0.8 * NOISE, rel=0.3)
    assert group["median_ape_pct"] < group["mape_pct"] < group["p90_ape_pct"]
    assert abs(group["bias_pct"]) < 1
    assert 80 <= group["coverage90_pct"] <= 97
    assert group["roofline_mape_pct"] > 5
    errors = {key: group[key] for key in found["overall"]}
    assert found["overall"] == found["overall_same_stack"] == errors
    assert found["min_time_us"] == 10
    assert found["dropped"] == []


def test_errors_by_hand(as_json: Callable[..., Any], calibration: Path, tmp_path: Path) -> None:
    _frame(1.25).to_csv(tmp_path / "t.csv", index=False)
    words = ("--calibration", str(calibration), "--format", "json", "--min-time-us", "0")
    found = as_json("validate", str(tmp_path / "t.csv"), *words)["overall"]
    assert found["n"] == 60
    for name in ("mape_pct", "median_ape_pct", "p90_ape_pct"):
        assert found[name] == pytest.approx(20.0, abs=0.01)
    assert found["bias_pct"] == pytest.approx(-20.0, abs=0.01)
    assert found["coverage90_pct"] == 0


def test_repetitions_count_once_by_their_median(calibration: Path, tmp_path: Path) -> None:
    parts = [_frame(factor) for factor in (1.5, 1.0, 1.0)]
    pd.concat(parts).to_csv(tmp_path / "t.csv", index=False)
    found = validate_timings([tmp_path / "t.csv"], calibration=calibration).overall
    assert found.n == len(parts[0])
    assert found.mape_pct == pytest.approx(0.0, abs=0.01)


def test_stacks_are_groups_and_own_stacks_have_their_own_overall(
    as_json: Callable[..., Any], calibration: Path, tmp_path: Path
) -> None:
    parts = [_frame(1.0), _frame(1.2, source="other"), _frame(1.0, software="sglang/0.5")]
    parts.append(_frame(1.0, gpu="A40"))
    pd.concat(parts).to_csv(tmp_path / "t.csv", index=False)
    words = ("validate", str(tmp_path / "t.csv"), "--calibration", str(calibration))
    found = as_json(*words, "--format", "json")
    same = {(g["gpu"], g["source"], g["software"]): g["same_stack"] for g in found["groups"]}
    assert same == {
        (GPU, "lab@2", "vllm/0.15.0"): True,
        (GPU, "other", "vllm/0.15.0"): False,
        (GPU, "lab@2", "sglang/0.5"): False,
        ("a40", "lab@2", "vllm/0.15.0"): False,
    }
    assert found["overall_same_stack"]["n"] == 60
    assert found["overall"]["n"] == sum(group["n"] for group in found["groups"]) > 200
    one = as_json(*words, "--gpu", "A40", "--format", "json")
    assert [group["gpu"] for group in one["groups"]] == ["a40"]


def test_short_times_are_not_judged(
    as_json: Callable[..., Any], calibration: Path, noisy: Path
) -> None:
    words = ("validate", str(noisy), "--calibration", str(calibration), "--format", "json")
    found = as_json(*words, "--min-time-us", "1e6")
    (group,) = found["groups"]
    numbers = [key for key in group if key.endswith("_pct") and not key.startswith("cv")]
    assert group["n"] == found["overall"]["n"] == 0
    assert {group[key] for key in numbers} == {None}
    assert as_json(*words, "--min-time-us", "100")["overall"]["n"] < 60


def test_without_a_calibration_there_is_the_roofline(
    as_json: Callable[..., Any], tmp_path: Path
) -> None:
    own = tmp_path / "card.yaml"
    own.write_text("base: a40\nname: card\n", encoding="utf-8")
    _frame(1.0, gpu="a40").drop(columns="gpu").to_csv(tmp_path / "t.csv", index=False)
    words = ("validate", str(tmp_path / "t.csv"), "--gpu", str(own), "--format", "json")
    found = as_json(*words)
    (group,) = found["groups"]
    assert group["gpu"] == "card"
    if group["calibration"] is None:
        assert group["mape_pct"] is None
        assert found["overall"]["n"] == 0
    assert group["n"] == 60
    assert group["roofline_mape_pct"] > 0


def test_rows_without_a_model_are_named(calibration: Path, tmp_path: Path) -> None:
    parts = [_frame(1.0), _frame(1.0, dtype="fp8"), _frame(1.0).assign(batch=4, time_us=2000.0)]
    pd.concat(parts).to_csv(tmp_path / "t.csv", index=False)
    found = validate_timings([tmp_path / "t.csv"], calibration=calibration)
    assert found.overall.n == 60
    reasons = [p.reason for p in found.problems if p.reason.startswith("no kernel model")]
    assert reasons == ["no kernel model of batched gemm fp16", "no kernel model of gemm fp8"]


def test_csv_and_table_agree(ok: Callable[..., str], calibration: Path, noisy: Path) -> None:
    words = ("validate", str(noisy), "--calibration", str(calibration))
    (row,) = csv.DictReader(io.StringIO(ok(*words, "--format", "csv")))
    shown = ok(*words)
    for value in (row["n"], f"{float(row['mape_pct']):.1f}", f"{float(row['bias_pct']):+.1f}"):
        assert value in shown
    assert "lab, vllm/0.15.0, fp16" in shown


def test_the_plot_opens_without_a_network(
    ok: Callable[..., str], calibration: Path, noisy: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "plot.html"
    ok("validate", str(noisy), "--calibration", str(calibration), "--plot", str(plot))
    text = plot.read_text(encoding="utf-8")
    assert "m=64 n=2048 k=2048" in text
    assert "<script src=" not in text


def test_the_figure_has_every_shape_and_the_diagonal(calibration: Path, noisy: Path) -> None:
    result = validate_timings([noisy], calibration=calibration)
    figure = validation_figure(result)
    left, right = (trace for trace in figure.data if trace.mode == "markers")
    assert len(left.x) == len(right.x) == result.overall.n
    assert np.allclose(right.y, 100 * (np.asarray(left.y) / np.asarray(left.x) - 1))
    diagonal = figure.data[0]
    assert list(diagonal.x) == list(diagonal.y)
    assert "of at least 10 us" in figure.layout.title.subtitle.text


def test_a_figure_of_nothing_says_so(noisy: Path, calibration: Path) -> None:
    result = validate_timings([noisy], calibration=calibration, min_time_us=1e9)
    assert "no shape" in validation_figure(result).layout.title.subtitle.text
    assert validation_record(result)["overall"]["n"] == 0
    assert "gemm" in render(validation_tables(result))


def _stack(software: str, dtype: str = "fp16") -> StackRows:
    return StackRows(GPU, "gemm", "lab@9", software, dtype, "", ())


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> HardwareProfile:
    """Three calibrations of one device, the last of another laboratory the default."""
    known = {
        calibration.name: calibration
        for calibration in (
            _calibration(f"{GPU}.a", _fit()),
            _calibration(f"{GPU}.b", _fit(software="vllm/0.24.0", dtype="bf16")),
            _calibration(f"{GPU}.c", _fit(source="elsewhere", software="torch 2")),
            _calibration("a40.d", _fit(software="sglang/0.5")),
        )
    }
    monkeypatch.setattr(stacks, "list_calibrations", lambda: tuple(known))
    monkeypatch.setattr(stacks, "load_calibration", lambda name, profile: known[name])
    monkeypatch.setattr(stacks, "default_calibration", lambda profile: known[f"{GPU}.c"])
    return load_gpu(GPU)


@pytest.mark.parametrize(
    ("stack", "name", "same"),
    [
        (_stack("vllm/0.14.0"), "a", True),
        (_stack("vllm/0.24.0"), "b", True),
        (_stack("vllm/0.30.0", "bf16"), "b", True),
        (_stack("vllm/0.30.0", "fp16"), "a", True),
        (_stack("sglang/0.5"), "c", False),
        (_stack(""), "c", False),
    ],
)
def test_choice_of_a_calibration(
    shipped: HardwareProfile, stack: StackRows, name: str, same: bool
) -> None:
    found = choose_calibration(stack, shipped)
    assert found is not None
    assert found[0].name == f"{GPU}.{name}"
    assert stacks.is_same_stack(found[1], stack) is same


def test_transferred_parameters_are_no_own_stack() -> None:
    fit = _fit(origin="transferred", rule="by the datasheets")
    assert not stacks.is_same_stack(fit, _stack("vllm/0.14.0"))


def test_a_kind_that_no_calibration_has(shipped: HardwareProfile) -> None:
    stack = StackRows(GPU, "add", "lab", "vllm/0.14.0", "fp16", "", ())
    assert choose_calibration(stack, shipped) is None


def test_fitted_files_are_recognised(noisy: Path, tmp_path: Path) -> None:
    digest = load_timings([noisy])[0][0].sha256
    error = FitError(rows=9, mape_pct=7.5, p90_pct=9, bias_pct=0, roofline_mape_pct=40)
    path = tmp_path / "c.yaml"
    write_calibration(_calibration(f"{GPU}.x", _fit(sha256=digest, error=error)), path)
    result = validate_timings([noisy], calibration=path)
    assert result.groups[0].in_sample
    assert result.groups[0].cv_mape_pct == 7.5
    assert "7.5" in render(validation_tables(result))


def test_operators_share_a_row_number() -> None:
    frame = _frame(1.0).assign(batch=1, op="a", model="", tp=1).iloc[:4]
    frame.index = pd.Index([1, 1, 2, 2])
    frame["dtype"] = ["fp16", "fp8", "fp16", "fp16"]
    found, problems = split_stacks([Timings("gemm", frame, Path("t.csv"), "")])
    assert [len(stack) for stack in found] == [3]
    assert [(problem.rows, problem.count) for problem in problems] == [((1,), 1)]


BAD = [
    ("validate", ("TIMINGS",)),
    ("validate {t}/missing.csv", ("missing.csv",)),
    ("validate {t}", ("{t}",)),
    ("validate {t}/empty.csv", ("empty.csv",)),
    ("validate {t}/text.csv", ("text.csv",)),
    ("validate {t}/ok.csv --gpu tpu", ("gpu 'tpu'", "a40")),
    ("validate {t}/ok.csv --gpu h200", ("gpu", "'h200'", "rows")),
    ("validate {t}/ok.csv --calibration magic", ("'magic'", "YAML")),
    ("validate {t}/ok.csv --calibration {t}/none.yaml", ("none.yaml",)),
    ("validate {t}/ok.csv --calibration {t}/bad.yaml", ("bad.yaml", "kinds")),
    ("validate {t}/ok.csv --min-time-us -1", ("min-time-us", "-1")),
    ("validate {t}/ok.csv --min-time-us nan", ("min-time-us", "nan")),
    ("validate {t}/ok.csv --min-time-us x", ("--min-time-us", "'x'")),
    ("validate {t}/ok.csv -o {t}/no/out.json", ("output", "no")),
    ("validate {t}/ok.csv --plot {t}/plot.gif", ("plot.gif", ".html")),
    ("validate {t}/ok.csv --plot {t}/no/plot.html", ("no",)),
    ("validate {t}/ok.csv --format xml", ("'--format'", "'xml'")),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_input(
    run: Callable[..., Result], tmp_path: Path, line: str, words: tuple[str, ...]
) -> None:
    _frame(1.0).to_csv(tmp_path / "ok.csv", index=False)
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "text.csv").write_text("hello\nworld\n", encoding="utf-8")
    (tmp_path / "bad.yaml").write_text("name: x\n", encoding="utf-8")
    result = run(*line.replace("{t}", str(tmp_path)).split())
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word.replace("{t}", str(tmp_path)) in result.stderr


def test_public_timings(shared_dir: Path, as_json: Callable[..., Any], tmp_path: Path) -> None:
    parts = {}
    for name in ("gemm", "attention_decode", "attention_prefill", "elementwise", "collectives"):
        frame = pd.read_parquet(shared_dir / "measurements" / f"{name}.parquet")
        parts[name] = frame.sample(1000, random_state=0)
        parts[name].to_parquet(tmp_path / f"{name}.parquet")
    files = [str(tmp_path / f"{name}.parquet") for name in parts]
    found = as_json("validate", *files, "--format", "json")
    assert {group["kind"] for group in found["groups"]} >= {"gemm", "rmsnorm", "add", "all_reduce"}
    judged = [group for group in found["groups"] if group["n"]]
    assert judged
    for group in judged:
        assert group["roofline_mape_pct"] >= 0
        if group["calibration"] is not None:
            assert 0 <= group["coverage90_pct"] <= 100
            assert group["median_ape_pct"] <= group["p90_ape_pct"]
