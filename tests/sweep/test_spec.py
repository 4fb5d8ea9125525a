"""Specs: forms of axes, names, and what is wrong said in one line before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from costmodel.errors import InputError, SpecError
from costmodel.sweep import load_spec, running
from costmodel.sweep.axes import Between, parse_numbers

Run = Callable[..., Result]

GOOD: dict[str, Any] = {"model": "llava-1.5-7b", "gpu": "a40", "text_tokens": 16}


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (4, (4,)),
        (4.0, (4,)),
        ([8, 1, 8], (8, 1)),
        ({"range": [1, 7, 3]}, (1, 4, 7)),
        ({"range": [1, 6, 3]}, (1, 4)),
        ({"range": [5, 5, 1]}, (5,)),
        ({"log_range": [1, 64, 7]}, (1, 2, 4, 8, 16, 32, 64)),
        ({"log_range": [1, 4, 9]}, (1, 2, 3, 4)),
        ({"log_range": [3, 9, 1]}, (3,)),
        ({"between": [1, 9]}, Between(1, 9)),
        ({"log_between": [1, 9]}, Between(1, 9, log=True)),
    ],
)
def test_forms_of_an_axis(given: Any, values: Any) -> None:
    assert parse_numbers("batch", given, low=1, high=1000) == values


def test_shares_need_not_be_whole() -> None:
    found = parse_numbers("retention", {"range": [0.1, 0.3, 0.1]}, low=0, high=1, whole=False)
    assert found == (0.1, 0.2, 0.3)


def test_singular_and_plural_are_the_same() -> None:
    one = load_spec(GOOD | {"method": "none", "batch": 2, "image": "336x336"})
    many = load_spec(
        {"models": ["llava-1.5-7b"], "gpus": "a40", "text_tokens": [16], "methods": ["none"],
         "batches": [2], "images": ["336x336"]}
    )  # fmt: skip
    assert one == many
    assert one.digest == many.digest


def test_methods_may_be_texts_mappings_and_chains() -> None:
    spec = load_spec(
        GOOD | {"methods": ["none", {"cluster": {"iterations": 5}}, ["random:k=192", "cluster"]]}
    )
    assert spec.method == ("none", "cluster:iterations=5", "random:k=192 then cluster")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"text_token_": 3}, "unknown key 'text_token_', did you mean 'text_token'?"),
    ({"modle": "x"}, "unknown key 'modle', did you mean 'model'?"),
    ({"models": "llava-1.5-13b"}, "'model' is given twice, as 'models' too"),
    ({"model": "lava-1.5-7b"}, "unknown model 'lava-1.5-7b'. Did you mean llava-1.5-7b?"),
    ({"gpu": ["a40", "a400"]}, "unknown gpu 'a400'"),
    ({"gpu": []}, "gpu: [] is not valid; expected at least one value"),
    ({"gpu": None}, "missing key 'gpu'"),
    ({"method": "clutser"}, "unknown method 'clutser'. Did you mean cluster?"),
    ({"method": "cluster:kk=3"}, "unknown parameter of cluster 'kk'. Did you mean k?"),
    ({"method": 3}, "method: 3 is not valid; expected METHOD"),
    ({"runtime": "egaer"}, "unknown runtime 'egaer'. Did you mean eager?"),
    ({"dtype": "int4"}, "int4 is for weights only"),
    ({"time_model": "exact"}, "'exact'"),
    ({"image": 336}, "image: 336 is not valid; expected WIDTHxHEIGHT"),
    ({"image": "336"}, "image"),
    ({"tp": 0}, "tp: 0 is not valid; expected a whole number from 1 to 1,024"),
    ({"output_tokens": 1.5}, "output_tokens: 1.5 is not valid"),
    ({"batch": 0}, "batch: 0 is not valid; expected whole numbers from 1 to 1,000,000"),
    ({"batch": "4"}, "batch: '4' is not valid; expected a whole number"),
    ({"batch": True}, "batch: True is not valid"),
    ({"batch": []}, "batch: [] is not valid; expected at least one of the whole numbers"),
    ({"batch": {"range": [1, 2]}}, "batch range: [1, 2] is not valid; expected [start, stop,"),
    ({"batch": {"range": [4, 1, 1]}}, "that does not go down"),
    ({"batch": {"range": [1, 4, 0]}}, "with a step above 0"),
    ({"batch": {"rnage": [1, 4, 1]}}, "expected 'range'? a number, a list of numbers, {range:"),
    ({"batch": {"log_range": [0, 4, 2]}}, "that begins above 0"),
    ({"batch": {"log_range": [1, 4, 2.5]}}, "with a whole count above 0"),
    ({"batch": {"range": [1, 2, 1], "log_range": [1, 2, 2]}}, "batch"),
    ({"text_tokens": {"range": [1, 99999999, 1]}}, "at most 10,000,000 values on one axis"),
    ({"text_tokens": {"between": [1, 9]}}, "text_tokens has bounds; add sample"),
    ({"sample": {"latin_hypercube": 9}}, "sample needs an axis given as {between: [low, high]}"),
    ({"sample": {"latin": 9}}, "unknown key 'sample.latin'"),
    ({"retention": 0}, "retention: 0 is not valid; expected numbers from 1e-09 to 1.0"),
    ({"retention": 30}, "retention: 30 is not valid"),
    ({"retention": 0.5, "visual_tokens_kept": 3}, "give retention or visual_tokens_kept, not both"),
    ({"image": "336x336", "visual_tokens": 3}, "give images or visual_tokens, not both"),
    ({"outputs": ["ttft"]}, "unknown output 'ttft'. Did you mean ttft_s?"),
    ({"bands": "yes"}, "bands: 'yes' is not valid; expected true or false"),
    ({"precision": "float16"}, "precision"),
    ({"method": "cluster"}, "compress cluster: give exactly one of k and retention"),
    ({"method": "avgpool", "visual_tokens_kept": 100}, "a count avgpool can reach: 1, 4, 9"),
    ({"bands": True, "time_model": "ideal"}, "bands 'ideal'; expected a time model that has them"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_specs_are_one_line_before_any_work(
    change: dict[str, Any], message: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    result = run("sweep", str(path), "-o", str(tmp_path / "out.parquet"))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["spec.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "no valid YAML"),
        ("- a", "expected a mapping of keys, got list"),
        ("", "expected a mapping of keys, got NoneType"),
    ],
)
def test_bad_files(text: str, message: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    result = run("sweep", str(path), "-o", str(tmp_path / "out.csv"))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


def test_library_refuses_a_grid_beyond_its_limit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 3"):
        running.run_sweep(GOOD | {"batch": [1, 2, 3, 4]}, tmp_path / "out.csv", limit=3)
    assert not list(tmp_path.iterdir())


def test_parquet_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"\.csv; parquet needs pyarrow"):
        running.run_sweep(GOOD, tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())
    running.run_sweep(GOOD, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").is_file()


def test_latin_hypercube_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    spec = GOOD | {"sample": {"latin_hypercube": 3, "seed": 77}, "batch": {"between": [1, 9]}}
    with pytest.raises(SpecError, match=r"costmodel\[fit\]"):
        running.prepare_sweep(spec)
