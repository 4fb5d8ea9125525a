"""Whole programs: published totals, closed forms, layer groups, devices, errors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from sympy import Expr, Integer

from costmodel.catalog.models_io import list_models, load_model
from costmodel.compression.plan import (
    CompressionPlan,
    DecoderGroup,
    Insertion,
    TokenCount,
    TowerGroup,
)
from costmodel.errors import InputError
from costmodel.estimation import Case, prepare
from costmodel.evaluation import evaluate, evaluate_expressions, resolve
from costmodel.ops import Op, exact
from costmodel.program import Phase, Program, build_program
from costmodel.symbols import sym


@lru_cache
def case(model: str = "llava-1.5-7b", **options: Any) -> Case:
    asked: dict[str, Any] = {"text_tokens": 64, "runtime": "eager"} | options
    return prepare(model, "a100-80gb-sxm", **asked)


def program(model: str = "llava-1.5-7b", **options: Any) -> Program:
    return case(model, **options).program()[0]


def with_groups(
    groups: tuple[DecoderGroup, ...],
    tower: tuple[TowerGroup, ...] = (),
    model: str = "llava-1.5-7b",
    **options: Any,
) -> Program:
    plan = CompressionPlan(
        "test", Insertion("llm", 2), TokenCount.static(576), groups, tower_groups=tower
    )
    asked = case(model, **options)
    return build_program(asked.model, asked.layout, asked.workload, asked.deployment, plan)


def exact_sum(found: Program, phase: Phase, stage: str, part: str | None = None) -> int:
    """Sum the counted FLOPs of a stage with Python integers."""
    values = {symbol: int(value) for symbol, value in found.values.items() if value == int(value)}
    relations = {s: e.subs(found.relations(phase)) for s, e in found.relations(phase).items()}
    values |= {s: exact(e.subs(relations), values) for s, e in relations.items()}
    chosen = (
        op for op in found.phase_ops(phase)
        if op.stage == stage and op.matmul and part in (None, op.part)
    )  # fmt: skip
    return sum(exact(op.flops * op.repeat, values) for op in chosen)


def params(found: Program, stage: str | None = None) -> int:
    counts = [item.count for item in found.weights if stage in (None, item.stage)]
    return int(sum(evaluate_expressions(counts, resolve(found, "prefill"))))


def kv_bytes(found: Program) -> float:
    values = resolve(found, "prefill")
    return float(sum(evaluate_expressions([group.bytes for group in found.cache], values)))


def by_name(found: Program, phase: Phase = "prefill", **overrides: Any) -> dict[str, float]:
    evaluation = evaluate(found, phase, **overrides)
    total = evaluation.flops * evaluation.repeat
    return {op.name: float(row) for op, row in zip(evaluation.ops, total, strict=True)}


# Ground truth by execution: torch 2.13 and transformers 5.23, FlopCounterMode on meta tensors;
# batch 1, 576 image and 64 text tokens, multiply-add = 2, full attention (FORMATS).
# The head counts there are with 32064 rows of vocabulary, as the checkpoints have.
GROUND_TRUTH: dict[str, dict[str, int]] = {
    "llava-1.5-7b": {
        "vision_encoder": 381_918_216_192,
        "projector": 24_159_191_040,
        "llm": 8_504_035_246_080,
        "llm_linear": 8_289_286_881_280,
        "llm_attention": 214_748_364_800,
        "lm_head": 262_668_288,
        "lm_head_all": 168_107_704_320,
        "decode": 13_288_079_360,
        "kv": 335_544_320,
        "params": 7_063_427_072,
    },
    "llava-1.5-13b": {
        "vision_encoder": 381_918_216_192,
        "projector": 36_238_786_560,
        "llm": 16_575_889_408_000,
        "llm_linear": 16_575_889_408_000 - 335_544_320_000,
        "llm_attention": 335_544_320_000,
        "lm_head": 328_335_360,
        "lm_head_all": 210_134_630_400,
        "decode": 25_900_646_400,
        "kv": 524_288_000,
        "params": 13_351_494_656,
    },
}


@pytest.mark.parametrize("runtime", ["eager", "cuda-graph"])
@pytest.mark.parametrize("model", GROUND_TRUTH)
def test_published_flops_of_llava(model: str, runtime: str) -> None:
    found, truth = program(model, runtime=runtime), GROUND_TRUTH[model]
    for stage in ("vision_encoder", "projector", "llm", "lm_head"):
        assert exact_sum(found, "prefill", stage) == truth[stage], stage
    assert exact_sum(found, "prefill", "llm", "linear") == truth["llm_linear"]
    assert exact_sum(found, "prefill", "llm", "attention") == truth["llm_attention"]
    every = program(model, runtime=runtime, head_tokens="all")
    assert exact_sum(every, "prefill", "lm_head") == truth["lm_head_all"]


@pytest.mark.parametrize("model", GROUND_TRUTH)
def test_published_decode_step_cache_and_parameters(model: str) -> None:
    found, truth = program(model), GROUND_TRUTH[model]
    assert kv_bytes(found) == truth["kv"]
    assert params(found) == truth["params"]
    # The published step runs on 640 cached tokens and attends to 641: p = 640.
    assert exact_sum(found, "decode", "llm") == truth["decode"]


def test_published_parameters_of_llava_by_module() -> None:
    found = program()
    assert params(found, "vision_encoder") == 303_507_456
    assert params(found, "projector") == 20_979_712
    assert params(found, "llm") == 6_607_605_760
    assert params(found, "lm_head") == 131_334_144


@pytest.mark.parametrize(
    ("visual", "tflop"),
    # FORMATS: 7B prefill by image tokens with 64 text tokens.
    [(576, "8.504"), (288, "4.624"), (192, "3.350"), (144, "2.717"), (128, "2.506"),
     (64, "1.666"), (32, "1.248"), (0, "0.831"), (2880, "42.67")],
)  # fmt: skip
def test_published_prefill_by_image_tokens(visual: int, tflop: str) -> None:
    flops = exact_sum(program(visual_tokens=visual), "prefill", "llm")
    decimals = len(tflop.partition(".")[2])
    assert f"{flops / 1e12:.{decimals}f}" == tflop


def test_vision_share_at_64_tokens() -> None:
    # FORMATS: 0.406 TFLOP of tower and projector are 20 % of the total at 64 image
    # tokens against 4.6 % at 576.
    fixed = 381_918_216_192 + 24_159_191_040
    for visual, percent in ((64, 20), (576, 4.6)):
        flops = exact_sum(program(visual_tokens=visual), "prefill", "llm")
        share = 100 * fixed / (fixed + flops)
        assert share == pytest.approx(percent, abs=0.5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("model", list_models())
def test_closed_forms_hold_for_every_preset(model: str, batch: int) -> None:
    asked = case(model, batch=batch, head_tokens="all", output_tokens=8)
    found, text = asked.program()[0], asked.model.text
    prompt = 64 + (asked.layout.tokens if asked.layout is not None else 0)
    h, h_kv = text.heads * text.head_dim, text.kv_heads * text.head_dim
    width, ff, layers = text.hidden_size, text.intermediate_size, text.layers
    # FORMATS: linear 2 b S L (2 h^2 + 2 h h_kv + 3 h ff), attention 4 b L S^2 h,
    # KV 2 bytes b L S h_kv, head 2 b h V; S the prompt, and with output the cache grows.
    linear = 2 * batch * prompt * layers * (2 * width * h + 2 * width * h_kv + 3 * width * ff)
    assert exact_sum(found, "prefill", "llm", "linear") == linear
    assert exact_sum(found, "prefill", "llm", "attention") == 4 * batch * layers * prompt**2 * h
    assert kv_bytes(found) == 2 * 2 * batch * layers * (prompt + 8) * h_kv
    head = 2 * batch * width * text.vocab_size
    assert exact_sum(found, "prefill", "lm_head") == head * prompt
    assert exact_sum(found, "decode", "lm_head") == head


@pytest.mark.parametrize("model", list_models())
def test_names_of_operators_are_unique(model: str) -> None:
    for runtime in ("eager", "cuda-graph"):
        names = [op.name for op in program(model, runtime=runtime).ops]
        assert len(names) == len(set(names))


def test_vision_layers_23_or_24() -> None:
    # FACTS 3: 190.96 and 183.02 GMAC.
    last = exact_sum(program(), "prefill", "vision_encoder")
    needed = exact_sum(program(vision_layers=23), "prefill", "vision_encoder")
    assert round(last / 2e9, 2) == 190.96
    assert round(needed / 2e9, 2) == 183.02
    # All layers are loaded whether they run or not.
    assert params(program(vision_layers=23)) == params(program())


@pytest.mark.parametrize("layers", [0, -1, 25])
def test_vision_layers_out_of_range(layers: int) -> None:
    for visual_tokens in (None, 0):
        with pytest.raises(InputError, match=rf"vision-layers: {layers} .* from 1 to"):
            program(vision_layers=layers, visual_tokens=visual_tokens)


def test_window_attention_by_hand() -> None:
    # Qwen2.5-VL, 672x672: 48x48 patches, windows of 8x8: 36 windows of 64 tokens;
    # layers 7, 15, 23 and 31 of 32 attend to all 2304.
    flops = by_name(program("qwen2.5-vl-7b"))
    assert flops["vision_window.attention"] == 28 * 36 * 4 * 64**2 * 1280
    assert flops["vision_full.attention"] == 4 * 4 * 2304**2 * 1280


def test_windows_at_the_edge_are_smaller() -> None:
    # 700x672: 50 columns of patches, so six windows of 8 and one of 2 in each row of windows.
    flops = by_name(program("qwen2.5-vl-7b", images=((700, 672),)))
    assert flops["vision_window.attention_0"] == 28 * 36 * 4 * 64**2 * 1280
    assert flops["vision_window.attention_1"] == 28 * 6 * 4 * 16**2 * 1280
    assert flops["vision_full.attention"] == 4 * 4 * 2400**2 * 1280


def test_a_window_tower_cut_before_its_first_full_layer() -> None:
    names = by_name(program("qwen2.5-vl-7b", vision_layers=7))
    assert not any(name.startswith("vision_full") for name in names)


def test_prefill_and_decode_are_the_same_expressions() -> None:
    found = program()
    prefill = {op.name: op for op in found.phase_ops("prefill")}
    decode = {op.name: op for op in found.phase_ops("decode")}
    assert set(prefill) - set(decode) == {
        op.name for op in found.ops if op.stage not in ("llm", "lm_head")
    } | {"merge_visual"}
    for name, op in decode.items():
        other = prefill[name]
        assert (op.flops, op.traffic, op.repeat, op.live) == (
            other.flops, other.traffic, other.repeat, other.live,
        )  # fmt: skip
        if op.kind == "attention_decode":
            assert other.kind == "attention_prefill"
        else:
            assert op.kind == other.kind


def test_a_prefill_of_one_token_on_a_cache_is_a_decode_step() -> None:
    found = program(output_tokens=20)
    step = by_name(found, "decode")
    past = resolve(found, "decode")[sym("p")]
    same = by_name(found, "prefill", s=1, p=past)
    assert {name: same[name] for name in step} == step


@pytest.mark.parametrize(
    ("output", "mean_past"),
    # The first token comes from prefill; steps 2 .. o see 640, 641, ... 640 + o - 2 tokens.
    [(0, 640), (1, 640), (2, 640), (3, 640.5), (101, 640 + 99 / 2)],
)
def test_decode_attends_to_the_mean_cache_length(output: int, mean_past: float) -> None:
    assert resolve(program(output_tokens=output), "decode")[sym("p")] == mean_past
    if output > 1:
        assert mean_past == np.mean([640 + step - 2 for step in range(2, output + 1)])


def alone(layers: int, visual: int) -> Program:
    """Build the model with fewer layers and another number of visual tokens."""
    asked = case()
    text = asked.model.text.model_copy(update={"layers": layers})
    model = asked.model.model_copy(update={"text": text})
    plan = CompressionPlan(
        "test", Insertion("llm"), TokenCount.static(visual), (DecoderGroup(layers, visual),)
    )
    return build_program(model, asked.layout, asked.workload, asked.deployment, plan)


def decoder_sum(found: Program, phase: Phase, quantity: str) -> float:
    evaluation = evaluate(found, phase)
    mask = [op.name.startswith("decoder") for op in evaluation.ops]
    values = evaluation.flops if quantity == "flops" else evaluation.bytes_moved
    return float(evaluation.total(values, mask))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("quantity", ["flops", "bytes"])
def test_two_groups_are_the_sum_of_two_models(phase: Phase, quantity: str) -> None:
    grouped = with_groups((DecoderGroup(2, 576), DecoderGroup(30, 144)))
    parts = [alone(2, 576), alone(30, 144)]
    expected = sum(decoder_sum(part, phase, quantity) for part in parts)
    assert decoder_sum(grouped, phase, quantity) == pytest.approx(expected, rel=1e-14)
    assert kv_bytes(grouped) == sum(kv_bytes(part) for part in parts)


def test_groups_of_equal_counts_are_one_group() -> None:
    grouped = with_groups((DecoderGroup(12, 576), DecoderGroup(20, 576)))
    for phase in ("prefill", "decode"):
        for stage in ("llm", "lm_head"):
            assert exact_sum(grouped, phase, stage) == exact_sum(program(), phase, stage)
    assert kv_bytes(grouped) == kv_bytes(program())
    assert params(grouped) == params(program())


def test_the_first_group_embeds_and_the_last_one_ends() -> None:
    found = with_groups((DecoderGroup(2, 576), DecoderGroup(30, 144)), head_tokens="all")
    evaluation = evaluate(found)
    rows = {op.name: shape for op, shape in zip(evaluation.ops, evaluation.shapes, strict=True)}
    assert rows["embed_tokens"]["rows"] == 640
    assert rows["merge_visual"]["rows"] == 576
    assert rows["final_norm"]["rows"] == 208
    assert rows["lm_head"]["m"] == 208


def test_expressions_as_token_counts_follow_overrides() -> None:
    half = sym("m") / 2
    asked = case()
    plan = CompressionPlan(
        "test", Insertion("llm", 16), TokenCount.static(288),
        (DecoderGroup(16, sym("m")), DecoderGroup(16, half)), values={sym("m"): 576},
    )  # fmt: skip
    found = build_program(asked.model, asked.layout, asked.workload, asked.deployment, plan)
    fixed = with_groups((DecoderGroup(16, 200), DecoderGroup(16, 100)))
    changed = by_name(found, m=200)
    for name, flops in by_name(fixed).items():
        if name.startswith("decoder"):
            assert changed[name] == flops, name


def test_expanded_attention_with_a_full_cache() -> None:
    # DyMU-like: 192 tokens in the linear layers, attention and cache on all 576.
    group = DecoderGroup(32, 192, visual_attended=576, visual_cached=576)
    flops = by_name(with_groups((group,)))
    full, short = by_name(program()), by_name(program(visual_tokens=192))
    assert flops["decoder.attention"] == full["decoder.attention"]
    for name in ("q_proj", "k_proj", "o_proj", "down_proj"):
        assert flops[f"decoder.{name}"] == short[f"decoder.{name}"]
    assert kv_bytes(with_groups((group,))) == kv_bytes(program())
    assert by_name(with_groups((group,)), "decode") == by_name(program(), "decode")


def test_frozen_visual_tokens_keep_keys_and_values() -> None:
    # ShortV-like: in 19 of 32 layers visual tokens have keys and values, but no query and no MLP.
    frozen = DecoderGroup(19, 0, visual_kv=576, visual_cached=576)
    found = with_groups((DecoderGroup(13, 576), frozen))
    flops = by_name(found)
    assert flops["decoder_1.attention"] == 19 * 4 * 64 * 640 * 4096
    assert flops["decoder_1.q_proj"] == flops["decoder_1.o_proj"] == 19 * 2 * 64 * 4096**2
    assert flops["decoder_1.k_proj"] == flops["decoder_1.v_proj"] == 19 * 2 * 640 * 4096**2
    assert flops["decoder_1.down_proj"] == 19 * 2 * 64 * 4096 * 11008
    assert kv_bytes(found) == kv_bytes(program())
    whole, step = by_name(program(), "decode"), by_name(found, "decode")
    for name in ("attention", "k_proj", "down_proj"):
        split = step[f"decoder_0.{name}"] + step[f"decoder_1.{name}"]
        assert split == pytest.approx(whole[f"decoder.{name}"], rel=1e-14)


def test_tokens_that_skip_the_mlp() -> None:
    flops = by_name(with_groups((DecoderGroup(32, 576, visual_mlp=0),)))
    assert flops["decoder.down_proj"] == 32 * 2 * 64 * 4096 * 11008
    assert flops["decoder.q_proj"] == by_name(program())["decoder.q_proj"]


def test_tokens_evicted_from_the_cache_only() -> None:
    found = with_groups((DecoderGroup(32, 576, visual_cached=64),))
    assert exact_sum(found, "prefill", "llm") == exact_sum(program(), "prefill", "llm")
    assert kv_bytes(found) == 2 * 2 * 32 * 4096 * (64 + 64)
    assert resolve(found, "decode")[sym("p")] == 128


def test_eager_attention_in_one_group_only() -> None:
    groups = (DecoderGroup(2, 576), DecoderGroup(1, 576, attention="eager"), DecoderGroup(29, 64))
    names = set(by_name(with_groups(groups)))
    assert "decoder_0.attention" in names
    assert "decoder_1.attention.softmax" in names
    assert "decoder_1.attention" not in names
    assert "decoder_2.attention" in names


def test_groups_that_do_not_cover_the_layers() -> None:
    for layers in (31, 33):
        with pytest.raises(InputError, match=rf"{layers} is not valid.*cover 32"):
            with_groups((DecoderGroup(layers, 576),))


def test_tower_groups_with_shrinking_sequences() -> None:
    # ToMe-like: r = 100 tokens merged between attention and MLP of layer 12.
    groups = (
        TowerGroup(12),
        TowerGroup(1, (Integer(577),), (Integer(477),), attention="eager"),
        TowerGroup(11, (Integer(477),)),
    )
    found = with_groups((DecoderGroup(32, 576),), groups)
    flops = by_name(found)
    assert flops["vision_0.attention"] == 12 * 4 * 577**2 * 1024
    assert flops["vision_1.attention.qk"] == 2 * 577**2 * 1024
    assert flops["vision_1.fc1"] == 2 * 477 * 1024 * 4096
    assert flops["vision_1.o_proj"] == 2 * 577 * 1024**2
    assert flops["vision_2.attention"] == 11 * 4 * 477**2 * 1024
    assert flops["vision_2.fc1"] == 11 * 2 * 477 * 1024 * 4096
    assert "vision_0.attention.qk" not in flops


def test_equal_tower_groups_are_the_unchanged_tower() -> None:
    found = with_groups((DecoderGroup(32, 576),), (TowerGroup(10), TowerGroup(14)))
    whole = exact_sum(program(), "prefill", "vision_encoder")
    assert exact_sum(found, "prefill", "vision_encoder") == whole


def test_tower_groups_that_do_not_cover_the_layers() -> None:
    with pytest.raises(InputError, match=r"23 is not valid.*cover 24"):
        with_groups((DecoderGroup(32, 576),), (TowerGroup(23),))


def test_a_method_may_need_more_vision_layers_than_asked() -> None:
    asked = case(vision_layers=10)
    groups = (DecoderGroup(32, 576),)
    plan = CompressionPlan(
        "test", Insertion("after_encoder"), TokenCount.static(576), groups, tower_layers=23
    )
    found = build_program(asked.model, asked.layout, asked.workload, asked.deployment, plan)
    expected = exact_sum(program(vision_layers=23), "prefill", "vision_encoder")
    assert exact_sum(found, "prefill", "vision_encoder") == expected


def test_tiles_attend_to_themselves_only() -> None:
    # LLaVA-NeXT, 672x672: five tiles of 577 tokens, 2928 features (FACTS 3).
    found = program("llava-next-vicuna-7b")
    assert by_name(found)["vision.attention"] == 24 * 5 * 4 * 577**2 * 1024
    assert exact_sum(found, "prefill", "vision_encoder") == 5 * 381_918_216_192


def test_images_add_up() -> None:
    one, three = program(), program(images=((336, 336),) * 3)
    for stage, factor in (("vision_encoder", 3), ("projector", 3)):
        assert exact_sum(three, "prefill", stage) == factor * exact_sum(one, "prefill", stage)
    assert kv_bytes(three) == 2 * 2 * 32 * 4096 * (3 * 576 + 64)


def test_without_images_only_the_parameters_of_the_tower_remain() -> None:
    found = program(visual_tokens=0)
    assert {op.stage for op in found.ops} == {"llm", "lm_head"}
    assert params(found) == params(program())


def matmuls(found: Program, stage: str) -> dict[str, Op]:
    return {op.name: op for op in found.ops if op.matmul and op.stage == stage}


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_devices_divide_the_language_model_and_replicate_the_tower(tp: int) -> None:
    one, many = program(runtime="cuda-graph"), program(runtime="cuda-graph", tp=tp)
    for stage, factor in (("llm", tp), ("lm_head", tp), ("vision_encoder", 1), ("projector", 1)):
        assert matmuls(one, stage).keys() == matmuls(many, stage).keys()
        single, sharded = by_name(one), by_name(many)
        for name in matmuls(one, stage):
            assert sharded[name] * factor == single[name], name
    assert kv_bytes(many) * tp == kv_bytes(one)
    collectives = {op.name: op for op in many.ops if op.kind == "collective"}
    assert set(collectives) == {
        "embed_all_reduce", "decoder.o_all_reduce", "decoder.down_all_reduce", "logits_all_gather",
    }  # fmt: skip
    assert params(many) == params(one)


def test_shapes_of_sharded_operators_are_whole() -> None:
    evaluation = evaluate(program("llama-3-8b", tp=16))
    for op, shape in zip(evaluation.ops, evaluation.shapes, strict=True):
        for name, size in shape.items():
            assert size == np.floor(size), (op.name, name)


def test_fewer_key_value_heads_than_devices_keep_one_each() -> None:
    # 8 key/value heads: the cache of 16 devices is no smaller than that of 8.
    assert kv_bytes(program("llama-3-8b", tp=16)) == kv_bytes(program("llama-3-8b", tp=8))


@pytest.mark.parametrize(("model", "tp"), [("llava-1.5-7b", 3), ("llava-onevision-qwen2-7b", 8)])
def test_devices_that_do_not_divide_the_model(model: str, tp: int) -> None:
    with pytest.raises(InputError, match=rf"tp: {tp} is not valid.*divides heads.*: 1, 2"):
        program(model, tp=tp)


@pytest.mark.parametrize("tp", [0, -1, 1.5, 2000])
def test_devices_are_a_count(tp: float) -> None:
    with pytest.raises(InputError, match="tp"):
        prepare("llava-1.5-7b", "a100", text_tokens=64, tp=tp)


def test_every_preset_says_what_devices_it_takes() -> None:
    for name in list_models():
        heads = load_model(name).text.heads
        with pytest.raises(InputError, match=r"vocabulary: 1\b"):
            program(name, tp=heads * 3)


def test_stage_totals_are_integers_in_float64() -> None:
    evaluation = evaluate(program())
    mask = [op.stage == "llm" and op.matmul for op in evaluation.ops]
    assert float(evaluation.total(evaluation.flops, mask)) == 8_504_035_246_080


def test_free_symbols_of_the_cache_and_of_weights_have_values() -> None:
    found = program("llama-3-8b", tp=16)
    known = found.values.keys() | found.derived.keys()
    expressions: list[Expr] = [item.count for item in found.weights]
    expressions += [item.shards for item in found.weights]
    expressions += [group.bytes for group in found.cache]
    for expression in expressions:
        assert expression.free_symbols <= known
