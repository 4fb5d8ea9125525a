"""Methods that act between the layers of the language model."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import Estimate, estimate
from costmodel.compression.dropping import drops, later_tokens, numbers
from costmodel.compression.method import Context, load_method
from costmodel.compression.plan import DecoderGroup
from costmodel.compression.recycling import recycled
from costmodel.errors import InputError, SpecError
from costmodel.estimation import prepare

MODEL = "llava-1.5-7b"
LAYERS, WIDTH, MLP, HEADS, HEAD = 32, 4096, 11008, 32, 128
KV_TOKEN = 2 * WIDTH * 2
"""Bytes of one token's keys and values in one layer, fp16."""


@lru_cache(maxsize=500)
def run(compress: str | None, model: str = MODEL, text: int = 64, **options: Any) -> Estimate:
    return estimate(model, "a100", text_tokens=text, compress=compress, **options)


def context(model: str = MODEL, **options: Any) -> Context:
    case = prepare(model, "a100", text_tokens=64, **options)
    return Context(case.model, case.images, case.deployment)


def own(compress: str, quantity: str, **options: Any) -> dict[str, float]:
    rows = run(compress, **options).ops
    return {row.name: float(getattr(row, quantity)) for row in rows if row.stage == "compression"}


def matmul(compress: str, **options: Any) -> float:
    return run(compress, **options).flops["compression"]


def cached(compress: str, **options: Any) -> list[tuple[int, float]]:
    groups = run(compress, **options).memory_bytes["kv_cache_groups"]
    return [(group["layers"], group["bytes"] / group["layers"]) for group in groups]


def layer_flops(tokens: float) -> float:
    """True FLOPs of one decoder layer, full attention (FACTS 4, convention C)."""
    return 2 * (4 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH + 3 * tokens * WIDTH * MLP)


KEEPING_ALL = [
    "fastv:ratio=0,variant=paper",
    "fastv:ratio=0,variant=last-row",
    "fastv:layer=0,ratio=0",
    "pyramiddrop:ratio=1",
    "pyramiddrop:ratio=1,variant=lean",
    "sparsevlm:tokens=576+576+576",
    "sparsevlm:tokens=576+576+576,variant=v2,weights=beside",
    "v2drop:tokens=576+576+576",
    "dart:k=576",
    "pact:k=576,pruned_to=1",
]


@pytest.mark.parametrize("compress", KEEPING_ALL)
def test_keeping_everything_leaves_the_language_model_as_it_is(compress: str) -> None:
    plain, found = run(None), run(compress)
    assert found.tokens["visual_kept"] == found.tokens["visual_equivalent"] == 576
    assert found.tokens["prefill"] == plain.tokens["prefill"]
    assert found.flops["llm_prefill"] == pytest.approx(plain.flops["llm_prefill"], rel=1e-12)
    assert found.flops["vision_encoder"] == plain.flops["vision_encoder"]
    assert found.memory_bytes["kv_cache"] == plain.memory_bytes["kv_cache"]
    if "paper" not in compress and compress != "sparsevlm:tokens=576+576+576":
        moved = (found.bytes_moved["llm_prefill"], plain.bytes_moved["llm_prefill"])
        assert moved[0] == pytest.approx(moved[1], rel=1e-12)


def test_released_fastv_that_keeps_everything_costs_a_layer_and_its_cache() -> None:
    plain, found = run(None), run("fastv:ratio=0")
    assert found.flops["llm_prefill"] == pytest.approx(plain.flops["llm_prefill"], rel=1e-12)
    assert found.flops["compression"] == layer_flops(640)
    assert found.memory_bytes["kv_cache"] - plain.memory_bytes["kv_cache"] == 640 * KV_TOKEN


FEWER = {
    "fastv": "fastv:k={}",
    "dart": "dart:k={}",
    "pact": "pact:pruned_to=1,k={}",
    "v2drop": "v2drop:layers=3+4+5,tokens={0}+{0}+{0}",
    "sparsevlm": "sparsevlm:variant=v2,tokens={0}+{0}+{0}",
    "vtw": "vtw:layer={}",
    "voco-llama": "voco-llama:k={}",
}


@pytest.mark.parametrize("name", FEWER)
@settings(max_examples=10)
@given(data=st.data())
def test_fewer_tokens_never_cost_more_in_the_language_model(name: str, data: st.DataObject) -> None:
    most = 31 if name == "vtw" else 576
    fewer, more = sorted(data.draw(st.tuples(st.integers(1, most), st.integers(1, most))))
    low, high = (run(FEWER[name].format(k)) for k in (fewer, more))
    for stage in ("llm_prefill", "lm_head", "projector", "vision_encoder"):
        assert low.flops[stage] <= high.flops[stage] * (1 + 1e-12)
        assert low.bytes_moved[stage] <= high.bytes_moved[stage] * (1 + 1e-12)
    assert low.memory_bytes["kv_cache"] <= high.memory_bytes["kv_cache"]
    assert low.tokens["visual_equivalent"] <= high.tokens["visual_equivalent"]


@settings(max_examples=10)
@given(ratios=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_a_smaller_share_never_costs_more(ratios: tuple[float, float]) -> None:
    low, high = (run(f"pyramiddrop:ratio={ratio}") for ratio in sorted(ratios))
    assert low.flops["llm_prefill"] <= high.flops["llm_prefill"]
    assert low.memory_bytes["kv_cache"] <= high.memory_bytes["kv_cache"]


def test_fastv_by_hand() -> None:
    n = 64 + 576
    assert matmul("fastv:variant=paper") == 0
    assert matmul("fastv:variant=last-row") == 2 * HEADS * n * HEAD
    assert matmul("fastv:variant=released") == layer_flops(n)
    for variant in ("paper", "released", "last-row"):
        found = run(f"fastv:layer=3,k=100,variant={variant}").flops["llm_prefill"]
        assert found == 3 * layer_flops(n) + 29 * layer_flops(164)


@pytest.mark.parametrize(("variant", "more"), [("paper", 0), ("released", 16), ("last-row", 3)])
def test_launches_of_fastv(variant: str, more: int) -> None:
    """Mean, five that select, gather and nine that make positions; then those of a variant."""
    compress = f"fastv:variant={variant}"
    launches = own(compress, "launches")
    assert sum(launches.values()) == 16 + more
    assert own(compress, "launches", batch=8) == launches
    assert sum(own(compress, "host_syncs").values()) == 0


def test_fastv_holds_an_attention_map() -> None:
    n = 640
    scores = HEADS * n * n
    plain, paper, released = (
        run(compress).memory_bytes["activations_peak"]
        for compress in (None, "fastv:variant=paper", "fastv:variant=released")
    )
    # Scores in fp16 twice and their fp32 softmax; beside them the mask, the queries, the addends of
    # the residual, and the visual tokens that were given.
    assert paper == scores * (2 * 2 + 4) + n * n * 2 + 5 * n * WIDTH * 2 + 576 * WIDTH * 2
    assert paper > plain
    assert released >= paper
    rows = {row.name: row for row in run("fastv:variant=released").ops}
    assert "fastv.weights.layer.attention.softmax" in rows
    assert "decoder_1.attention" in rows
    assert "decoder_1.attention.softmax" in {row.name for row in run("fastv:variant=paper").ops}


def test_kv_cache_of_fastv() -> None:
    whole, cut = 640 * KV_TOKEN, 208 * KV_TOKEN
    assert cached("fastv:k=144,variant=last-row") == [(2, whole), (30, cut)]
    assert cached("fastv:k=144,variant=paper") == [(1, whole), (1, whole), (30, cut)]
    # The public code appends to the cache of the layer that it runs twice.
    assert cached("fastv:k=144") == [(1, whole), (1, 2 * whole), (30, cut)]
    assert cached("fastv:layer=0,k=144") == [(32, cut)]


def test_fastv_before_the_first_layer_is_a_random_choice() -> None:
    found = run("fastv:layer=0,k=144")
    assert found.tokens["prefill"] == 64 + 144
    assert found.flops["llm_prefill"] == run("random:k=144").flops["llm_prefill"]
    assert found.flops["compression"] == 0


def test_pyramiddrop_by_hand() -> None:
    before = [64 + visual for visual in (576, 288, 144)]
    again = sum(2 * n * 3 * WIDTH**2 + 2 * HEADS * n * HEAD for n in before)
    assert matmul("pyramiddrop") == again
    lean = sum(2 * (n + 1) * WIDTH**2 + 2 * HEADS * n * HEAD for n in before)
    assert matmul("pyramiddrop:variant=lean") == lean
    counts = (576, 288, 144, 72)
    found = run("pyramiddrop").flops["llm_prefill"]
    assert found == sum(8 * layer_flops(64 + visual) for visual in counts)
    assert cached("pyramiddrop") == [(8, (64 + visual) * KV_TOKEN) for visual in counts]


def test_pyramiddrop_loops_over_the_batch() -> None:
    one, four = (sum(own("pyramiddrop", "launches", batch=b).values()) for b in (1, 4))
    # Four of the row, six of the ranking and four that move rows: each stage, each request.
    assert four - one == 3 * 3 * 14
    assert sum(own("pyramiddrop", "host_syncs", batch=4).values()) == 3 * 4 * 2
    lean = [sum(own("pyramiddrop:variant=lean", "launches", batch=b).values()) for b in (1, 4)]
    assert lean[0] == lean[1]
    assert sum(own("pyramiddrop:variant=lean", "host_syncs").values()) == 0
    assert any("CUDA graph" in note for note in run("pyramiddrop").notes)
    assert not any("CUDA graph" in note for note in run("pyramiddrop:variant=lean").notes)


def test_published_flops_of_pyramiddrop() -> None:
    """FACTS 4 A, visual tokens alone: 3.82 T becomes 1.78 T."""

    def published(counts: list[tuple[int, float]]) -> float:
        return sum(layers * layer_flops(n) / 2 for layers, n in counts) / 1e12

    groups = cached("pyramiddrop", text=1)
    visual = [(layers, size / KV_TOKEN - 1) for layers, size in groups]
    assert round(published([(32, 576)]), 2) == 3.82
    assert round(published(visual), 2) == 1.78


def test_published_flops_of_fastv() -> None:
    """FACTS 4 B: mean per layer of LLaVA-1.5-7B, 99.33 B of 612 tokens; two-matrix MLP, MAC.

    Layers that the method leaves with n tokens are found from the cache.
    """

    def macs(n: float) -> float:
        return 4 * n * WIDTH**2 + 2 * n**2 * WIDTH + 2 * n * WIDTH * MLP

    def mean(compress: str | None) -> float:
        groups = cached(compress, text=36) if compress else [(32, 612 * KV_TOKEN)]
        return sum(layers * macs(size / KV_TOKEN) for layers, size in groups) / LAYERS / 1e9

    assert round(mean(None), 2) == 99.33
    kept = [(324, 0.5), (180, 0.75), (93.6, 0.9)]
    for tokens, ratio in kept:
        found = cached(f"fastv:ratio={ratio},variant=last-row", text=36)[-1][1] / KV_TOKEN
        assert abs(found - tokens) <= 0.5


@pytest.mark.parametrize(
    ("budget", "equivalent", "tera"),
    # FACTS 1.3 and section 2: averages with merges, and FLOPs of table 1 (694 tokens, 2 MAC).
    [(192, 206, 2.14), (128, 145, 1.72), (96, 114, None), (64, 82, 1.30)],
)
def test_published_averages_of_sparsevlm(budget: int, equivalent: int, tera: float | None) -> None:
    found = run(f"sparsevlm:budget={budget}", text=118)
    assert int(found.tokens["visual_equivalent"]) == equivalent
    if tera is not None:
        assert found.flops["llm_prefill"] / 2e12 == pytest.approx(tera, rel=0.012)


def test_equivalent_tokens_of_fastv() -> None:
    # FACTS 4 G: K = 2 and a quarter of 576 kept are 171 tokens.
    assert run("fastv:layer=2,k=144").tokens["visual_equivalent"] == 171
    assert run("fastv:layer=2,ratio=0.75").tokens["visual_equivalent"] == 171
    assert run(None).tokens["visual_equivalent"] == 576
    assert run("random:k=64").tokens["visual_equivalent"] == 64


def test_sparsevlm_keeps_everything_in_all_stages_if_asked_to() -> None:
    # One token dropped comes back as its own cluster: 575 kept would leave 576 too.
    values = load_method("sparsevlm").params_for(576, context())
    assert values == {"tokens": "576+576+576"}
    assert run("sparsevlm:tokens=576+576+576").tokens["visual_equivalent"] == 576


def test_sparsevlm_by_hand() -> None:
    # Ratings by the 29 text tokens behind the image; nothing else is a matrix product.
    assert matmul("sparsevlm") == 2 * 576 * (64 - 35) * WIDTH
    beside = matmul("sparsevlm:weights=beside") - matmul("sparsevlm")
    assert beside == sum(2 * HEADS * (64 + n) ** 2 * HEAD for n in (576, 309, 204))
    flops = own("sparsevlm", "flops")
    assert [flops[f"sparsevlm_{i}.distances"] for i in range(3)] == [
        3 * n * n * WIDTH for n in (83, 33, 29)
    ]
    assert [recycled(n) for n in (276, 109, 94)] == [(83, 9), (33, 4), (29, 3)]


def test_sparsevlm_writes_the_difference_of_every_pair() -> None:
    rows = {row.name: row for row in run("sparsevlm:budget=64").ops}
    assert rows["sparsevlm_0.distances"].bytes["act_out"] == 154**2 * WIDTH * 2
    found = run("sparsevlm:budget=64").memory_bytes
    assert found["activations_peak_op"] == "sparsevlm_0.distances"
    # Beside what the caller gave.
    assert found["activations_peak"] == (154**2 + 576) * WIDTH * 2
    assert own("sparsevlm:variant=v2", "launches").keys().isdisjoint({"sparsevlm_0.distances"})


def test_kv_cache_and_attention_of_sparsevlm() -> None:
    groups = [(2, 576), (1, 576), (3, 309), (1, 309), (8, 204), (1, 204), (16, 113)]
    assert cached("sparsevlm") == [(layers, (64 + n) * KV_TOKEN) for layers, n in groups]
    names = {row.name for row in run("sparsevlm").ops}
    eager = {f"decoder_{i}" for i in range(7) if f"decoder_{i}.attention.softmax" in names}
    assert eager == {"decoder_1", "decoder_3", "decoder_5"}
    assert not any(
        name.startswith("decoder") and "softmax" in name
        for name in {row.name for row in run("sparsevlm:weights=beside").ops}
    )
    assert len(cached("sparsevlm:weights=beside")) == 4


def test_sparsevlm_waits_for_every_request() -> None:
    one, four = (sum(own("sparsevlm", "host_syncs", batch=b).values()) for b in (1, 4))
    assert one == 1 + 3 * 4
    assert four == 1 + 4 * 3 * 4


def test_vtw_withdraws_all() -> None:
    found = run("vtw:layer=16")
    assert found.tokens["visual_kept"] == 0
    assert found.tokens["visual_equivalent"] == 288
    assert found.flops["llm_prefill"] == 16 * layer_flops(640) + 16 * layer_flops(64)
    assert cached("vtw:layer=16") == [(16, 640 * KV_TOKEN), (16, 64 * KV_TOKEN)]
    assert sum(own("vtw", "launches").values()) == 2
    assert matmul("vtw") == 0


def test_markers_outlive_a_withdrawal() -> None:
    found = run("vtw:layer=14", model="qwen2-vl-7b")
    assert found.tokens["visual_kept"] == found.tokens["visual_markers"] == 2


def test_shortv_saves_flops_and_no_cache() -> None:
    plain, found = run(None), run("shortv")
    frozen = 2 * (64 * (2 * WIDTH**2 + 3 * WIDTH * MLP) + 640 * 2 * WIDTH**2)
    frozen += 4 * 64 * 640 * WIDTH
    assert found.flops["llm_prefill"] == 13 * layer_flops(640) + 19 * frozen
    assert found.memory_bytes["kv_cache"] == plain.memory_bytes["kv_cache"]
    assert found.tokens["visual_equivalent"] == 576 * 13 / 32
    assert found.tokens["prefill"] == 640
    rows = {row.name: row for row in found.ops}
    # The first layer rests too: all tokens are embedded and merged for its keys.
    assert rows["embed_tokens"].shape["rows"] == 640
    assert rows["merge_visual"].shape["rows"] == 576
    assert rows["final_norm"].shape["rows"] == 640
    assert found.time_s["llm_prefill"] < plain.time_s["llm_prefill"]
    assert all(size == 640 * KV_TOKEN for _, size in cached("shortv"))


def test_published_flops_of_shortv() -> None:
    """FACTS 2: 8.50 T of 640 tokens; 2 n (4 h + 3 m) h + 4 n^2 h."""
    assert round(run(None).flops["llm_prefill"] / 1e12, 2) == 8.50


def test_v2drop_by_hand() -> None:
    counts = [(3, 576), (14, 288), (5, 144), (10, 1)]
    assert cached("v2drop") == [(layers, (64 + n) * KV_TOKEN) for layers, n in counts]
    assert matmul("v2drop") == 0
    flops = own("v2drop", "flops")
    changes = sum(flops[f"v2drop_{index}.change"] for index in range(3))
    assert changes == 3 * (576 + 288 + 144) * WIDTH
    # The state that entered the layer before rests beside the layer.
    more = (
        run("v2drop").memory_bytes["activations_peak"] - run(None).memory_bytes["activations_peak"]
    )
    assert more == 640 * WIDTH * 2


def test_dart_asks_pivot_by_pivot() -> None:
    assert cached("dart:k=144") == [(2, 640 * KV_TOKEN), (30, 208 * KV_TOKEN)]
    launches = own("dart", "launches")
    assert launches["dart.similarity"] == 8 * 8
    assert own("dart:pivots=4", "launches")["dart.similarity"] == 4 * 8
    assert sum(own("dart", "host_syncs", batch=2).values()) == 2 * (8 + 2)
    assert matmul("dart") == 0
    assert not any("softmax" in row.name for row in run("dart").ops)


def test_pact_by_hand() -> None:
    n, kept = round(0.55 * 576), 128
    again = 2 * 640 * 3 * WIDTH**2
    assert matmul("pact") == again + 2 * (n * n + (576 - n) * kept) * WIDTH
    assert cached("pact") == [(4, 640 * KV_TOKEN), (28, 192 * KV_TOKEN)]
    assert not any("attention.softmax" in row.name for row in run("pact").ops)


def test_vscan_by_hand() -> None:
    """README of its code: 96 tokens, 32 from layer 16 on, are 64 on average."""
    found = run("vscan")
    assert found.tokens["visual_equivalent"] == 64
    assert found.tokens["prefill"] == 64 + 96
    assert cached("vscan") == [(16, 160 * KV_TOKEN), (16, 96 * KV_TOKEN)]
    again = 2 * 160 * 3 * WIDTH**2 + 2 * HEADS * 160 * HEAD
    assert matmul("vscan") == 2 * (576 - 96) * 96 * 1024 + again
    assert found.flops["llm_prefill"] == 16 * (layer_flops(160) + layer_flops(96))
    # The projector works on 96 of the 576 rows: 24,159,191,040 FLOP for all.
    assert found.flops["projector"] == 24_159_191_040 * 96 / 576
    names = {row.name for row in run("vscan:maps=two").ops}
    assert {name for name in names if name.startswith("vision_") and "softmax" in name} == {
        "vision_1.attention.softmax", "vision_3.attention.softmax",
    }  # fmt: skip
    with pytest.raises(InputError, match="at most k=96"):
        run("vscan:left=97")
    with pytest.raises(InputError, match="a layer before 23"):
        run("vscan:local_layer=23")


def test_bottlenecks_keep_one_token_and_save_no_prefill() -> None:
    plain = run(None)
    for compress, visual in (("voco-llama", 577), ("htc-vlm", 581)):
        found = run(compress)
        assert found.tokens["prefill"] == 64 + visual
        assert found.tokens["visual_kept"] == 1
        assert found.flops["llm_prefill"] == 32 * layer_flops(64 + visual)
        assert found.flops["llm_prefill"] > plain.flops["llm_prefill"]
        assert cached(compress) == [(32, 65 * KV_TOKEN)]
        assert found.time_s["tpot"] < plain.time_s["tpot"]
    assert matmul("voco-llama") == 0
    assert matmul("htc-vlm") == 2 * (14112 * WIDTH + WIDTH * 4 * WIDTH)
    assert run("htc-vlm").params["compression"] == (
        14112 * WIDTH + WIDTH * 4 * WIDTH + WIDTH + 4 * WIDTH
    )


@pytest.mark.parametrize("kept", [192, 128, 64])
@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("fastv", 1),
        ("pyramiddrop", 1),
        ("dart", 1),
        ("v2drop", 1),
        ("vtw", 9),
        ("sparsevlm", 19),
        ("vscan", 1),
    ],
)
def test_parameters_for_a_mean_over_the_layers(name: str, within: float, kept: int) -> None:
    values = load_method(name).params_for(kept, context())
    text = ",".join(f"{key}={value}" for key, value in values.items())
    assert abs(run(f"{name}:{text}").tokens["visual_equivalent"] - kept) <= within


@pytest.mark.parametrize("kept", [192, 128])
def test_parameters_of_a_later_layer(kept: int) -> None:
    values = load_method("pact").params_for(kept, context())
    text = ",".join(f"{key}={value}" for key, value in values.items())
    assert abs(run(f"pact:{text}").tokens["visual_equivalent"] - kept) <= 1


def test_released_lists_come_under_their_published_number() -> None:
    assert load_method("sparsevlm").params_for(128, context()) == {"budget": 128}
    values = load_method("sparsevlm").params_for(160, context())
    found = run(f"sparsevlm:tokens={values['tokens']}").tokens["visual_equivalent"]
    assert abs(found - 160) <= 1
    wide = load_method("sparsevlm").params_for(320, context("llava-next-vicuna-7b"))
    text = f"sparsevlm:tokens={wide['tokens']}"
    found = run(text, model="llava-next-vicuna-7b").tokens["visual_equivalent"]
    assert abs(found - 320) <= 2


@pytest.mark.parametrize("name", ["voco-llama", "htc-vlm"])
def test_a_budget_of_a_bottleneck_is_what_stays_cached(name: str) -> None:
    assert load_method(name).params_for(64, context()) == {"k": 64}
    with pytest.raises(InputError, match="at most the 576 tokens"):
        load_method(name).params_for(577, context())


@pytest.mark.parametrize(
    ("name", "kept", "said"),
    [
        ("fastv", 30, r"37 to 576 tokens of each image .* with layer=2"),
        ("fastv", 577, "37 to 576"),
        ("dart", 30, "37 to 576"),
        ("pact", 64, "73 to 576"),
        ("vtw", 5, "18 to 558"),
        ("vtw", 576, "18 to 558"),
        ("shortv", 64, "234 to 558"),
        ("v2drop", 40, "55 tokens of each image or more"),
        ("pyramiddrop", 600, "at most all"),
        ("pyramiddrop", 3, "more tokens"),
        ("sparsevlm", 40, "a mean over the layers of"),
    ],
)
def test_budgets_out_of_reach(name: str, kept: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_method(name).params_for(kept, context())


@pytest.mark.parametrize(
    ("compress", "said"),
    [
        ("fastv:layer=32", "ascending layers from 1 to 31 of the 32"),
        ("fastv:k=577", "at most the 576"),
        ("pyramiddrop:layers=16+8", "ascending"),
        ("vtw:layer=40", "ascending"),
        ("sparsevlm:tokens=5+6", "3 numbers"),
        ("sparsevlm:layers=2+6+31", "ascending"),
        ("v2drop:tokens=9+10+1", "at most the 9"),
        ("v2drop:tokens=9+1", "3 numbers"),
        ("v2drop:layers=1+2", "three layers"),
        ("dart:k=600", "at most the 576"),
        ("pact:k=400", "at most the 317"),
        ("shortv:layers=1+1", "different layers"),
        ("shortv:n=25", "at most 19"),
        ("voco-llama:k=600", "at most the 576"),
    ],
)
def test_parameters_that_do_not_fit_the_model(compress: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(compress)


@pytest.mark.parametrize(
    "compress",
    ["fastv:k=5,ratio=0.5", "pyramiddrop:layers=a", "sparsevlm:tokens=1;2", "shortv:layers=-1"],
)
def test_parameters_that_are_not_valid(compress: str) -> None:
    with pytest.raises(SpecError):
        run(compress)


def test_tokens_that_rest_or_expand_stay_cached() -> None:
    assert DecoderGroup(1, 0, visual_kv=576).cached == 576
    assert DecoderGroup(1, 192, visual_attended=576).cached == 576
    assert DecoderGroup(1, 192).cached == 192
    assert DecoderGroup(1, 192, visual_kv=300, visual_cached=0).cached == 0


def test_a_schedule_checks_itself() -> None:
    with pytest.raises(InputError, match="at most the 10"):
        drops(context(), "test", (3, 5), (10, 11))
    with pytest.raises(InputError, match="ascending"):
        drops(context(), "test", (), ())
    with pytest.raises(ValueError, match="whole numbers"):
        numbers("3+x", "layers")
    assert later_tokens(context(), "test", 171, 2) == 144


@pytest.mark.parametrize("model", ["llava-next-mistral-7b", "qwen2-vl-7b", "llava-1.5-13b"])
@pytest.mark.parametrize("name", ["fastv", "pyramiddrop", "sparsevlm", "vtw", "v2drop", "pact"])
def test_other_models(name: str, model: str) -> None:
    """Grouped queries, biases, markers, other depths."""
    plain, found = run(None, model=model), run(name, model=model)
    assert found.flops["llm_prefill"] < plain.flops["llm_prefill"]
    assert found.memory_bytes["kv_cache"] < plain.memory_bytes["kv_cache"]
    assert found.tokens["visual_equivalent"] < plain.tokens["visual_equivalent"]


@pytest.mark.parametrize("runtime", ["eager", "compiled"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_other_runtimes_and_devices(runtime: str, attention: str) -> None:
    for name in ("fastv", "pyramiddrop", "sparsevlm:weights=beside", "shortv", "pact", "dart"):
        found = run(name, runtime=runtime, attention=attention, tp=2)
        assert found.flops["llm_prefill"] > 0
