"""``calibrate``: parameters and errors found again in times made from known ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import Result

from costmodel.calibration.attention_stacks import settings_of
from costmodel.calibration.building import chip_of
from costmodel.calibration.elementwise_bytes import elementwise_sizes
from costmodel.calibration.setups import SETUPS
from costmodel.calibration.user import calibrate
from costmodel.catalog.calibrations import load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.report.calibrations import calibration_records
from costmodel.timing.kernels.registry import kernel_model

GPU = "a40"
NOISE = 0.03
STACK = {"gpu": GPU, "source": "lab", "software": "torch 2.9", "dtype": "fp16"}


def _times(kind: str, shapes: dict[str, np.ndarray[Any, Any]], seed: int) -> Any:
    setup = SETUPS[kind]
    model = kernel_model(setup.model, benchmark=True)
    values = {parameter.name: parameter.start for parameter in model.parameters}
    values |= dict(setup.fixed)
    if kind.startswith("attention"):
        values |= settings_of(kind, "vllm_flash_attn_fa2")
    noise = np.random.default_rng(seed).normal(size=len(next(iter(shapes.values()))))
    return 1e6 * model.time_s(values, shapes, chip_of(load_gpu(GPU))) * np.exp(NOISE * noise)


def additions(**stack: Any) -> pd.DataFrame:
    grid = pd.MultiIndex.from_product(
        [[512, 1024, 2048, 4096, 8192, 16384], [1024, 1536, 2048, 3072, 4096, 5120, 8192, 11008]],
        names=["rows", "cols"],
    ).to_frame(index=False)
    frame = grid.assign(**{**STACK, **stack}, op="add", model="m", tp=1, gated=False, time_us=1.0)
    sizes = elementwise_sizes(frame)
    shapes = {name: sizes[name].to_numpy() for name in SETUPS["add"].sizes}
    return frame.assign(time_us=_times("add", shapes, seed=1))


def products(**stack: Any) -> pd.DataFrame:
    grid = pd.MultiIndex.from_product(
        [[16, 64, 128, 300, 640, 1024, 2048, 4096], [2048, 4096, 11008], [2048, 4096, 8192]],
        names=["m", "n", "k"],
    ).to_frame(index=False)
    shapes = {name: grid[name].to_numpy(dtype=np.float64) for name in "mnk"}
    return grid.assign(**{**STACK, **stack}, time_us=_times("gemm", shapes, seed=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timings")
    additions().to_csv(path / "add.csv", index=False)
    products().to_csv(path / "gemm.csv", index=False)
    additions(gpu="h200").to_csv(path / "h200.csv", index=False)
    additions().iloc[:4].to_csv(path / "few.csv", index=False)
    several = [additions(), additions(software="jax 1").iloc[:30], additions(dtype="bf16")[:40]]
    pd.concat(several).to_csv(path / "several.csv", index=False)
    return path


@pytest.fixture(scope="module")
def made(folder: Path, run: Callable[..., Result]) -> Path:
    files = [str(folder / name) for name in ("add.csv", "gemm.csv")]
    result = run("calibrate", *files, "--gpu", GPU, "-o", str(folder / "own.yaml"))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    (folder / "own.txt").write_text(result.stdout, encoding="utf-8")
    return folder / "own.yaml"


def test_errors_are_those_of_the_noise(made: Path) -> None:
    calibration = load_calibration(made, load_gpu(GPU))
    assert calibration.name == "a40.own"
    origins = {fit.kind: fit.origin for fit in calibration.kinds}
    assert {kind for kind, origin in origins.items() if origin == "fitted"} == {"add", "gemm"}
    # Not measured, but like an addition.
    assert origins["copy"] == origins["gelu"] == "transferred"
    for fit in (one for one in calibration.kinds if one.origin == "fitted"):
        assert fit.error is not None
        assert fit.error.mape_pct < 2 * 100 * 0.8 * NOISE
        assert abs(fit.error.bias_pct) < 1.5
        assert fit.error.roofline_mape_pct > fit.error.mape_pct
        assert (fit.origin, fit.source, fit.software, fit.dtype) == (
            "fitted", "lab", "torch 2.9", "fp16",
        )  # fmt: skip
        assert all(low < 1 < high for low, high in zip(fit.bands.low, fit.bands.high, strict=True))


def test_the_table_says_what_was_fitted_and_what_is_missing(made: Path) -> None:
    shown = made.with_suffix(".txt").read_text(encoding="utf-8")
    for words in ("a40.own", "gemm", "torch 2.9", "roofline", "datasheet only", f"wrote {made}"):
        assert words in shown
    assert "attention_decode" in shown


def test_other_noise_lies_in_the_bands(made: Path, as_json: Callable[..., Any]) -> None:
    frame = additions()
    shift = np.random.default_rng(7).normal(size=len(frame)) - np.random.default_rng(1).normal(
        size=len(frame)
    )
    frame.assign(time_us=frame["time_us"] * np.exp(NOISE * shift)).to_csv(
        made.parent / "again.csv", index=False
    )
    words = ("--calibration", str(made), "--format", "json")
    found = as_json("validate", str(made.parent / "again.csv"), *words)
    (group,) = found["groups"]
    assert group["same_stack"] is True
    assert group["in_sample"] is False
    assert group["mape_pct"] < 4
    assert 80 <= group["coverage90_pct"] <= 100


def test_estimates_use_it(made: Path, as_json: Callable[..., Any]) -> None:
    line = f"estimate llava-1.5-7b --gpu a40 --text-tokens 64 --calibration {made} --format json"
    found = as_json(line)
    assert found["inputs"]["time_model"] == "calibrated"
    assert found["time_s"]["ttft"] > 0


def test_json_names_stacks_and_what_was_left_out(
    folder: Path, as_json: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--gpu", "A40", "-o", str(tmp_path / "c.yaml"), "--format", "json")
    found = as_json("calibrate", str(folder / "several.csv"), *words, "--name", "mine")
    assert found["name"] == "mine"
    (kind,) = found["kinds"]
    assert (kind["kind"], kind["software"], kind["dtype"]) == ("add", "torch 2.9", "fp16")
    assert kind["rows"] == 48
    assert set(kind["parameters"]) >= set(kind["at_bound"])
    left = {(one["software"], one["dtype"], one["rows"]) for one in found["left_out"]}
    assert left == {("jax 1", "fp16", 30), ("torch 2.9", "bf16", 40)}
    assert "gemm" in found["datasheet"]
    assert "add" not in found["datasheet"]


@pytest.mark.parametrize(
    ("option", "value", "stack"),
    [
        ("--software", "jax", ("jax 1", "fp16")),
        ("--dtype", "bfloat16", ("torch 2.9", "bf16")),
        ("--source", "la", ("torch 2.9", "fp16")),
    ],
)
def test_a_stack_can_be_chosen(
    folder: Path, as_json: Callable[..., Any], tmp_path: Path, option: str, value: str,
    stack: tuple[str, str],
) -> None:  # fmt: skip
    words = ("--gpu", "a40", "-o", str(tmp_path / "c.yaml"), "--format", "json", option, value)
    (kind,) = as_json("calibrate", str(folder / "several.csv"), *words)["kinds"]
    assert (kind["software"], kind["dtype"]) == stack


def test_rows_that_say_nothing_are_of_the_card(folder: Path, tmp_path: Path) -> None:
    bare = additions().drop(columns=["gpu", "source", "software", "dtype"])
    bare.to_csv(tmp_path / "bare.csv", index=False)
    result = calibrate([tmp_path / "bare.csv"], GPU, dtype="bf16", software="torch 3")
    (fitted,) = result.fitted
    assert (fitted.fit.software, fitted.fit.dtype) == ("torch 3", "bf16")


def test_a_base_supplies_the_rest(made: Path, folder: Path) -> None:
    result = calibrate([folder / "add.csv"], GPU, base=made)
    assert "gemm" in result.taken
    assert "add" not in result.taken
    assert "gemm" not in result.datasheet
    fit, base = result.calibration.find("gemm"), load_calibration(made, load_gpu(GPU)).find("gemm")
    assert fit is not None
    assert base is not None
    assert (fit.origin, fit.rule) == ("transferred", "taken from a40.own")
    assert fit.values == base.values
    assert fit.bands == base.bands


def test_bands_of_another_device_are_wider(made: Path, folder: Path) -> None:
    result = calibrate([folder / "h200.csv"], "h200", base=made)
    fit, base = result.calibration.find("gemm"), load_calibration(made, load_gpu(GPU)).find("gemm")
    assert fit is not None
    assert base is not None
    assert fit.rule == "taken from a40.own, fitted on a40"
    assert fit.residual is None
    assert all(a > b for a, b in zip(fit.bands.high, base.bands.high, strict=True))
    assert all(a < b for a, b in zip(fit.bands.low, base.bands.low, strict=True))


def test_a_card_of_ones_own(folder: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("base: a40\nname: card\naliases: [My Card]\n", encoding="utf-8")
    additions(gpu="My Card").to_csv(tmp_path / "t.csv", index=False)
    result = calibrate([tmp_path / "t.csv"], card)
    assert result.calibration.device == "card"
    assert result.calibration.name == "card.own"


def test_kinds_with_too_few_rows_are_named(folder: Path) -> None:
    result = calibrate([folder / "add.csv", folder / "few.csv"], GPU)
    assert [one.fit.rows for one in result.fitted] == [52]
    gemm = products().iloc[:3]
    gemm.to_csv(folder / "three.csv", index=False)
    result = calibrate([folder / "add.csv", folder / "three.csv"], GPU)
    (left,) = result.left_out
    assert left.stack.kind == "gemm"
    assert "3 usable shapes are too few" in left.reason


def test_attention_of_an_unknown_kernel_is_taken_for_flash_attention(tmp_path: Path) -> None:
    decoding("mine", [1, 2, 4, 8, 16, 32, 64]).to_csv(tmp_path / "t.csv", index=False)
    (one,) = calibrate([tmp_path / "t.csv"], GPU).fitted
    assert one.note == "attention_decode: mine, with the tiles of vllm_flash_attn_fa2"
    assert one.fit.error is not None
    assert one.fit.error.mape_pct < 12
    assert "bk64" not in one.at_bound


def decoding(kernel: str, batches: list[int]) -> pd.DataFrame:
    grid = pd.MultiIndex.from_product(
        [batches, [512, 1024, 2048, 4096, 8192], [8, 16, 32]], names=["batch", "kv_len", "heads"]
    ).to_frame(index=False)
    grid = grid.assign(q_len=1, kv_heads=8, head_dim=128, causal=True, kernel=kernel, **STACK)
    shapes = {n: grid[n].to_numpy(dtype=np.float64) for n in SETUPS["attention_decode"].sizes}
    return grid.assign(time_us=_times("attention_decode", shapes, 3))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of two implementations, the second with fewer rows."""
    path = tmp_path_factory.mktemp("kernels") / "t.csv"
    several = [decoding("sdpa-flash", [1, 2, 4, 8, 16, 32]), decoding("eager", [1, 4, 16, 64])]
    pd.concat(several).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("options", "taken", "other"),
    [
        ((), ("sdpa-flash", 90), ("eager", 60)),
        (("--kernel", "eager"), ("eager", 60), ("sdpa-flash", 90)),
        (("--kernel", "sdpa"), ("sdpa-flash", 90), ("eager", 60)),
    ],
)
def test_one_of_several_kernels_is_fitted_and_the_others_are_named(
    kernels: Path,
    as_json: Callable[..., Any],
    tmp_path: Path,
    options: tuple[str, ...],
    taken: tuple[str, int],
    other: tuple[str, int],
) -> None:
    target = tmp_path / "c.yaml"
    words = ("--gpu", "a40", "-o", str(target), "--format", "json", *options)
    found = as_json("calibrate", str(kernels), *words)
    (kind,) = found["kinds"]
    assert (kind["kernel"], kind["rows"]) == taken
    (left,) = found["left_out"]
    assert (left["kernel"], left["rows"]) == other
    said = (
        f"attention_decode: fitted to {taken[0]} ({taken[1]} rows), not to "
        f"{other[0]} ({other[1]} rows); --kernel chooses"
    )
    assert said in found["notes"]
    assert said in yaml.safe_load(target.read_text(encoding="utf-8"))["notes"]


def test_rows_without_kernels_are_fitted_beside_a_chosen_one(kernels: Path, folder: Path) -> None:
    result = calibrate([kernels, folder / "add.csv"], GPU, kernel="eager")
    assert {(one.fit.kind, one.stack.kernel) for one in result.fitted} == {
        ("add", ""), ("attention_decode", "eager"),
    }  # fmt: skip


def test_rows_that_are_too_short_are_counted(
    as_json: Callable[..., Any], run: Callable[..., Result], tmp_path: Path
) -> None:
    # Under 3 us memory-bound kernels of a GPU are not fitted.
    short = additions().iloc[:7].assign(rows=1, time_us=[0.5, 1.0, 2.0, 2.9, 2.99, 3.0, 3.1])
    pd.concat([additions(), short]).to_csv(tmp_path / "t.csv", index=False)
    line = ("calibrate", str(tmp_path / "t.csv"), "--gpu", "a40", "-o", str(tmp_path / "c.yaml"))
    found = as_json(*line, "--format", "json")
    (kind,) = found["kinds"]
    assert (kind["rows"], kind["too_short"]) == (48 + 2, 5)
    said = "add: 5 rows take less than 3 us and are not used"
    assert said in found["notes"]
    assert said in " ".join(run(*line).stdout.split())


def test_short_rows_are_the_reason_where_none_is_left(folder: Path, tmp_path: Path) -> None:
    short = products().assign(m=range(1, 73), n=1024, k=1024, time_us=9.0)
    short.to_csv(tmp_path / "t.csv", index=False)
    (left,) = calibrate([tmp_path / "t.csv", folder / "add.csv"], GPU).left_out
    assert "0 usable shapes are too few" in left.reason
    assert f"{len(short)} rows take less than 10 us and are not used" in left.reason


def test_the_same_rows_give_the_same_file(folder: Path, tmp_path: Path, made: Path) -> None:
    first, second = (calibrate([folder / "add.csv"], GPU).calibration for _ in range(2))
    assert first == second


def test_the_file_is_replaced_as_a_whole(
    folder: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    target = tmp_path / "c.yaml"
    target.write_text("old", encoding="utf-8")
    run("calibrate", str(folder / "few.csv"), "--gpu", "a40", "-o", str(target))
    assert target.read_text(encoding="utf-8") == "old"
    run("calibrate", str(folder / "add.csv"), "--gpu", "a40", "-o", str(target))
    assert yaml.safe_load(target.read_text(encoding="utf-8"))["device"] == "a40"
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


BAD = [
    ("calibrate", ("TIMINGS",)),
    ("calibrate {t}/add.csv -o {o}/c.yaml", ("--gpu",)),
    ("calibrate {t}/add.csv --gpu a40", ("--output",)),
    ("calibrate {t}/add.csv --gpu a4O -o {o}/c.yaml", ("gpu 'a4O'", "Did you mean a40?")),
    ("calibrate {t}/add.csv --gpu h200 -o {o}/c.yaml", ("gpu", "'h200'", "rows", "a40")),
    ("calibrate {t}/none.csv --gpu a40 -o {o}/c.yaml", ("none.csv",)),
    ("calibrate {t}/few.csv --gpu a40 -o {o}/c.yaml", ("add", "4 usable shapes", "too few")),
    ("calibrate {t}/fp8.csv --gpu h200 -o {o}/c.yaml", ("no kernel model", "fp8")),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/c.json", ("output", ".yaml")),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/no/c.yaml", ("output", "no folder")),
    ("calibrate {t}/add.csv --gpu a40 -o {o}", ("output",)),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/c.yaml --base magic", ("'magic'", "YAML")),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/c.yaml --dtype f16", ("dtype 'f16'", "fp16")),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/c.yaml --software jax", ("'jax'", "torch 2.9")),
    (
        "calibrate {k} --gpu a40 -o {o}/c.yaml --kernel flash",
        ("kernel", "'flash'", "eager, sdpa-flash"),
    ),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/c.yaml --kernel eager", ("kernel", "no row names")),
    ("calibrate {t}/add.csv --gpu a40 -o {o}/c.yaml --format csv", ("'--format'", "'csv'")),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_input(
    run: Callable[..., Result],
    folder: Path,
    kernels: Path,
    tmp_path: Path,
    line: str,
    words: tuple[str, ...],
) -> None:
    products(gpu="h200", dtype="fp8").to_csv(folder / "fp8.csv", index=False)
    filled = line.replace("{t}", str(folder)).replace("{o}", str(tmp_path))
    filled = filled.replace("{k}", str(kernels))
    result = run(*filled.split())
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_scipy(
    run: Callable[..., Result], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    result = run("calibrate", str(folder / "add.csv"), "--gpu", "a40", "-o", f"{tmp_path}/c.yaml")
    assert result.exit_code == 2
    assert "costmodel[fit]" in result.stderr


def test_gpus_show_tells_what_calibrations_rest_on(as_json: Callable[..., Any]) -> None:
    for name in ("a40", "rtx-a6000", "a100-80gb-sxm"):
        profile = load_gpu(name)
        shown = as_json("gpus", "show", name, "--format", "json")["calibrations"]
        assert shown == calibration_records(profile)
        defaults = [one["name"] for one in shown if one["default"]]
        assert defaults == ([profile.default_calibration] if profile.default_calibration else [])
        for kind in (kind for one in shown for kind in one["kinds"]):
            assert kind["origin"] == "fitted" or kind["rule"]
