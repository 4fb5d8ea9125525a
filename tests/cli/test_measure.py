"""``measure``: from the command line to files that calibrate and validate read."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]

HAS_TORCH = importlib.util.find_spec("torch") is not None
NEEDS_TORCH = pytest.mark.skipif(not HAS_TORCH, reason="needs the extra 'measure'")

BAD: list[tuple[str, tuple[str, ...]]] = [
    ("", ("--output", "costmodel measure --help")),
    ("-o {out} --suite gem", ("suite 'gem'", "Did you mean gemm?", "attention", "launch")),
    ("-o {out} --suite launch,gem", ("suite 'gem'",)),
    ("-o {out} --dtype fp8", ("dtype 'fp8'", "fp32", "fp16", "bf16")),
    ("-o {out} --model llava-9", ("model", "'llava-9'", "llava-1.5-7b")),
    ("-o {out} --tokens 0", ("tokens", "0", "from 1")),
    ("-o {out} --tokens 1,x", ("tokens", "'x'", "a whole number from 1")),
    ("-o {out} --repeat 2", ("repeat", "2", "from 3")),
    ("-o {out} --threads 0", ("threads", "0", "from 1")),
    ("-o {out} --budget 0", ("budget", "0", "positive")),
    ("-o {out} --budget nan", ("budget", "nan")),
    ("-o {out} --suite launch --where runtime", ("where", "'runtime'", "COLUMN=PATTERN")),
    ("-o {out} --device gpu", ("device", "'gpu'", "cpu", "cuda")),
    ("-o {out} --device cuda:x", ("device", "'cuda:x'")),
]


def _refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(("line", "words"), BAD)
def test_bad_input_is_one_line(run: Run, tmp_path: Path, line: str, words: tuple[str, ...]) -> None:
    _refused(run("measure", *line.format(out=tmp_path / "out").split()), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(HAS_TORCH, reason="torch is there")
def test_without_torch_it_says_what_to_install(run: Run, tmp_path: Path) -> None:
    result = run("measure", "-o", str(tmp_path / "out"))
    _refused(result, "torch", "pip install 'costmodel[measure]'")


@NEEDS_TORCH
@pytest.mark.verify
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("speed=1", ("column 'speed'", "runtime")),
        ("runtime=graph", ("where", "runtime", "'graph'", "eager")),
    ],
)
def test_cases_that_there_are_none_of(
    run: Run, tmp_path: Path, where: str, words: tuple[str, ...]
) -> None:
    _refused(
        run("measure", "-o", str(tmp_path / "out"), "--suite", "launch", "--where", where), *words
    )


@NEEDS_TORCH
@pytest.mark.verify
def test_check_says_what_can_be_measured_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("measure", "--check")
    assert "ok    gemm fp32" in result.stdout
    # A machine without a compiler has one thing missing, and says so by its exit code.
    assert result.exit_code == int("0 of these missing" not in result.stdout)
    assert list(tmp_path.iterdir()) == []


@NEEDS_TORCH
@pytest.mark.verify
@pytest.mark.parametrize(
    ("name", "words"),
    [("missing/t.parquet", ("output", "no folder")), ("file/out", ("output", "cannot be written"))],
)
def test_an_output_that_cannot_be(
    run: Run, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    _refused(run("measure", "-o", str(tmp_path / name), "--quick"), *words)


@NEEDS_TORCH
@pytest.mark.verify
def test_cuda_without_a_gpu(run: Run, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = run("measure", "--device", "cuda", "-o", str(tmp_path / "out"))
    _refused(result, "device", "'cuda'", "sees no GPU")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    pytest.importorskip("torch", reason="needs the extra 'measure'")
    folder = tmp_path_factory.mktemp("measured")
    result = run(
        "measure", "--quick", "--repeat", "3", "--suite", "gemm,memory_bound",
        "--suite", "attention", "--tokens", "16,64,512", "-o", str(folder),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "measured in" in result.stdout
    assert f"wrote {folder / 'cpu.yaml'}" in result.stdout
    return folder


@pytest.mark.verify
def test_files_are_read_by_validate(measured: Path, as_json: Callable[..., Any]) -> None:
    files = sorted(map(str, measured.glob("*.parquet")))
    assert len(files) == 5
    profile = str(measured / "cpu.yaml")
    found = as_json("validate", *files, "--gpu", profile, "--format", "json")
    assert {group["gpu"] for group in found["groups"]} == {"cpu"}
    kinds = {group["kind"] for group in found["groups"]}
    assert {"gemm", "attention_prefill", "attention_decode", "rmsnorm", "copy"} <= kinds
    # Nothing beats the measured ceiling, and every row has a kernel kind.
    said = json.dumps(found)
    assert "faster than" not in said
    assert "no kernel model" not in said


@pytest.mark.verify
def test_files_are_read_by_calibrate(measured: Path, as_json: Callable[..., Any]) -> None:
    found = as_json(
        "calibrate", str(measured / "gemm.parquet"), "--gpu", str(measured / "cpu.yaml"),
        "-o", str(measured / "own.yaml"), "--format", "json",
    )  # fmt: skip
    (kind,) = [one for one in found["kinds"] if one["kind"] == "gemm"]
    assert kind["dtype"] == "fp32"
    assert kind["software"].startswith("torch ")
    assert kind["rows"] > 30


@pytest.mark.verify
def test_the_same_again_measures_nothing(run: Run, measured: Path) -> None:
    before = (measured / "gemm.parquet").read_bytes()
    line = ("measure", "--quick", "--suite", "gemm", "--tokens", "16,64", "-o", str(measured))
    result = run(*line)
    assert result.exit_code == 0
    assert "0 measured" in result.stdout
    assert (measured / "gemm.parquet").read_bytes() == before
