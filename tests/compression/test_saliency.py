"""Methods that choose by saliency or diversity: operators, limits, what they cost elsewhere."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.case import prepare
from costmodel.compression.method import Context, load_method, parse
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError, SpecError, UnsupportedError
from costmodel.estimation import Estimate, estimate
from costmodel.evaluation import evaluate, evaluate_expressions, resolve
from costmodel.program import Program

# LLaVA-1.5-7B: 576 tokens of width 4096, 32 layers, 32 heads; 64 text tokens are asked.
N, D, T, LAYERS, HEADS = 576, 4096, 64, 32, 32
BEFORE = (
    "saliency",
    "saliency:variant=projected",
    "saliency:variant=layer,then=restart",
    "saliency-cluster",
    "saliency-cluster:rule=top-k",
    "saliency-cluster:rule=rest,variant=projected",
    "saliency-cluster:rule=rest,impl=fused,variant=layer,then=restart,layer=0",
    "divprune",
    "divprune:impl=running",
    "cdpruner",
    "holov",
)
"""Methods whose language model sees the tokens that remain and no others."""
INSIDE = (
    "saliency:variant=layer",
    "saliency:variant=layer,layer=0",
    "saliency-cluster:variant=layer,rule=rest",
    "saliency-cluster:variant=layer,rule=pick,layer=5",
)
"""Methods that choose in the midst of the language model."""


def keeping(method: str, kept: int) -> str:
    name, _, rest = method.partition(":")
    return f"{name}:k={kept}" + (f",{rest}" if rest else "")


@lru_cache(maxsize=500)
def built(
    compress: str | None, model: str = "llava-1.5-7b", **options: Any
) -> tuple[Program, CompressionPlan | None]:
    return prepare(model, "a100", compress=compress, **{"text_tokens": T, **options}).program()


def plan_of(compress: str, *given: Any, **options: Any) -> CompressionPlan:
    plan = built(compress, *given, **options)[1]
    assert plan is not None
    return plan


def rows(compress: str | None, quantity: str = "flops", *given: Any, **options: Any) -> Any:
    evaluation = evaluate(built(compress, *given, **options)[0])
    values = getattr(evaluation, quantity) * evaluation.repeat
    return {op.name: float(value) for op, value in zip(evaluation.ops, values, strict=True)}


def own(compress: str, quantity: str = "flops", *given: Any, **options: Any) -> dict[str, float]:
    names = {op.name for op in plan_of(compress, *given, **options).ops}
    found = rows(compress, quantity, *given, **options)
    return {name: value for name, value in found.items() if name in names}


def matmuls(compress: str, *given: Any, **options: Any) -> float:
    counted = {op.name for op in plan_of(compress, *given, **options).ops if op.matmul}
    found = own(compress, "flops", *given, **options)
    return sum(value for name, value in found.items() if name in counted)


@lru_cache(maxsize=500)
def result(compress: str | None, **options: Any) -> Estimate:
    asked = {"text_tokens": T, "time_model": "ideal", **options}
    return estimate("llava-1.5-7b", "a100", compress=compress, **asked)


@pytest.mark.parametrize("method", BEFORE)
@pytest.mark.parametrize("quantity", ["flops", "bytes_moved", "launches", "live"])
def test_keeping_everything_changes_no_other_stage(method: str, quantity: str) -> None:
    compress = keeping(method, N)
    names = {op.name for op in plan_of(compress).ops}
    # Attention weights of the tower are read by one of them, of which below.
    reads = tuple(["vision."] if method == "holov" else [])
    found, plain = rows(compress, quantity), rows(None, quantity)
    assert {
        name: value
        for name, value in found.items()
        if name not in names and not name.startswith(reads)
    } == {name: value for name, value in plain.items() if not name.startswith(reads)}


@pytest.mark.parametrize("method", INSIDE)
def test_keeping_everything_inside_the_language_model(method: str) -> None:
    found, plain = result(keeping(method, N)), result(None)
    for stage in ("vision_encoder", "projector", "llm_prefill", "lm_head"):
        assert found.flops[stage] == plain.flops[stage]
    assert found.memory_bytes["kv_cache"] == plain.memory_bytes["kv_cache"]
    # The layer that is read moves its attention weights through memory.
    assert found.bytes_moved["llm_prefill"] > plain.bytes_moved["llm_prefill"]


@pytest.mark.parametrize("method", [*BEFORE, *INSIDE])
@given(data=st.data())
@settings(max_examples=15)
def test_fewer_tokens_never_cost_more_in_the_stages_after(method: str, data: st.DataObject) -> None:
    few = data.draw(st.integers(1, N))
    many = data.draw(st.integers(few, N))
    lesser, greater = result(keeping(method, few)), result(keeping(method, many))
    for numbers in ("flops", "bytes_moved", "time_s"):
        for stage in ("llm_prefill", "lm_head"):
            assert getattr(lesser, numbers)[stage] <= getattr(greater, numbers)[stage]
    assert lesser.memory_bytes["kv_cache"] <= greater.memory_bytes["kv_cache"]
    assert lesser.time_s["tpot"] <= greater.time_s["tpot"]


@pytest.mark.parametrize("method", [*BEFORE, *INSIDE])
@pytest.mark.parametrize("kept", [64, 128, 192])
def test_budgets(method: str, kept: int) -> None:
    name = method.partition(":")[0]
    case = prepare("llava-1.5-7b", "a100", text_tokens=T)
    context = Context(case.model, case.images, case.deployment)
    values = load_method(name).params_for(kept, context)
    assert values == {"k": kept}
    assert plan_of(keeping(method, kept)).kept.mean == kept
    images = ("336x336",) * 3
    assert plan_of(keeping(method, kept), images=images).kept.mean == 3 * kept


@pytest.mark.parametrize("method", [*BEFORE, *INSIDE])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_few_tokens(method: str, kept: int) -> None:
    for quantity in ("flops", "bytes_moved", "launches", "live", "host_syncs"):
        assert all(
            value >= 0 and math.isfinite(value)
            for value in rows(keeping(method, kept), quantity).values()
        )


@pytest.mark.parametrize("method", [*BEFORE, *INSIDE])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("llava-1.5-7b", {"tp": 4, "batch": 3}),
        ("llava-1.5-7b", {"attention": "eager", "runtime": "eager", "dtype": "fp32"}),
        ("llava-next-mistral-7b", {"images": ("672x672", "336x336")}),
        ("qwen2-vl-7b", {"tp": 4}),
        ("internvl3-8b", {"runtime": "compiled"}),
    ],
)
def test_every_model_and_deployment(method: str, model: str, options: dict[str, Any]) -> None:
    if method in ("cdpruner", "holov") and model in ("qwen2-vl-7b", "internvl3-8b"):
        with pytest.raises(UnsupportedError, match=rf"compress.*{method}.*{model}"):
            built(keeping(method, 50), model, **options)
        return
    program, plan = built(keeping(method, 50), model, **options)
    assert plan is not None
    assert len({op.name for op in program.ops}) == len(program.ops)
    known = program.values.keys() | program.derived.keys()
    assert all(op.free_symbols <= known for op in program.ops)
    assert {op.stage for op in plan.ops} == {"compression"}
    images = sum(1 for _ in options.get("images", ("one",)))
    markers = plan.kept.mean - 50 * images
    assert markers in (0, 2)


def test_saliency_from_embeddings() -> None:
    compress = "saliency:k=64"
    assert matmuls(compress) == 2 * T * N * D
    # A product, scaling, softmax, mean; top-k, sort; gather.
    assert sum(own(compress, "launches").values()) == 7
    assert own(compress, "bytes_moved")["saliency.product"] == 2 * (T * D + N * D + T * N)
    assert own(compress, "bytes_moved")["saliency.gather"] == 2 * 2 * 64 * D
    assert plan_of(compress).graph_safe
    assert not plan_of(compress).needs_attention_weights


def test_saliency_from_queries_and_keys() -> None:
    compress = "saliency:k=64,variant=projected"
    assert matmuls(compress) == 2 * T * N * D + 2 * (N + T) * D**2
    assert sum(own(compress, "launches").values()) == 9
    # Queries of the text are made once, whatever the number of images.
    many = own(compress, "flops", images=("336x336",) * 3)
    assert many["saliency.q_proj"] == 2 * T * D**2
    assert many["saliency.k_proj"] == 3 * 2 * N * D**2
    assert sum(item.count for item in plan_of(compress).weights) == 0


def test_grouped_keys_are_narrower_and_repeated() -> None:
    # Mistral 7B: 8 key heads for 32 query heads of 128.
    model = "llava-next-mistral-7b"
    found = own("saliency:k=64,variant=projected", "flops", model)
    tokens = prepare(model, "a100", text_tokens=T).images[0].layout.features
    assert found["saliency.k_proj"] == 2 * tokens * 4096 * 8 * 128
    assert found["saliency.product"] == 2 * T * tokens * 4096
    assert "saliency.repeat_k" in found
    assert "saliency.repeat_k" not in own("saliency:k=64,variant=projected")


def test_devices_share_the_heads() -> None:
    one, four = (own("saliency:k=64,variant=projected", "flops", tp=tp) for tp in (1, 4))
    for name in ("saliency.q_proj", "saliency.k_proj", "saliency.product"):
        assert four[name] == one[name] / 4
    assert "saliency.all_reduce" in four


def test_saliency_of_a_layer_that_goes_on() -> None:
    program, _ = built("saliency:k=64,variant=layer,layer=3")
    plan = plan_of("saliency:k=64,variant=layer,layer=3")
    assert [group.layers for group in plan.decoder_groups] == [3, 1, 28]
    assert [group.attention for group in plan.decoder_groups] == [None, "eager", None]
    assert str(plan.insertion) == "llm layer 4"
    assert plan.needs_attention_weights
    # No FLOPs of its own: the layer's own scores are read.
    assert matmuls("saliency:k=64,variant=layer,layer=3") == 0
    scores = rows("saliency:k=64,variant=layer,layer=3")["decoder_1.attention.qk"]
    assert scores == 2 * (N + T) ** 2 * D
    values = resolve(program, "prefill")
    per_token = 2 * HEADS * 128 * 2
    found = evaluate_expressions([group.bytes for group in program.cache], values)
    assert [float(x) for x in found] == [
        3 * per_token * (N + T), per_token * (N + T), 28 * per_token * (64 + T),
    ]  # fmt: skip
    # Attention weights of all heads lie in memory while they are averaged.
    live = own("saliency:k=64,variant=layer,layer=3", "live")
    assert live["saliency.vote"] >= HEADS * (N + T) ** 2 * 2
    assert own("saliency:k=64,variant=layer,layer=0")  # the first layer can be read too
    assert len(plan_of("saliency:k=64,variant=layer,layer=0").decoder_groups) == 2


def test_saliency_of_a_layer_that_starts_again() -> None:
    compress = "saliency:k=64,variant=layer,layer=4,then=restart"
    found, plain = result(compress), result("saliency:k=64")
    assert found.flops["llm_prefill"] == plain.flops["llm_prefill"]
    assert found.memory_bytes["kv_cache"] == plain.memory_bytes["kv_cache"]
    # Five of 32 equal layers, on all tokens, beside it.
    assert found.flops["compression"] == result(None).flops["llm_prefill"] * 5 / LAYERS
    assert own(compress)["saliency.decoder_weights.attention.qk"] == 2 * (N + T) ** 2 * D
    assert not any("kv_cache" in name for name in own(compress))
    assert any("run twice" in note for note in found.notes)


@pytest.mark.parametrize(
    ("compress", "error", "message"),
    [
        ("saliency:k=9,variant=layer,layer=31", InputError, "layer: 31 .*from 0 to 30"),
        ("saliency:k=9,variant=layer,layer=32,then=restart", InputError, "from 0 to 31"),
        ("saliency:k=9,layer=3", SpecError, "layer is for variant=layer, not variant=embedding"),
        ("saliency:k=9,variant=projected,then=restart", SpecError, "then is for variant=layer"),
        ("saliency:k=577", InputError, "at most the 576"),
        ("saliency-cluster:k=9,rule=rest,share=0", SpecError, "share"),
        ("divprune:k=577", InputError, "at most the 576"),
        ("cdpruner:k=9,text_segments=0", SpecError, "text_segments"),
        ("cdpruner:k=9,position=before_projector", SpecError, "unknown key 'position'"),
    ],
)
def test_what_is_refused(compress: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        built(compress)


def test_parts_of_saliency_and_clustering_add_up() -> None:
    score, clusters = own("saliency:k=64"), own("cluster:k=64,iterations=10")
    pick = own("saliency-cluster:k=64,iterations=10")
    parts = {name.partition(".")[2]: value for name, value in pick.items()}
    assert parts["product"] == score["saliency.product"]
    for step in ("init_distance", "assign_distance", "update_sum"):
        assert parts[step] == clusters[f"cluster.{step}"]
    top = own("saliency-cluster:k=64,rule=top-k")
    assert sum(top.values()) == sum(score.values())
    # 32 by score; the other 544 in 32 clusters.
    rest = own("saliency-cluster:k=64,rule=rest,iterations=10")
    assert rest["saliency-cluster.assign_distance"] == 10 * 2 * 544 * 32 * D
    # All by score: nothing is left to cluster.
    assert not any("distance" in name for name in own("saliency-cluster:k=64,rule=rest,share=1"))


@pytest.mark.parametrize(("impl", "safe"), [("eager", False), ("fused", True), ("sklearn", False)])
def test_what_a_cuda_graph_can_hold(impl: str, safe: bool) -> None:
    assert plan_of(f"saliency-cluster:k=64,impl={impl}").graph_safe is safe


def test_diversity_of_the_released_code() -> None:
    compress = "divprune:k=64"
    assert matmuls(compress) == 2 * N**2 * D
    # Two for norms, a product, a subtraction; three first; six a step; order and gather.
    assert sum(own(compress, "launches").values()) == 2 + 1 + 1 + 3 + 6 * 63 + 2
    moved = own(compress, "bytes_moved")
    # 63 steps copy 1, 2 ... 63 rows: 2016 rows read, written, and read again.
    assert moved["divprune.rows"] == 2 * 2016 * N * 2
    assert moved["divprune.farthest"] == pytest.approx(2016 * N * 2 + 63 * N * 10)
    images, batch = ("336x336",) * 3, 2
    many = own(compress, "launches", images=images, batch=batch)
    assert sum(many.values()) == 6 * sum(own(compress, "launches").values())
    # The distances stay in memory throughout.
    assert all(
        value >= N**2 * 2
        for name, value in own(compress, "live").items()
        if name.rpartition(".")[2] in ("distance", "first", "rows", "farthest")
    )


def test_diversity_with_a_running_minimum() -> None:
    compress = "divprune:k=64,impl=running"
    assert matmuls(compress) == 2 * N**2 * D
    one = sum(own(compress, "launches").values())
    assert one == 2 + 1 + 1 + 3 + 4 * 63 + 2
    assert sum(own(compress, "launches", images=("336x336",) * 3, batch=2).values()) == one
    lean, released = (
        sum(own(c, "bytes_moved").values()) for c in (compress, "divprune:k=64")
    )  # fmt: skip
    assert lean < released


def test_before_the_projector_diversity_works_on_narrow_vectors() -> None:
    assert matmuls("divprune:k=64,position=before_projector") == 2 * N**2 * 1024


def test_the_text_tower_of_clip() -> None:
    program, plan = built("cdpruner:k=64")
    assert plan is not None
    weights = {item.name: item.count for item in plan.weights}
    numbers = evaluate_expressions(list(weights.values()), resolve(program, "prefill"))
    by_name = dict(zip(weights, map(float, numbers), strict=True))
    # transformers 5: CLIPTextModelWithProjection of clip-vit-large-patch14-336.
    text = sum(value for name, value in by_name.items() if ".text." in name)
    assert text == 123_650_304
    assert by_name["cdpruner.visual_projection"] == 1024 * 768
    # FlopCounterMode on that model, one segment of 77 tokens.
    flops = own("cdpruner:k=64")
    counted = {op.name for op in plan.ops if op.matmul}
    tower = sum(flops[name] for name in counted if ".text." in name)
    assert tower == 13_299_683_328
    twice = own("cdpruner:k=64,text_segments=2")
    assert sum(twice[name] for name in counted if ".text." in name) == 2 * tower


def test_a_determinantal_point_process() -> None:
    flops = own("cdpruner:k=64")
    assert flops["cdpruner.similarity"] == 2 * N**2 * D
    assert flops["cdpruner.cholesky"] == 64 * 63 * N
    assert flops["cdpruner.relevance"] == 2 * N * 768
    assert flops["cdpruner.visual_projection"] == 2 * N * 1024 * 768
    steps = [sum(own(f"cdpruner:k={k}", "launches").values()) for k in (64, 65)]
    assert steps[1] - steps[0] == 17
    # Requests one by one, images of a request at once; both streams and the mask are waited for.
    assert sum(own("cdpruner:k=64", "host_syncs").values()) == 2
    assert sum(own("cdpruner:k=64", "host_syncs", batch=3).values()) == 6
    one = sum(own("cdpruner:k=64", "launches").values())
    assert sum(own("cdpruner:k=64", "launches", images=("336x336",) * 3).values()) == one
    assert sum(own("cdpruner:k=64", "launches", batch=3).values()) == 3 * one
    # fp32: similarity, kernel and its temporary.
    assert own("cdpruner:k=64", "live")["cdpruner.kernel"] >= 3 * N**2 * 4


def test_crops_of_one_image() -> None:
    compress = "holov:k=64"
    # Sixteen crops of 36 tokens.
    assert matmuls(compress) == 16 * 2 * 36**2 * D
    launches = {name.partition(".")[2]: n for name, n in own(compress, "launches").items()}
    assert sum(launches[part] for part in ("normalise", "similarity", "variance", "score")) == (
        16 * 26
    )
    # Four reads of the shares, two for each of the eight left over, three for each crop.
    assert sum(own(compress, "host_syncs").values()) == 4 + 2 * 8 + 3 * 16
    assert sum(own(compress, "host_syncs", batch=4).values()) == 4 * (4 + 2 * 8 + 3 * 16)
    assert sum(own("holov:k=64,leftover=0", "host_syncs").values()) == 4 + 3 * 16
    plan = plan_of(compress)
    assert not plan.graph_safe
    assert plan.needs_attention_weights
    # FACTS 1.3: 24 layers x 16 heads x 577^2 in fp16 are kept while crops are scored.
    kept = 24 * 16 * 577**2 * 2
    evaluation = evaluate(built(compress)[0])
    live = {op.name: float(x) for op, x in zip(evaluation.ops, evaluation.live, strict=True)}
    assert all(live[op.name] >= kept for op in plan.ops)
    tower, plain = (
        sum(value for name, value in rows(c).items() if name.startswith("vision") and (
            ".attention" not in name
        ))
        for c in (compress, None)
    )  # fmt: skip
    assert tower == plain
    assert result(compress).flops["vision_encoder"] == result(None).flops["vision_encoder"]
    one = own("holov:k=64,maps=one", "bytes_moved")
    assert one == own(compress, "bytes_moved")
    assert (
        result("holov:k=64,maps=one").bytes_moved["vision_encoder"]
        < result(compress).bytes_moved["vision_encoder"]
    )
    for bad in ("crops=577", "leftover=17"):
        with pytest.raises(InputError, match=f"compress holov {bad.partition('=')[0]}"):
            built(f"holov:k=64,{bad}")


def test_a_method_before_the_language_model_and_one_inside_it() -> None:
    both = prepare(
        "llava-1.5-7b", "a100", text_tokens=T,
        compress=["divprune:k=192", "saliency:k=64,variant=layer,layer=1"],
    ).program()[1]  # fmt: skip
    assert both is not None
    assert both.kept.mean == 64
    found = result(("divprune:k=192", "saliency:k=64,variant=layer,layer=1"))
    assert found.tokens["prefill"] == 192 + T
    kv = 2 * HEADS * 128 * 2
    assert found.memory_bytes["kv_cache"] == kv * (2 * (192 + T) + 30 * (64 + T))
    inside = "one method inside the language model: saliency and saliency"
    with pytest.raises(UnsupportedError, match=inside):
        result(("saliency:k=192,variant=layer", "saliency:k=64,variant=layer"))
    order = "divprune after the projector, which is before it"
    with pytest.raises(UnsupportedError, match=order):
        result(("saliency:k=192,variant=layer", "divprune:k=64"))


def test_labels() -> None:
    text = "saliency:k=64,variant=layer,layer=3,then=restart"
    assert parse(text).label == text
