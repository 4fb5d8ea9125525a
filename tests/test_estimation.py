"""The facade: names looked up, options passed on, results wired together."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import pytest

import costmodel
from costmodel.catalog.hardware import load_gpu
from costmodel.catalog.models_io import load_model
from costmodel.compression.method import parse
from costmodel.errors import (
    CostModelError,
    InputError,
    UnknownNameError,
    UnsupportedError,
)
from costmodel.estimation import (
    Estimate,
    Failure,
    compare,
    estimate,
    prepare,
)
from costmodel.memory import largest_batch
from costmodel.results import STAGES

CLUSTER = "cluster:k=64"


@lru_cache
def result(model: str = "llava-1.5-7b", gpu: str = "a100-80gb-sxm", **options: Any) -> Estimate:
    return estimate(model, gpu, **{"text_tokens": 64, "time_model": "ideal", **options})


def test_names_and_specs_give_the_same() -> None:
    named = result(compress=CLUSTER)
    by_spec = estimate(
        load_model("llava-1.5-7b"), load_gpu("a100-80gb-sxm"), text_tokens=64,
        compress=parse(CLUSTER), time_model="ideal",
    )  # fmt: skip
    assert by_spec == named


def test_aliases_are_resolved() -> None:
    found = result("liuhaotian/llava-v1.5-7b", "A100-SXM4-80GB")
    assert found.inputs["model"] == "llava-1.5-7b"
    assert found.inputs["gpu"] == "a100-80gb-sxm"
    assert found.time_s == result().time_s


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llava-1.5-8b"}, "Did you mean llava-1.5-7b"),
        ({"gpu": "a100-80g-sxm"}, "Did you mean a100-80gb-sxm"),
        ({"compress": "clutser:k=3"}, "Did you mean cluster"),
        ({"time_model": "ideel"}, "Did you mean ideal"),
        ({"dtype": "fp61"}, "unknown dtype 'fp61'"),
        ({"dtype": "int4"}, "int4 is for weights only"),
        ({"weights_dtype": "int5"}, "unknown weights-dtype 'int5'"),
        ({"kv_dtype": "int4"}, "unknown kv-dtype 'int4'"),
        ({"runtime": "graph"}, "Did you mean cuda-graph"),
        ({"attention": "flas"}, "Did you mean flash"),
        ({"head_tokens": "first"}, "unknown head-tokens 'first'. Known: all, last"),
    ],
)
def test_unknown_names(changes: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"model": "llava-1.5-7b", "gpu": "a100", "text_tokens": 64} | changes
    with pytest.raises(UnknownNameError, match=message):
        estimate(**asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_tokens": 0}, "text-tokens: 0 is not valid; expected a whole number from 1"),
        ({"text_tokens": 10**9}, "text-tokens: 1000000000 .* to 100,000,000"),
        ({"batch": 0}, "batch: 0 .* from 1 to 1,000,000"),
        ({"batch": 2.0}, r"batch: 2\.0 .*whole number"),
        ({"batch": True}, "batch: True .*whole number"),
        ({"output_tokens": -1}, "output-tokens: -1 .* from 0"),
        ({"visual_tokens": -1}, "visual-tokens: -1 .* from 0"),
        ({"tp": "2"}, "tp: '2' .*whole number"),
        ({"tp": 3}, "tp: 3 .*divides"),
        ({"vision_layers": 25}, "vision-layers: 25 .* from 1 to 24"),
        ({"vision_layers": 0}, "vision-layers: 0 "),
        ({"vision_layers": 2.5}, r"vision-layers: 2\.5 "),
        ({"images": ["big"]}, "image: 'big' .*WIDTHxHEIGHT"),
        ({"images": ["0x336"]}, "image: '0x336'"),
        ({"videos": ["336x336x8"]}, "video: '336x336x8' .*images only"),
        ({"visual_tokens": 5, "images": ["336x336"]}, "either --visual-tokens or --image"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"model": "llava-1.5-7b", "gpu": "a100", "text_tokens": 64} | changes
    with pytest.raises(InputError, match=message):
        estimate(**asked)


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="foo"):
        estimate("llava-1.5-7b", "a100", text_tokens=64, foo=1)


def test_results_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        result().notes = ()  # type: ignore[misc]


def test_public_names_lead_here() -> None:
    assert costmodel.estimate is estimate
    assert costmodel.compare is compare
    assert costmodel.prepare is prepare
    assert costmodel.CostModelError is CostModelError
    assert costmodel.largest_batch is largest_batch


def test_options_are_reported() -> None:
    found = result(
        batch=2, output_tokens=5, dtype="fp16", weights_dtype="int8", kv_dtype="fp8",
        runtime="eager", attention="sdpa", tp=2, vision_layers=23, head_tokens="all",
        compress=CLUSTER, images=("336x336", "640x480"),
    )  # fmt: skip
    expected = {
        "batch": 2, "output_tokens": 5, "text_tokens": 64, "dtype": "fp16",
        "weights_dtype": "int8", "kv_dtype": "fp8", "runtime": "eager", "attention": "sdpa",
        "tp": 2, "vision_layers": 23, "head_tokens": "all", "compress": CLUSTER,
        "images": ["336x336", "640x480"], "videos": [], "visual_tokens": None,
        "time_model": "ideal", "model": "llava-1.5-7b", "gpu": "a100-80gb-sxm",
    }  # fmt: skip
    assert {key: found.inputs[key] for key in expected} == expected
    assert found.inputs["compress_params"]["k"] == 64
    assert found.inputs["compress_params"]["iterations"] == 10


def test_formats_follow_the_activations() -> None:
    found = result(dtype="bf16")
    assert (found.inputs["weights_dtype"], found.inputs["kv_dtype"]) == ("bf16", "bf16")


def test_a_batch_multiplies_work_but_not_weights() -> None:
    one, four = result(), result(batch=4)
    assert four.flops["llm_prefill"] == 4 * one.flops["llm_prefill"]
    assert four.memory_bytes["kv_cache"] == 4 * one.memory_bytes["kv_cache"]
    assert four.memory_bytes["weights"] == one.memory_bytes["weights"]
    assert four.tokens == one.tokens


def test_the_default_image_is_the_models() -> None:
    default = result("llava-next-vicuna-7b")
    assert default.inputs["images"] == ["672x672"]
    given = result("llava-next-vicuna-7b", images=("672x672",))
    assert default.tokens == given.tokens
    # FACTS 3: 672x672 is 2928 tokens, newlines included, in 5 tiles.
    assert default.tokens["visual_in"] == 2928
    assert default.tokens["vision_sequences"] == 5


def test_images_as_text_or_pairs() -> None:
    assert result(images=("640x480",)) == result(images=((640, 480),))


def test_equal_images_are_grouped() -> None:
    sizes = ("672x672", "336x336", "672x672")
    case = prepare("llava-next-vicuna-7b", "a100", text_tokens=64, images=sizes)
    assert [group.units for group in case.images] == [2, 1]
    assert case.layout is not None
    assert case.layout.tokens == 2 * 2928 + 1176


def test_videos() -> None:
    found = result("qwen2-vl-7b", videos=("336x336x8",))
    # FORMATS: 336x336 is 144 tokens; two frames share a patch, so four times that.
    assert found.inputs["videos"] == ["336x336x8"]
    assert found.tokens["visual_features"] == 4 * 144
    assert result("qwen2-vl-7b", videos=((336, 336, 8),)) == found


def test_visual_tokens_instead_of_images() -> None:
    found = result(visual_tokens=100)
    assert found.tokens["visual_in"] == found.tokens["visual_kept"] == 100
    assert found.tokens["prefill"] == 164
    assert found.inputs["images"] == []


def test_no_visual_tokens() -> None:
    found = result(visual_tokens=0)
    assert found.tokens["visual_in"] == 0
    for stage in ("vision_encoder", "projector", "compression"):
        assert found.flops[stage] == found.time_s[stage] == 0
    # FORMATS: 0.831 TFLOP for 64 text tokens; the tower is loaded nevertheless.
    assert round(found.flops["llm_prefill"] / 1e12, 3) == 0.831
    assert found.params == result().params
    with pytest.raises(UnsupportedError, match=r"compress.* has no visual tokens here"):
        result(visual_tokens=0, compress=CLUSTER)


def test_a_text_only_model() -> None:
    found = result("llama-2-7b")
    assert found.tokens["visual_in"] == 0
    assert found.params["vision_encoder"] == 0
    assert found.inputs["vision_layers"] == 0
    assert found.inputs["images"] == []
    assert {op.stage for op in found.ops} == {"llm_prefill", "lm_head"}
    assert "merge_visual" not in {op.name for op in found.ops}
    assert result("llama-2-7b", visual_tokens=0).flops == found.flops


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ("336x336",)}, "image: '336x336' .*text-only"),
        ({"videos": ("336x336x8",)}, "video: '336x336x8' .*text-only"),
        ({"visual_tokens": 5}, "visual-tokens: 5 .*text-only"),
        ({"vision_layers": 5}, "vision-layers: 5 .*no vision tower"),
        ({"compress": CLUSTER}, "compress: .*llama-2-7b has no visual tokens"),
    ],
)
def test_visual_options_of_a_text_only_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        result("llama-2-7b", **options)


def test_a_baseline_is_its_own() -> None:
    for found in (result(), result(compress="none")):
        assert found.baseline is not None
        assert found.baseline.baseline is None
        assert found.baseline.time_s == found.time_s
        for name, value in found.savings.items():
            assert value == (1 if name.endswith("_ratio") else 0), name


def test_none_is_no_compression() -> None:
    named, plain = result(compress="none"), result()
    assert (named.flops, named.time_s, named.memory_bytes, named.tokens) == (
        plain.flops, plain.time_s, plain.memory_bytes, plain.tokens,
    )  # fmt: skip


def test_savings_against_the_same_question_without_compression() -> None:
    found, plain = result(compress=CLUSTER, batch=2), result(batch=2)
    assert found.baseline is not None
    assert found.baseline.time_s == plain.time_s
    pairs = {
        "flops": (plain.flops["total"], found.flops["total"]),
        "bytes_moved": (plain.bytes_moved["total"], found.bytes_moved["total"]),
        "kv_cache_bytes": (plain.memory_bytes["kv_cache"], found.memory_bytes["kv_cache"]),
        "memory_bytes": (plain.memory_bytes["total"], found.memory_bytes["total"]),
        "ttft_s": (plain.time_s["ttft"], found.time_s["ttft"]),
        "tpot_s": (plain.time_s["tpot"], found.time_s["tpot"]),
    }
    expected = {name: before - after for name, (before, after) in pairs.items()}
    expected |= {f"{name}_ratio": before / after for name, (before, after) in pairs.items()}
    assert found.savings == expected
    # FACTS 4: 640 against 128 cached tokens.
    assert found.savings["kv_cache_bytes_ratio"] == 5


def test_the_method_s_own_cost_is_in_the_total() -> None:
    found = result(compress=CLUSTER)
    # FACTS 1.1: 0.302 GFLOP to seed and 0.302 GFLOP in each of ten iterations.
    assert found.flops["compression"] == 11 * 301_989_888
    parts = found.flops["vision_encoder"] + found.flops["projector"] + found.flops["llm_prefill"]
    assert found.flops["total"] == parts + found.flops["lm_head"] + found.flops["compression"]
    assert found.time_s["compression"] > 0
    assert result().time_s["compression"] == 0


def test_compression_changes_no_stage_before_it() -> None:
    found, plain = result(compress=CLUSTER), result()
    for stage in ("vision_encoder", "projector"):
        assert found.time_s[stage] == plain.time_s[stage]
    assert found.tokens["visual_in"] == 576
    assert found.tokens["visual_kept"] == 64
    assert found.tokens["prefill"] == 128
    # FORMATS: 1.666 TFLOP with 64 visual and 64 text tokens.
    assert round(found.flops["llm_prefill"] / 1e12, 3) == 1.666


def test_stages() -> None:
    found = result(compress="mbtf+stf")
    for numbers in (found.flops, found.bytes_moved, found.time_s):
        assert set(STAGES) <= set(numbers)
    assert set(found.time_s) == {*STAGES, "host_overhead", "ttft", "tpot"}
    assert set(found.flops) == {*STAGES, "llm_linear", "llm_attention", "total"}


def test_parameters_by_module() -> None:
    # FORMATS, ground truth.
    assert result().params == {
        "vision_encoder": 303_507_456,
        "projector": 20_979_712,
        "compression": 0,
        "llm": 6_607_605_760,
        "lm_head": 131_334_144,
        "total": 7_063_427_072,
    }
    fused = result(compress="stf").params
    assert (fused["projector"], fused["compression"]) == (0, 134_238_208)


def test_memory() -> None:
    memory = result(gpu="l4", batch=8).memory_bytes
    assert memory["device"] == load_gpu("l4").capacity_bytes
    assert memory["fits"] is True
    assert memory["missing"] == 0
    assert memory["largest_batch"] >= 8
    too_much = result(gpu="l4", batch=1000).memory_bytes
    assert too_much["fits"] is False
    assert too_much["missing"] == too_much["total"] - too_much["device"] > 0
    assert too_much["largest_batch"] == memory["largest_batch"]


def test_operators_hold_totals_and_formulas() -> None:
    rows = {op.name: op for op in result().ops}
    attention = rows["decoder.attention"]
    assert attention.flops == 214_748_364_800  # FORMATS, ground truth
    assert attention.repeat == attention.launches == 32
    assert attention.formula["flops"] == "4*D*H*b*s*(p + s)"
    assert attention.stage == "llm_prefill"
    assert attention.shape["kv_len"] == 640
    assert not rows["decoder.input_norm"].counted
    assert {op.stage for op in result().ops_decode} == {"llm_prefill", "lm_head"}
    assert {op.kind for op in result().ops_decode} >= {"attention_decode"}


def test_uncounted_operators_are_left_out_of_the_flops_only() -> None:
    found = result()
    norm = next(op for op in found.ops if op.name == "decoder.input_norm")
    assert norm.flops > 0
    counted = sum(op.flops for op in found.ops if op.counted)
    assert found.flops["total"] == counted
    everything = sum(sum(op.bytes.values()) for op in found.ops)
    assert found.bytes_moved["total"] == pytest.approx(everything, rel=1e-12)


def test_provenance() -> None:
    found = result().provenance
    assert found["costmodel"] == version("costmodel")
    assert found["time_model"] == "ideal"
    for key in ("model_sources", "gpu_sources"):
        assert found[key]
        assert all(url.startswith("https://") for url in found[key])


def test_output_tokens_grow_the_cache_and_the_steps() -> None:
    short, long = result(), result(output_tokens=1000)
    assert long.memory_bytes["kv_cache"] > short.memory_bytes["kv_cache"]
    assert long.time_s["tpot"] > short.time_s["tpot"]
    assert long.time_s["ttft"] == short.time_s["ttft"]


def has(found: Estimate, words: str) -> bool:
    return any(words in note for note in found.notes)


def test_notes_warn_beyond_the_positions() -> None:
    # 4096 positions: 576 visual and 3520 other tokens still fit.
    assert not has(result(text_tokens=3520), "positions")
    assert has(result(text_tokens=3521), "4097 tokens exceed the model's 4096 positions")
    assert has(result(output_tokens=4000), "4640 tokens exceed")


def test_compressed_tokens_take_no_positions() -> None:
    assert has(result(text_tokens=3800), "positions")
    assert not has(result(text_tokens=3800, compress=CLUSTER), "positions")
    assert has(result(text_tokens=4033, compress=CLUSTER), "4097 tokens exceed")


def test_notes_warn_of_a_sliding_window() -> None:
    spec = load_model("llama-2-7b")
    windowed = spec.model_copy(
        update={"text": spec.text.model_copy(update={"sliding_window": 1000})}
    )
    assert not has(estimate(windowed, "a100", text_tokens=1000), "sliding window")
    assert has(estimate(windowed, "a100", text_tokens=1001), "sliding window of 1000 tokens")


def test_notes_on_devices_time_and_graphs() -> None:
    assert has(result(tp=2), "one of 2 devices")
    assert not has(result(), "devices")
    assert has(result(), "lower bound")
    assert has(result(compress=CLUSTER), "cluster cannot be captured in a CUDA graph")
    assert not has(result(compress=CLUSTER, runtime="eager"), "CUDA graph")
    # Of two methods, the one that cannot be captured.
    both = ("random:k=192", "cluster:k=64")
    assert has(result(compress=both), "cluster cannot be captured in a CUDA graph")
    assert not has(result(compress=both), "then")
    assert not has(result(compress=both), "random cannot")
    assert not has(result(compress="cluster:k=64,impl=fused"), "CUDA graph")
    assert has(result(compress=CLUSTER), "assumptions")


def rows(methods: list[str], kept: int = 144, **options: Any) -> dict[str, Any]:
    asked = {"text_tokens": 64} | options
    found = compare("llava-1.5-7b", "a100", methods, visual_tokens_kept=kept, **asked)
    assert len(found) == len(methods)
    return dict(found)


def test_methods_at_the_same_number_of_tokens() -> None:
    found = rows(["none", "random", "spatial", "cluster", "avgpool", "stf", "mbtf+stf"])
    assert list(found) == [
        "none", "random:k=144", "spatial:k=144", "cluster:k=144", "avgpool:window=2",
        "stf:window=2", "mbtf+stf:window=2",
    ]  # fmt: skip
    kept = {name: row.tokens["visual_kept"] for name, row in found.items()}
    assert kept.pop("none") == 576
    assert set(kept.values()) == {144}
    alone = result(gpu="a100", compress="cluster:k=144", time_model=None)
    assert found["cluster:k=144"] == alone


def test_a_method_that_cannot_says_why_and_the_others_go_on() -> None:
    found = rows(["random", "avgpool", "mbtf"], kept=100)
    assert isinstance(found["random:k=100"], Estimate)
    failure = found["avgpool"]
    assert isinstance(failure, Failure)
    assert "a count avgpool can reach: 1, 4, 9, 16, 36, 64, 144, 576" in failure.reason
    assert str(failure) == failure.reason
    assert "keeps every token" in found["mbtf"].reason


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("random:k=5", "visual-tokens-kept already sets 'k'"),
        ("random:retention=0.5", "exactly one of k and retention"),
        ("random:k", "expected key=value, got 'k'"),
        ("cluster:impl=gpu", "'eager', 'fused', 'compiled' or 'sklearn'"),
        ("cluster:iters=5", "unknown key 'iters', did you mean 'iterations'"),
    ],
)
def test_bad_parameters_of_one_method_stop_no_other(method: str, message: str) -> None:
    found = rows([method, "spatial"])
    assert isinstance(found["spatial:k=144"], Estimate)
    failure = found[method]
    assert isinstance(failure, Failure)
    assert message in failure.reason


def test_further_parameters_are_kept() -> None:
    found = rows(["cluster:iterations=3,impl=fused", "Random", " spatial "])
    assert list(found) == ["cluster:k=144,iterations=3,impl=fused", "random:k=144", "spatial:k=144"]
    only = found["cluster:k=144,iterations=3,impl=fused"]
    assert only.inputs["compress_params"]["iterations"] == 3


def test_options_of_a_comparison() -> None:
    (found,) = rows(["random"], batch=4, runtime="eager", images=("336x336",) * 2).values()
    assert found.inputs["batch"] == 4
    assert found.inputs["runtime"] == "eager"
    # The budget is of each image.
    assert found.tokens["visual_kept"] == 288


@pytest.mark.parametrize(
    ("methods", "kept", "error", "message"),
    [
        (["rnadom"], 64, UnknownNameError, "Did you mean random"),
        (["random", "rnadom"], 64, UnknownNameError, "Did you mean random"),
        (["random:k=5"], 64, UnsupportedError, "visual-tokens-kept already sets 'k'"),
        (["random then fsatv"], 64, UnknownNameError, "Did you mean fastv"),
        (["rnadom then fastv"], 64, UnknownNameError, "Did you mean random"),
        (["random:k=90 then random:k=9"], 64, UnsupportedError, "already sets 'k'"),
        (["fastv then random"], 64, UnsupportedError, "fastv acts inside the language model"),
        (
            ["random:k=50 then cluster"],
            64,
            UnsupportedError,
            "cluster to be able .*at most the 50",
        ),
        (["random:kk=50 then cluster"], 64, UnsupportedError, "unknown key 'kk'"),
        (["then random"], 64, UnknownNameError, "method"),
        (["random:k=5", "cluster:k=5"], 64, UnsupportedError, "random:k=5: .*cluster:k=5: "),
        (["random"], 0, InputError, "visual-tokens-kept: 0 "),
        (["random"], 1.5, InputError, r"visual-tokens-kept: 1\.5 "),
        (["random", "avgpool"], 577, UnsupportedError, "at least one method that can"),
        ([], 64, UnsupportedError, "none was given"),
    ],
)
def test_comparisons_that_cannot_be(
    methods: list[str], kept: int, error: type[CostModelError], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare("llava-1.5-7b", "a100", methods, visual_tokens_kept=kept, text_tokens=64)


def test_methods_one_after_the_other_at_the_same_number() -> None:
    found = rows(["random:k=256 then fastv:variant=paper", "none then random"], kept=128)
    label, alone = found
    assert label == "random:k=256 then fastv:layer=2,k=119,variant=paper"
    # 256 in two layers and 119 in thirty.
    assert found[label].tokens["visual_equivalent"] == pytest.approx(128, abs=0.5)
    assert found[label].flops == estimate(
        "llava-1.5-7b", "a100", text_tokens=64,
        compress=["random:k=256", "fastv:layer=2,k=119,variant=paper"],
    ).flops  # fmt: skip
    assert alone == "random:k=128"


def test_a_comparison_needs_images() -> None:
    for model, options in (("llama-2-7b", {}), ("llava-1.5-7b", {"visual_tokens": 0})):
        with pytest.raises(UnsupportedError, match=r"visual-tokens-kept: 64 .*no visual tokens"):
            compare(model, "a100", ["random"], visual_tokens_kept=64, text_tokens=64, **options)
