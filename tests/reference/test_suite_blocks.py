"""Suite blocks: one layer, as a model of one layer that the cost model reads."""

from __future__ import annotations

import gc
import io
import json
import weakref
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from costmodel import estimate
from costmodel.calibration.judging import validate_timings
from costmodel.calibration.schema import KINDS
from costmodel.catalog.families import read_config
from costmodel.reference.harness.case import Case, Options
from costmodel.reference.harness.inputs import Inputs, Pool, Rotation
from costmodel.reference.harness.measuring import measure
from costmodel.reference.harness.registry import load_suite
from costmodel.reference.harness.request import Request
from costmodel.reference.harness.store import WHERE
from costmodel.reference.suites._held import Held

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
pytest.importorskip("transformers", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

OPTIONS = {
    "quick": Options(quick=True, dtypes=("fp32", "bf16")),
    "cpu": Options(),
    "cuda": Options(device="cuda", dtypes=("fp16",)),
    "chosen": Options(models=("llama-3-8b", "llava-tiny"), tokens=(7, 36), quick=True),
}


def cases_of(options: Options) -> list[Case]:
    return list(load_suite("blocks").cases(options))


def made_from(case: Case, rotation: Rotation | None = None) -> Any:
    rotation = rotation or Rotation(1 << 16, 1 << 24)
    return case.prepare(Inputs(Pool("cpu"), case.dtype, rotation))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cases_have_the_columns_of_the_schema(options: Options) -> None:
    cases = cases_of(options)
    kind = KINDS["whole_model"]
    needed = {column.name for column in kind.columns if column.needed and column.key}
    for case in cases:
        assert needed - set(WHERE) <= set(case.key) <= set(kind.key)
        assert case.key["stage"] in ("llm_prefill", "vision_encoder")
    keys = [tuple(sorted(case.key.items())) for case in cases]
    assert len(set(keys)) == len(keys)
    shared = [(c.dtype, c.key["config"], c.key["runtime"]) for c in cases]
    runs = [key for key, _ in groupby(shared)]
    assert len(runs) == len(set(runs))


def test_token_counts_can_be_chosen() -> None:
    cases = cases_of(OPTIONS["chosen"])
    decoder = [c for c in cases if c.key["stage"] == "llm_prefill"]
    vision = [c for c in cases if c.key["stage"] == "vision_encoder"]
    assert {c.key["text_tokens"] for c in decoder} == {7, 36}
    assert {c.key["visual_tokens"] for c in vision} == {36}
    assert {str(c.key["model"]) for c in vision} == {"llava-tiny@vision-layer"}


@pytest.mark.parametrize("case", cases_of(Options(quick=True)), ids=lambda case: case.label[-90:])
def test_work_is_what_the_cost_model_counts(case: Case) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from costmodel.reference.methods.counting import count_flops

    key = case.key
    spec = read_config(json.loads(str(key["config"])), None, "config")
    options: dict[str, Any] = {"visual_tokens": key["visual_tokens"]} if spec.vision else {}
    expected = estimate(
        spec, "a100-80gb-sxm", text_tokens=int(key["text_tokens"]), batch=int(key["batch"]),
        runtime="eager", dtype="fp32", **options,
    )  # fmt: skip
    runnable = made_from(case)
    # Fused attention of a CPU is not counted, written-out attention is.
    with sdpa_kernel(SDPBackend.MATH):
        assert count_flops(lambda: runnable.run(0)) == expected.flops[str(key["stage"])]


def test_weights_go_round_more_than_the_cache() -> None:
    case = cases_of(Options(quick=True))[0]
    rotation = Rotation(1 << 20, 1 << 30)
    runnable = made_from(case, rotation)
    assert runnable.sets > 1
    assert rotation.exceeds_cache(runnable.rotation_bytes)
    outputs = [runnable.run(number) for number in range(runnable.sets + 1)]
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[-1])


def test_held_models_are_freed_before_the_next() -> None:
    held = Held()
    alive: list[weakref.ref[Any]] = []

    def make() -> Any:
        # What was made before is gone by the time something new is made.
        gc.collect()
        assert not alive or alive[-1]() is None
        made = torch.nn.Linear(4, 4)
        alive.append(weakref.ref(made))
        return made

    first = held.get(("a",), make)
    assert held.get(("a",), make) is first
    assert len(alive) == 1
    del first
    held.get(("b",), make)
    held.drop()
    gc.collect()
    assert [one() for one in alive] == [None, None]


# torch imports a module of its own that warns.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_layers_compute_the_same_and_are_freed() -> None:
    from costmodel.reference.models.runtimes import build
    from costmodel.reference.models.shapes import load_shape
    from costmodel.reference.suites import _requests, blocks

    if not _requests.compiles():
        pytest.skip("no C++ compiler")
    shape = blocks.decoder_layer(load_shape("llava-tiny"))
    held = Held()
    block = blocks.Block(shape, "compiled", 1, 16)
    with torch.inference_mode():
        inputs = Inputs(Pool("cpu"), "fp32", Rotation(1 << 18, 1 << 24))
        runnable = blocks._prepare(inputs, block, held)
        assert runnable.graph
        kept: Any = held.get((shape, "compiled", "cpu", "fp32"), lambda: pytest.fail("made anew"))
        models, call = kept
        assert len(models) == runnable.sets > 1
        ids = torch.arange(16)[None]
        for seed, model in enumerate(models[:2]):
            plain = build(shape, "compiled", seed=seed)
            expected = blocks._fused(plain, ids, plain.new_cache(1, 16))
            assert torch.allclose(call(model, ids, model.new_cache(1, 16)), expected, atol=1e-4)
    weights = [weakref.ref(one) for model in models for one in model.parameters()]
    del models, model, call, runnable, kept
    held.drop()
    gc.collect()
    assert [one for one in weights if one() is not None] == []


def test_rows_are_measured_and_judged(tmp_path: Path) -> None:
    for suites, tokens in ((("gemm", "memory_bound"), (64,)), (("blocks",), ())):
        done = measure(
            Request(tmp_path, suites=suites, quick=True, threads=1, tokens=tokens), io.StringIO()
        )
        assert done.outcome.failed == 0, done.lines()
    result = validate_timings([tmp_path / "whole_model.parquet"], gpu=tmp_path / "cpu.yaml")
    assert not result.problems
    groups = {group.stack.kind: group.errors.n for group in result.groups}
    assert groups == {"llm_prefill eager": 4, "vision_encoder eager": 4}
