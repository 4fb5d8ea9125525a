"""What the caller got wrong: exit code 2, one line on stderr, and the line helps."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

E = "estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64"
Q = "estimate qwen2-vl-7b --gpu a100-80gb-sxm --text-tokens 64"
C = "compare llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64"
COUNT = "a whole number from 1 to 100,000,000"

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip

# Command, and words that the one line must hold: field, value and what is accepted.
CASES: list[tuple[str, tuple[str, ...]]] = [
    # names
    ("estimat", ("unknown command 'estimat'", "Did you mean estimate?", "compare")),
    ("frobnicate x", ("unknown command 'frobnicate'", "Known:", "roofline")),
    (f"{E} --text-token 3", ("--text-token", "Did you mean --text-tokens?", "--help")),
    ("estimate --explode", ("unknown option '--explode'", "costmodel estimate --help")),
    ("estimate", ("MODEL", "costmodel estimate --help")),
    ("estimate llava-1.5-7b --text-tokens 64", ("--gpu",)),
    ("estimate llava-1.5-7b --gpu a40", ("--text-tokens",)),
    ("estimate llava-1.6-7b --gpu a40 --text-tokens 64", ("model 'llava-1.6-7b'", "llava-1.5-7b")),
    ("estimate nothing/here --gpu a40 --text-tokens 64", ("nothing/here", "no such file")),
    ("estimate llava-1.5-7b --gpu a10 --text-tokens 64", ("gpu 'a10'", "rtx-a6000")),
    ("estimate llava-1.5-7b --gpu h100-sxn --text-tokens 1", ("Did you mean h100-sxm?",)),
    ("estimate llava-1.5-7b --gpu a40, --text-tokens 1", ("unknown gpu ''", "a40")),
    (f"{E} --compress clusters:k=3", ("method 'clusters'", "Did you mean cluster?", "random")),
    (f"{E} --time-model magic", ("time-model 'magic'", "ideal")),
    (f"{E} --runtime jit", ("runtime 'jit'", "eager", "compiled", "cuda-graph")),
    (f"{E} --attention paged", ("attention 'paged'", "flash", "sdpa", "eager")),
    (f"{E} --head-tokens first", ("head-tokens 'first'", "last", "all")),
    (f"{E} --format xml", ("'--format'", "'xml'", "'table'", "'json'", "'csv'")),
    ("models show lava", ("model 'lava'", "llava-1.5-7b")),
    ("models show", ("NAME", "costmodel models --help")),
    ("models a b", ("one NAME", "a b")),
    ("gpus show tpu", ("gpu 'tpu'", "l40s")),
    ("methods show kmeans", ("method 'kmeans'", "cluster")),
    ("formulas llava-1.5-7b --stage decoder", ("stage 'decoder'", "llm", "vision_encoder")),
    ("completion tcsh", ("'tcsh'", "bash", "zsh", "fish")),
    # counts
    *[
        (f"{E[:-2]}{value}", ("text-tokens", value, COUNT))
        for value in ("0", "-3", "1.5", "nan", "inf", "1e30", "1_000", "x", "٣", "200000000")
    ],
    (f"{E} --batch 0", ("batch", "0", "a whole number from 1 to 1,000,000")),
    (f"{E} --batch 99999999999999999999999", ("batch", "a whole number from 1 to")),
    (f"{E} --output-tokens -1", ("output-tokens", "-1", "from 0 to")),
    (f"{E} --visual-tokens 2.5", ("visual-tokens", "'2.5'", "from 0 to")),
    (f"{E} --tp 0", ("tp", "0", "from 1 to")),
    (f"{E} --tp 3", ("tp", "3", "divides", "1, 2, 4")),
    (f"{E} --vision-layers 0", ("vision-layers", "0", "from 1 to")),
    (f"{E} --vision-layers 25", ("vision-layers", "25", "1 to 24")),
    (f"{E} --vision-layers two", ("vision-layers", "'two'")),
    # images
    (f"{E} --image 336", ("image", "'336'", "WIDTHxHEIGHT")),
    (f"{E} --image 0x10", ("image", "'0x10'", "WIDTHxHEIGHT")),
    (f"{E} --image 336x336,", ("image", "''", "WIDTHxHEIGHT")),
    (f"{E} --image 1e3x20", ("image", "'1e3x20'")),
    (f"{E} --image 99999999999x20", ("image", "'99999999999x20'")),
    (f"{Q} --image 9000x10", ("image", "9000x10", "200")),
    (f"{Q} --video 10x10", ("video", "'10x10'", "WIDTHxHEIGHTxFRAMES")),
    (f"{E} --video 336x336x0", ("video", "'336x336x0'")),
    (f"{E} --image 336x336 --visual-tokens 5", ("visual-tokens", "5", "--image", "not both")),
    ("estimate llama-2-7b --gpu a40 --text-tokens 64 --image 336x336", ("image", "text-only")),
    ("estimate llama-2-7b --gpu a40 --text-tokens 64 --visual-tokens 5", ("5", "text-only")),
    # compression
    (f"{E} --compress cluster", ("cluster", "k=64", "retention")),
    (f"{E} --compress cluster:k=0", ("cluster", "k", "greater than 0")),
    (f"{E} --compress cluster:k=577", ("cluster", "577", "at most the 576")),
    (f"{E} --compress cluster:k=64,k=65", ("'k'", "twice")),
    (f"{E} --compress cluster:64", ("key=value", "'64'")),
    (f"{E} --compress cluster:k=64,iters=3", ("iters", "iterations")),
    (f"{E} --compress random:retention=1.5", ("retention", "1.5", "less than or equal to 1")),
    (f"{E} --compress random:retention=nan", ("retention", "nan")),
    (f"{E} --compress stf:window=5", ("window", "5")),
    (f"{E} --compress stf --compress stf", ("stf and stf", "both replace")),
    (f"{E} --compress random:k=9 --compress mbtf", ("random", "mbtf", "order of the model")),
    (f"{E} --compress random:k=9 --compress cluster:k=10", ("random", "cluster", "at most the 9")),
    (f"{Q} --compress stf", ("stf", "qwen2-vl-7b")),
    ("estimate llama-2-7b --gpu a40 --text-tokens 9 --compress stf", ("llama-2-7b", "stf")),
    (f"{C} --methods stf --visual-tokens-kept 100", ("stf", "100", "144")),
    (f"{C} --methods random --visual-tokens-kept 1.5", ("visual-tokens-kept", "'1.5'", COUNT)),
    (f"{C} --methods random,foo --visual-tokens-kept 64", ("method 'foo'", "cluster")),
    (f"{C} --methods random", ("--visual-tokens-kept",)),
    # formats
    (f"{E} --dtype fp17", ("dtype 'fp17'", "fp16")),
    (f"{E} --dtype int4", ("dtype 'int4'", "weights only")),
    (f"{E} --kv-dtype int4", ("kv-dtype 'int4'", "fp8")),
    (f"{E} --weights-dtype int3", ("weights-dtype 'int3'", "int4")),
    (f"{E} --dtype fp8", ("dtype", "'fp8'", "a100-80gb-sxm", "int8")),
    ("estimate llava-1.5-7b --gpu v100-sxm --text-tokens 1 --dtype bf16", ("bf16", "fp32, fp16")),
    # files
    (f"{E} -o {{tmp}}/no/out.json", ("output", "{tmp}/no/out.json", "no folder")),
    (f"{E} -o {{tmp}}", ("output", "not of a folder")),
    (f"{E} -o {{tmp}}/list.yaml/x", ("output", "folder")),
    ("roofline llava-1.5-7b --gpu a40 -o {tmp}/r.txt", ("output", "r.txt", ".html")),
    ("roofline llava-1.5-7b --gpu a40 -o {tmp}/no/r.html", ("output", "no folder")),
    ("estimate llava-1.5-7b --gpu {tmp}/none.yaml --text-tokens 1", ("none.yaml",)),
    ("estimate llava-1.5-7b --gpu {tmp}/list.yaml --text-tokens 1", ("list.yaml", "list")),
    ("estimate llava-1.5-7b --gpu {tmp}/extra.yaml --text-tokens 1", ("memori", "memory")),
    ("estimate llava-1.5-7b --gpu {tmp}/unit.yaml --text-tokens 1", ("tdp", "'GB'", "W")),
    ("estimate llava-1.5-7b --gpu {tmp}/broken.yaml --text-tokens 1", ("broken.yaml", "line")),
    ("estimate {tmp}/heads --gpu a40 --text-tokens 1", ("config.json", "heads", "4", "3")),
    ("estimate {tmp}/keys --gpu a40 --text-tokens 1", ("config.json", "model_type")),
    ("estimate {tmp}/broken.json --gpu a40 --text-tokens 1", ("broken.json", "line 1")),
    ("estimate {tmp}/array.json --gpu a40 --text-tokens 1", ("array.json", "object")),
    ("estimate {tmp}/family.json --gpu a40 --text-tokens 1", ("'frog'", "llava")),
    ("estimate {tmp}/empty --gpu a40 --text-tokens 1", ("empty", "config.json")),
]


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "list.yaml").write_text("- a\n- b\n")
    (folder / "extra.yaml").write_text("base: a40\nmemori: {capacity: {value: 1, unit: GB}}\n")
    (folder / "unit.yaml").write_text("base: a40\ntdp: {value: 1, unit: GB}\n")
    (folder / "broken.yaml").write_text("name: [unclosed\n")
    (folder / "broken.json").write_text('{"model_type": ')
    (folder / "array.json").write_text("[1, 2]")
    (folder / "family.json").write_text(json.dumps(LLAMA | {"model_type": "frog"}))
    (folder / "empty").mkdir()
    (folder / "keys").mkdir()
    (folder / "heads").mkdir()
    (folder / "heads" / "config.json").write_text(json.dumps(LLAMA | {"num_key_value_heads": 3}))
    lacking = {key: value for key, value in LLAMA.items() if key != "model_type"}
    (folder / "keys" / "config.json").write_text(json.dumps(lacking))
    return folder


def _refused(result: Result, words: tuple[str, ...]) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    missing = [word for word in words if word not in result.stderr]
    assert not missing, f"{missing} not in: {result.stderr}"


@pytest.mark.parametrize(("command", "words"), CASES, ids=[case[0][-60:] for case in CASES])
def test_one_clear_line(
    group: click.Group, tmp: Path, command: str, words: tuple[str, ...]
) -> None:
    arguments = [word.replace("{tmp}", str(tmp)) for word in command.split()]
    result = CliRunner().invoke(group, arguments, prog_name="costmodel")
    _refused(result, tuple(word.replace("{tmp}", str(tmp)) for word in words))


@pytest.mark.parametrize("value", ["", " ", "1 2", "9" * 5000])
def test_text_that_is_no_number(group: click.Group, value: str) -> None:
    result = CliRunner().invoke(group, [*E.split()[:-1], value], prog_name="costmodel")
    _refused(result, ("text-tokens", COUNT))


def test_an_image_without_a_place_to_write_is_not_computed(
    group: click.Group, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costmodel.estimation.estimate", lambda *_a, **_k: pytest.fail("ran"))
    result = CliRunner().invoke(group, [*E.split(), "-o", str(tmp / "no" / "x")])
    _refused(result, ("output",))


def test_images_of_figures_need_kaleido(
    group: click.Group, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["roofline", "llava-1.5-7b", "--gpu", "a40", "-o", str(tmp / "r.png")]
    _refused(CliRunner().invoke(group, words), ("output", "r.png", ".html", "kaleido"))


def test_a_bug_is_not_hidden(group: click.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("costmodel.estimation.estimate", fail)
    result = CliRunner().invoke(group, E.split())
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
        (OSError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_interruptions_are_quiet(
    group: click.Group,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    stderr: str,
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("costmodel.estimation.estimate", fail)
    result = CliRunner().invoke(group, E.split())
    assert result.exit_code == code
    assert result.stderr.lstrip("\n") == stderr
    assert "Traceback" not in result.output
    assert sys.stdout is not None
