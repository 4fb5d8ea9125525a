"""Physics that holds for every model, GPU, method and workload.

Ideal times only: measured kernel times may dip where a wave of thread blocks fills up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.catalog.hardware import list_gpus, load_gpu, load_host
from costmodel.catalog.models_io import list_models, load_model
from costmodel.errors import CostModelError, InputError
from costmodel.estimation import Case, Estimate, estimate_case, prepare
from costmodel.evaluation import Evaluation, evaluate
from costmodel.program import PHASES, Phase, Program
from costmodel.results import STAGES
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.quantity import Quantity
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.model import PassTimes, load_time_model

Array = npt.NDArray[np.float64]

# Rounding of a sum in another order; a real drop is far larger.
ROUNDING = 1e-12

VISION_MODELS = tuple(name for name in list_models() if load_model(name).vision is not None)
ANY_COUNT = (
    None,
    "random:retention=0.2",
    "spatial:retention=0.5",
    "cluster:retention=0.1",
    "cluster:retention=0.3,impl=fused,order=position",
    "cluster:retention=0.1,impl=sklearn,iterations=3",
    "saliency:retention=0.2,variant=projected",
    "saliency:retention=0.2,variant=layer,then=restart",
    "saliency:retention=0.2,variant=layer",
    "saliency-cluster:retention=0.2,rule=rest",
    "divprune:retention=0.1",
)
"""Methods that take whatever number of tokens there is."""
METHODS = (
    *ANY_COUNT,
    "random:retention=0.3,position=before_projector",
    "avgpool:window=1",
    "avgpool:window=2,position=before_projector",
    "stf",
    "mbtf",
    "mbtf+stf",
    "cdpruner:retention=0.1",
    ("random:retention=0.5", "cluster:retention=0.2"),
    ("divprune:retention=0.4", "saliency:retention=0.5,variant=layer"),
)


@dataclass(frozen=True)
class Question:
    """A drawn question; hashable, so that programs are built once."""

    model: str
    gpu: str
    compress: str | tuple[str, ...] | None
    options: tuple[tuple[str, Any], ...]

    def asking(self, **changes: Any) -> Question:
        return replace(self, options=tuple(sorted((dict(self.options) | changes).items())))


@lru_cache(maxsize=4096)
def case_of(question: Question) -> Case:
    options: dict[str, Any] = {"text_tokens": 64, "time_model": "ideal"} | dict(question.options)
    return prepare(question.model, question.gpu, compress=question.compress, **options)


@lru_cache(maxsize=4096)
def program_of(question: Question) -> Program:
    return case_of(question).program()[0]


@lru_cache(maxsize=4096)
def estimate_of(question: Question) -> Estimate:
    return estimate_case(case_of(question))


@lru_cache
def possible(model: str, compress: str | tuple[str, ...] | None, tp: int) -> bool:
    """Return whether the model takes the method and the devices."""
    try:
        program_of(Question(model, "a100-80gb-sxm", compress, (("tp", tp),)))
    except CostModelError:
        return False
    return True


@st.composite
def questions(
    draw: st.DrawFn,
    /,
    models: Sequence[str] = tuple(list_models()),
    methods: Sequence[str | tuple[str, ...] | None] = METHODS,
    **fixed: Any,
) -> Question:
    model, gpu = draw(st.sampled_from(models)), draw(st.sampled_from(list_gpus()))
    compress = draw(st.sampled_from([m for m in methods if possible(model, m, 1)]))
    have = set(load_gpu(gpu).dtypes())
    options: dict[str, Any] = {
        "dtype": draw(st.sampled_from([d for d in ("fp16", "fp32", "int8") if d in have])),
        "weights_dtype": draw(st.sampled_from(["fp16", "int8", "int4"])),
        "kv_dtype": draw(st.sampled_from(["fp16", "fp8", "int8"])),
        "runtime": draw(st.sampled_from(["eager", "cuda-graph"])),
        "attention": draw(st.sampled_from(["flash", "sdpa", "eager"])),
        "tp": draw(st.sampled_from([n for n in (1, 2, 4) if possible(model, None, n)])),
        "head_tokens": draw(st.sampled_from(["last", "all"])),
        "output_tokens": draw(st.sampled_from([0, 1, 50])),
        "batch": draw(st.sampled_from([1, 3])),
    }
    return Question(model, gpu, compress, ()).asking(**{**options, **fixed})


COUNTS = st.lists(st.integers(1, 100_000), min_size=2, max_size=12, unique=True).map(sorted)
FEW = settings(max_examples=40)


def device_of(question: Question, profile: HardwareProfile | None = None) -> Device:
    case = case_of(question)
    return resolve_device(profile or case.gpu, load_host(), case.deployment)


def times_of(
    question: Question, evaluation: Evaluation, profile: HardwareProfile | None = None
) -> PassTimes:
    device = device_of(question, profile)
    return load_time_model("ideal").times(evaluation, device, case_of(question).deployment)


def quantities(question: Question, evaluation: Evaluation) -> dict[str, Array]:
    """FLOPs, bytes and times of whole passes, per operator."""
    found = {
        "flops": evaluation.flops,
        "bytes": evaluation.bytes_moved,
        "time": times_of(question, evaluation).op_s,
    }
    return {name: values * evaluation.repeat for name, values in found.items()}


def never_falls(values: Array) -> bool:
    """Return whether rows do not decrease along the points."""
    before, after = values[..., :-1], values[..., 1:]
    return bool((after >= before * (1 - ROUNDING)).all())


def check_monotone(question: Question, phase: Phase, **swept: Sequence[int]) -> None:
    evaluation = evaluate(
        program_of(question), phase, **{name: np.array(row) for name, row in swept.items()}
    )
    for name, values in quantities(question, evaluation).items():
        assert never_falls(values), name
    assert never_falls(evaluation.live)


@pytest.mark.parametrize("phase", PHASES)
@given(question=questions(), texts=COUNTS)
@FEW
def test_more_text_never_costs_less(phase: Phase, question: Question, texts: list[int]) -> None:
    check_monotone(question, phase, T=texts)


@pytest.mark.parametrize("phase", PHASES)
@given(question=questions(), batches=COUNTS)
@FEW
def test_a_larger_batch_never_costs_less(
    phase: Phase, question: Question, batches: list[int]
) -> None:
    check_monotone(question, phase, b=batches)


@given(question=questions(), produced=COUNTS)
@FEW
def test_more_output_never_makes_a_step_cheaper(question: Question, produced: list[int]) -> None:
    check_monotone(question, "decode", o=produced)


@pytest.mark.parametrize("phase", PHASES)
@given(question=questions(methods=[None]), visual=COUNTS)
@FEW
def test_more_visual_tokens_in_the_prompt_never_cost_less(
    phase: Phase, question: Question, visual: list[int]
) -> None:
    check_monotone(question, phase, V=visual)


def totals(found: Estimate) -> dict[str, float]:
    numbers = {"flops": found.flops, "bytes": found.bytes_moved, "time": found.time_s}
    values = {f"{kind} {key}": value for kind, row in numbers.items() for key, value in row.items()}
    return values | {
        key: found.memory_bytes[key] for key in ("weights", "kv_cache", "activations_peak")
    }


def check_order(lesser: Estimate, greater: Estimate) -> None:
    smaller, larger = totals(lesser), totals(greater)
    for name, value in smaller.items():
        assert value <= larger[name] * (1 + ROUNDING), name


@given(
    question=questions(models=VISION_MODELS, methods=ANY_COUNT),
    counts=st.tuples(st.integers(1, 12_000), st.integers(0, 12_000)),
)
@FEW
def test_more_visual_tokens_never_cost_less(question: Question, counts: tuple[int, int]) -> None:
    few, more = counts[0], sum(counts)
    check_order(
        estimate_of(question.asking(visual_tokens=few)),
        estimate_of(question.asking(visual_tokens=more)),
    )


@given(question=questions(models=VISION_MODELS), data=st.data())
@FEW
def test_more_vision_layers_never_cost_less(question: Question, data: st.DataObject) -> None:
    vision = load_model(question.model).vision
    assert vision is not None
    pair = data.draw(st.lists(st.integers(1, vision.layers), min_size=2, max_size=2).map(sorted))
    check_order(*(estimate_of(question.asking(vision_layers=layers)) for layers in pair))


@given(
    question=questions(models=VISION_MODELS, methods=["random:k=1", "spatial:k=1", "cluster:k=1"]),
    data=st.data(),
)
@FEW
def test_fewer_kept_tokens_never_cost_more(question: Question, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.integers(1, 49), min_size=2, max_size=2).map(sorted))
    method = str(question.compress).partition(":")[0]
    few, more = (estimate_of(replace(question, compress=f"{method}:k={k}")) for k in kept)
    check_order(few, more)
    # Against no compression only the language model must gain.
    for numbers in ("flops", "bytes_moved", "time_s"):
        baseline = getattr(more.baseline, numbers)["llm_prefill"]
        assert getattr(more, numbers)["llm_prefill"] <= baseline * (1 + ROUNDING)
    assert more.baseline is not None
    assert more.memory_bytes["kv_cache"] <= more.baseline.memory_bytes["kv_cache"]


@given(question=questions(), wide=st.sampled_from(["fp32", "fp16"]))
@FEW
def test_a_smaller_cache_format_never_moves_or_keeps_more(question: Question, wide: str) -> None:
    narrow, other = (
        estimate_of(question.asking(kv_dtype=kind)) for kind in ("fp8", wide)
    )  # fmt: skip
    check_order(narrow, other)
    assert narrow.flops == other.flops
    assert narrow.memory_bytes["kv_cache"] < other.memory_bytes["kv_cache"]


@pytest.mark.parametrize("phase", PHASES)
@given(question=questions(), texts=COUNTS)
@FEW
def test_ideal_is_never_under_either_roof(
    phase: Phase, question: Question, texts: list[int]
) -> None:
    evaluation = evaluate(program_of(question), phase, T=np.array(texts))
    profile, device = load_gpu(question.gpu), device_of(question)
    op_s = times_of(question, evaluation).op_s
    assert np.isfinite(op_s).all()
    assert (op_s >= 0).all()
    moved = evaluation.bytes_moved
    # The fastest rate the chip has in any format the deployment may use, whatever the operator.
    fastest = max(peak.si for peak in profile.peaks)
    for row, op in enumerate(evaluation.ops):
        if op.kind == "host":
            sent = evaluation.shapes[row]["link_bytes"]
            own = moved[row] if not sent.any() else np.zeros(1)
            assert (op_s[row] >= evaluation.flops[row] / device.host_flops_per_s).all()
            assert (op_s[row] >= own / device.host_bandwidth_bytes_per_s).all()
            assert (op_s[row] >= sent / device.host_link_bytes_per_s).all()
            continue
        allowed = (
            max(device.linear_flops_per_s, device.matmul_flops_per_s)
            if op.matmul
            else device.vector_flops_per_s
        )
        assert allowed <= fastest
        slack = 1 + ROUNDING
        assert (op_s[row] * slack >= evaluation.flops[row] / allowed).all(), op.name
        assert (op_s[row] * slack >= moved[row] / profile.bandwidth_bytes_per_s).all(), op.name
        if op.kind == "collective":
            sent = evaluation.shapes[row]["link_bytes"]
            assert (op_s[row] * slack >= sent / profile.link_bytes_per_s).all()


@given(question=questions())
@FEW
def test_a_whole_pass_never_exceeds_the_peak_or_the_bandwidth(question: Question) -> None:
    found, profile = estimate_of(question), load_gpu(question.gpu)
    device = device_of(question)
    on_gpu = [op for op in found.ops if op.kind != "host"]
    flops = sum(op.flops for op in on_gpu if op.counted)
    moved = sum(sum(op.bytes.values()) for op in on_gpu)
    fastest = max(device.linear_flops_per_s, device.matmul_flops_per_s)
    assert flops / found.time_s["ttft"] <= fastest
    assert moved / found.time_s["ttft"] <= profile.bandwidth_bytes_per_s * (1 + ROUNDING)
    # A decode step reads the language model's weights at least once.
    weights = sum(op.bytes["weights"] for op in found.ops_decode)
    assert found.time_s["tpot"] >= weights / profile.bandwidth_bytes_per_s


def times(quantity: Quantity, factor: float) -> Quantity:
    return quantity.model_copy(update={"value": quantity.value * factor})


def doubled(profile: HardwareProfile, *, bandwidth: bool, peaks: bool) -> HardwareProfile:
    memory = profile.memory
    if bandwidth:
        memory = memory.model_copy(update={"bandwidth": times(memory.bandwidth, 2)})
    rates = tuple(times(peak, 2) for peak in profile.peaks) if peaks else profile.peaks
    return profile.model_copy(update={"memory": memory, "peaks": rates})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("bandwidth", "peaks"), [(True, False), (False, True), (True, True)])
@given(question=questions(), texts=COUNTS)
@settings(max_examples=20)
def test_a_device_twice_as_good_is_never_slower(
    phase: Phase, bandwidth: bool, peaks: bool, question: Question, texts: list[int]
) -> None:
    evaluation = evaluate(program_of(question), phase, T=np.array(texts))
    profile = load_gpu(question.gpu)
    better = doubled(profile, bandwidth=bandwidth, peaks=peaks)
    before, after = (
        times_of(question, evaluation, device).op_s for device in (profile, better)
    )  # fmt: skip
    assert (after <= before).all()
    assert (after * 2 >= before * (1 - ROUNDING)).all()
    if bandwidth and peaks:
        own = [op.kind not in ("host", "collective") for op in evaluation.ops]
        np.testing.assert_allclose(after[own] * 2, before[own], rtol=ROUNDING)


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-30)


@given(question=questions())
@FEW
def test_operators_sum_to_stages_and_stages_to_totals(question: Question) -> None:
    found = estimate_of(question)
    columns: dict[str, tuple[dict[str, float], Callable[[Any], float]]] = {
        "flops": (found.flops, lambda op: op.flops if op.counted else 0.0),
        "bytes": (found.bytes_moved, lambda op: sum(op.bytes.values())),
        "time": (found.time_s, lambda op: op.time_s),
    }
    assert {op.stage for op in found.ops} <= set(STAGES)
    for name, (stages, value) in columns.items():
        for stage in STAGES:
            expected = sum(value(op) for op in found.ops if op.stage == stage)
            assert stages[stage] == close(expected), (name, stage)
    for stages in (found.flops, found.bytes_moved):
        assert stages["total"] == close(sum(stages[stage] for stage in STAGES))
        language = stages["llm_linear"] + stages["llm_attention"]
        assert stages["llm_prefill"] == close(language)
    spent = sum(found.time_s[stage] for stage in STAGES)
    assert found.time_s["ttft"] == close(spent + found.time_s["host_overhead"])
    assert found.time_s["tpot"] == close(sum(op.time_s for op in found.ops_decode))
    memory = found.memory_bytes
    parts = memory["weights"], memory["kv_cache"], memory["activations_peak"]
    if found.inputs["runtime"] == "eager":
        # A cache that grows is not there yet while images are encoded.
        assert parts[0] + max(parts[1:]) <= memory["total"] * (1 + ROUNDING)
        assert memory["total"] <= sum(parts) * (1 + ROUNDING)
    else:
        assert memory["total"] == close(sum(parts))
    assert memory["kv_cache"] == close(sum(row["bytes"] for row in memory["kv_cache_groups"]))
    assert found.params["total"] == sum(found.params[key] for key in found.params if key != "total")


@given(question=questions())
@FEW
def test_an_estimate_holds_what_memory_says(question: Question) -> None:
    memory = estimate_of(question).memory_bytes
    batch = dict(question.options)["batch"]
    assert memory["fits"] is (memory["largest_batch"] >= batch)
    assert memory["fits"] is (memory["missing"] == 0)
    assert memory["missing"] == max(memory["total"] - memory["device"], 0)


@pytest.mark.parametrize("phase", PHASES)
@given(
    question=questions(),
    points=st.lists(
        st.tuples(st.integers(1, 10**7), st.integers(1, 10**5)), min_size=1, max_size=4
    ),
)
@FEW
def test_scalar_and_vectorised_agree(
    phase: Phase, question: Question, points: list[tuple[int, int]]
) -> None:
    texts, batches = (np.array(row) for row in zip(*points, strict=True))
    found = program_of(question)
    together = evaluate(found, phase, T=texts, b=batches)
    for index, (text, batch) in enumerate(points):
        alone = evaluate(found, phase, T=text, b=batch)
        pairs = zip(
            quantities(question, together).values(),
            quantities(question, alone).values(),
            strict=True,
        )
        for many, one in pairs:
            np.testing.assert_array_equal(many[:, index], one)


@given(question=questions(methods=ANY_COUNT, runtime="cuda-graph"))
@settings(max_examples=20)
def test_more_devices_never_compute_or_keep_more_each(question: Question) -> None:
    counts = [n for n in (1, 2, 4, 8) if possible(question.model, None, n)]
    assume(len(counts) > 1)
    found = [estimate_of(question.asking(tp=n)) for n in counts]
    for one, many in pairwise(found):
        for key in ("llm_prefill", "lm_head", "total"):
            assert many.flops[key] <= one.flops[key]
        for key in ("weights", "kv_cache"):
            assert many.memory_bytes[key] <= one.memory_bytes[key]
        assert many.params == one.params


@given(model=st.sampled_from(list_models()), tp=st.integers(1, 200))
def test_devices_that_do_not_divide_are_refused_with_choices_that_work(model: str, tp: int) -> None:
    question = Question(model, "a100-80gb-sxm", None, (("tp", tp),))
    try:
        program_of(question)
    except InputError as error:
        choices = [int(part) for part in error.expected.rpartition(": ")[2].split(", ")]
        assert tp not in choices
        assert all(possible(model, None, choice) for choice in choices)
