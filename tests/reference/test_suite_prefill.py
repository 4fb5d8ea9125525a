"""Suite prefill: requests, models and rows that the cost model reads."""

from __future__ import annotations

import io
import json
import math
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from costmodel import estimate
from costmodel.calibration.judging import validate_timings
from costmodel.calibration.loading import load_timings
from costmodel.calibration.schema import KINDS
from costmodel.calibration.user import calibrate
from costmodel.calibration.whole_models import STAGE_PARTS
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.families import read_config
from costmodel.catalog.hardware import load_gpu
from costmodel.reference.harness.case import Case, Options
from costmodel.reference.harness.inputs import Inputs, Pool, Rotation
from costmodel.reference.harness.measuring import measure
from costmodel.reference.harness.registry import load_suite
from costmodel.reference.harness.request import Request as Asked
from costmodel.reference.harness.store import WHERE
from costmodel.reference.models.shapes import ModelShape, load_shape
from costmodel.reference.suites import _requests
from costmodel.reference.suites._compressors import compressor
from costmodel.reference.suites._config import config_json
from costmodel.reference.suites._requests import TEXT, Request, fitting_models, requests_of, split

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
pytest.importorskip("transformers", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

OPTIONS = {
    "quick": Options(quick=True, dtypes=("fp32", "bf16")),
    "cpu": Options(),
    "cuda": Options(device="cuda", dtypes=("bf16",)),
    "quick-cuda": Options(device="cuda", dtypes=("fp16",), quick=True),
    "chosen": Options(models=("llava-tiny", "qwen2.5-7b@1layers"), tokens=(7, 300), quick=True),
}
TINY = load_shape("llava-tiny")


def cases_of(options: Options) -> list[Case]:
    return list(load_suite("prefill").cases(options))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all quick rows of the suite and what makes a profile of the CPU."""
    folder = tmp_path_factory.mktemp("measured")
    for suites, tokens in ((("gemm", "memory_bound"), (16, 64, 128)), (("prefill",), ())):
        done = measure(
            Asked(folder, suites=suites, quick=True, threads=1, tokens=tokens), io.StringIO()
        )
        assert done.outcome.failed == 0, done.lines()
    return folder


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cases_have_the_columns_of_the_schema(options: Options) -> None:
    cases = cases_of(options)
    keys = [tuple(sorted(case.key.items())) for case in cases]
    kind = KINDS["whole_model"]
    needed = {column.name for column in kind.columns if column.needed and column.key}
    for case in cases:
        assert case.kind == kind.name
        assert needed - set(WHERE) <= set(case.key) <= set(kind.key)
        assert case.key["stage"] in STAGE_PARTS
    assert len(set(keys)) >= 0.9 * len(keys)
    assert {case.dtype for case in cases} == set(options.dtypes)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cases_of_a_model_stay_together(options: Options) -> None:
    models = [
        (case.dtype, case.key["model"], case.key["runtime"] == "eager")
        for case in cases_of(options)
    ]
    blocks = [model for model, _ in groupby(models)]
    assert len(blocks) == len(set(blocks))
    assert load_suite("prefill").ordered


def test_a_gpu_is_measured_from_40_to_4096_tokens_in_all_runtimes() -> None:
    cases = cases_of(OPTIONS["cuda"])
    assert {case.key["model"] for case in cases} == {"llava-1.5-7b", "llava-1.5-13b"}
    for runtime in ("eager", "compiled", "cuda-graph"):
        own = [c for c in cases if c.key["runtime"] == runtime and c.key["batch"] == 1]
        for stage in ("ttft", "llm", "tpot"):
            prompts = {int(c.notes["prompt_tokens"]) for c in own if c.key["stage"] == stage}
            assert {40, 128, 640, 1024, 4096} <= prompts
        assert any(c.key["stage"] == "vision" for c in own)


def test_few_shapes_are_compiled() -> None:
    requests = requests_of(load_shape("llava-1.5-7b"), OPTIONS["cuda"])
    compiled = {(r.batch, r.text, r.kept) for r in requests if r.code == "compiled"}
    assert len(compiled) <= 9
    assert {r.code for r in requests_of(TINY, OPTIONS["quick"])} == {"eager"}


@pytest.mark.parametrize("visual", [0, 64, 576])
def test_prompts_are_split(visual: int) -> None:
    for prompt in range(2, 5000, 7):
        text, kept = split(prompt, visual)
        assert text + kept == prompt
        assert text >= 1
        assert 0 <= kept <= visual
        assert bool(kept) == bool(visual)
    if visual:
        assert split(visual + TEXT, visual) == (TEXT, visual)


def test_models_are_cut_to_the_memory_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(memory_bytes: float) -> list[str]:
        monkeypatch.setattr(_requests, "_memory_bytes", lambda device: memory_bytes)
        return [shape.name for shape in fitting_models(OPTIONS["cuda"], "bf16")]

    assert names(80e9) == ["llava-1.5-7b", "llava-1.5-13b"]
    small, smaller = names(12e9), names(2e9)
    assert [name.partition("@")[0] for name in small] == ["llava-1.5-7b", "llava-1.5-13b"]
    assert all(name.endswith("layers") for name in small)
    assert smaller == []


MODELS = ("llava-tiny", "llava-small", "llava-1.5-7b@4layers", "llama-3-8b@2layers", "qwen2.5-7b")


@pytest.mark.parametrize("name", MODELS)
def test_config_says_what_torch_builds(name: str) -> None:
    from costmodel.reference.models.eager import build_eager

    shape = load_shape(name)
    model = build_eager(shape, device="meta")
    spec = read_config(json.loads(config_json(shape)), None, name)
    found = estimate(spec, "a100-80gb-sxm", text_tokens=8).params
    parts = {"llm": (model.decoder,), "lm_head": (model.head,)}
    if shape.vision is not None:
        parts |= {"vision_encoder": (model.vision,), "projector": (model.projector,)}
    for part, modules in parts.items():
        count = sum(weight.numel() for module in modules for weight in module.parameters())
        assert found[part] == count, part
    assert found["total"] == sum(weight.numel() for weight in model.parameters())


def test_a_config_holds_one_line_and_refuses_other_projectors() -> None:
    assert "\n" not in config_json(TINY)
    odd = ModelShape("odd", TINY.decoder, TINY.vision, (32, 128))
    with pytest.raises(ValueError, match="no llava model"):
        config_json(odd)


def test_rows_are_read_without_loss(measured: Path) -> None:
    profile = load_gpu(measured / "cpu.yaml")
    path = measured / "whole_model.parquet"
    (timings,), report = load_timings([path], gpu=measured / "cpu.yaml", profiles={"cpu": profile})
    wanted = {tuple(sorted(c.key.items())) for c in cases_of(Options(quick=True))}
    assert not report.problems
    assert len(timings) == len(wanted)
    assert set(timings.frame["stage"]) == {"ttft", "vision", "llm", "tpot"}
    assert timings.frame["memory_bytes"].isna().all()


def test_a_file_is_judged_by_a_profile_and_a_calibration_of_the_same_machine(
    measured: Path,
) -> None:
    files = [measured / name for name in ("gemm.parquet", "memory_bound.parquet")]
    own = calibrate(files, measured / "cpu.yaml")
    write_calibration(own.calibration, measured / "own.yaml")
    whole = measured / "whole_model.parquet"
    result = validate_timings([whole], gpu=measured / "cpu.yaml", calibration=measured / "own.yaml")
    groups = {group.stack.kind: group for group in result.groups}
    assert set(groups) == {"ttft eager", "vision eager", "llm eager", "tpot eager"}
    for group in groups.values():
        assert group.calibration == own.calibration.name
        assert group.same_stack
        points = group.points
        for name in ("predicted_s", "low_s", "high_s", "any_low_s", "any_high_s", "roofline_s"):
            assert points[name].between(1e-9, 10.0).all(), name
        assert (points["low_s"] <= points["high_s"]).all()
    timings, _ = load_timings([whole], gpu=measured / "cpu.yaml")
    assert sum(group.errors.n for group in groups.values()) == len(timings[0])
    plain = groups["ttft eager"].points
    assert set(plain[plain["compress"] == ""]["predicted_memory_bytes"] > 4 * TINY.parameters) == {
        True
    }


def prepared(case: Case) -> Any:
    made = case.prepare(Inputs(Pool("cpu"), case.dtype, Rotation(1 << 16, 1 << 24)))
    return lambda: made.run(0)


def one(stage: str, batch: int = 1, compress: str = "", text: int = TEXT) -> Case:
    """Return the only quick case of a request."""
    (case, *_) = [
        case
        for case in cases_of(Options(quick=True))
        if (case.key["stage"], case.key["batch"], case.key["compress"], case.key["text_tokens"])
        == (stage, batch, compress, text)
    ]
    return case


@pytest.mark.parametrize("batch", [1, 2])
def test_stages_do_the_work_of_the_whole(batch: int) -> None:
    from costmodel.reference.methods.counting import count_flops

    work = {stage: count_flops(prepared(one(stage, batch))) for stage in ("ttft", "vision", "llm")}
    assert work["ttft"] == work["vision"] + work["llm"]
    # One token instead of 128, and a head that runs on one token anyway.
    token = count_flops(prepared(one("tpot", batch)))
    head = 2 * batch * TINY.decoder.vocab * TINY.decoder.width
    assert (work["llm"] - head) == (token - head) * (TINY.visual_tokens + TEXT)


def test_work_is_what_the_cost_model_counts() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from costmodel.reference.methods.counting import count_flops

    for case in (one("ttft"), one("ttft", 2), one("ttft", 1, "random:k=16")):
        key = case.key
        spec = read_config(json.loads(str(key["config"])), None, "config")
        expected = estimate(
            spec, "a100-80gb-sxm", text_tokens=int(key["text_tokens"]), batch=int(key["batch"]),
            visual_tokens=64, compress=str(key["compress"]) or None, runtime="eager", dtype="fp32",
        )  # fmt: skip
        # Fused attention of a CPU is not counted, written-out attention is.
        with sdpa_kernel(SDPBackend.MATH):
            assert count_flops(prepared(case)) == expected.flops["total"]


@pytest.mark.parametrize("code", ["eager", "compiled"])
def test_methods_leave_the_tokens_that_a_row_says(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from costmodel.reference.models import runtimes
    from costmodel.reference.models.base import RunnableModel

    # The path of compiled code without half a minute of compiling.
    monkeypatch.setattr(runtimes, "_compiled", lambda run, backend: run)
    seen: list[tuple[int, int, int]] = []
    prefill = RunnableModel.prefill

    def spy(self: Any, image: Any, text: Any, cache: Any) -> Any:
        seen.append((len(text), text.shape[1], image.shape[1]))
        return prefill(self, image, text, cache)

    monkeypatch.setattr(RunnableModel, "prefill", spy)
    cases = cases_of(Options(quick=True))
    methods = {str(c.key["compress"]).partition(":")[0] for c in cases}
    assert methods == {"", "random", "spatial", "avgpool", "stf", "cluster"}
    for case in cases:
        request: Request = case.prepare.keywords["request"]  # type: ignore[attr-defined]
        if request.stage != "ttft":
            continue
        runtime = "eager" if code == "eager" else "compiled"
        changed = Request(
            runtime, "ttft", request.batch, request.text, request.kept, request.compress
        )
        keywords = {**case.prepare.keywords, "request": changed}  # type: ignore[attr-defined]
        made = case.prepare.func(  # type: ignore[attr-defined]
            Inputs(Pool("cpu"), "fp32", Rotation(1 << 16, 1 << 24)), **keywords
        )
        logits, pooled = made.run(0)
        assert tuple(logits.shape) == (request.batch, TINY.decoder.vocab)
        assert pooled is not None
        assert torch.isfinite(logits).all()
        assert seen[-1] == (request.batch, request.text, request.kept)
        if request.compress.startswith(("random", "spatial")):
            assert request.compress.endswith(f"k={request.kept}")
        if "window" in request.compress:
            window = int(request.compress.rpartition("=")[2])
            assert request.kept == (math.isqrt(TINY.visual_tokens) // window) ** 2


def test_transformers_makes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[Any] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(*given: Any, **named: Any) -> Any:
        masks.append(named.get("attn_mask"))
        return real(*given, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    for stage in ("ttft", "tpot"):
        run = prepared(one(stage))
        masks.clear()
        run()
        assert masks
        assert all(mask is None for mask in masks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tome:r=16", "compress: 'tome' is none of"),
        ("random:k=4,n=5", "random has no option 'n' here"),
    ],
)
def test_methods_that_do_not_fit_in(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compressor(text, TINY, "cpu", "fp32")
