"""HiRED, MQT and TokenPacker: budgets, products and side effects by hand.

Widths of LLaVA-1.5-7B: tower 1024 with 16 heads of 64, language model 4096 in 32 layers.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import Estimate, estimate
from costmodel.compression.method import Context, load_method, parse
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import CostModelError, InputError, SpecError, UnsupportedError
from costmodel.estimation import prepare
from costmodel.evaluation import evaluate

C, D, N = 1024, 4096, 576
NEXT = "llava-next-vicuna-7b"
SQUARE, WIDE = ((672, 672),), ((1000, 600),)


def made(compress: str | None, model: str = "llava-1.5-7b", **options: Any) -> Estimate:
    asked = {"text_tokens": 64, "time_model": "ideal", **options}
    return estimate(model, "a100-80gb-sxm", compress=compress, **asked)


def plan(compress: str, model: str = "llava-1.5-7b", **options: Any) -> CompressionPlan:
    case = prepare(model, "a100", text_tokens=64, **options)
    return parse(compress).plan(Context(case.model, case.images, case.deployment))


def own(compress: str, quantity: str, model: str = "llava-1.5-7b", **options: Any) -> float:
    rows = [op for op in made(compress, model, **options).ops if op.stage == "compression"]
    return sum(float(getattr(op, quantity)) for op in rows)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(("window", "kept"), [(1, 576), (2, 144), (3, 64), (4, 36)])
def test_products_of_tokenpacker(window: int, kept: int, batch: int) -> None:
    keys = 2 * N * (4 * C * C + C * C)
    query, out = kept * C * C, kept * C * C
    inputs = kept * C * C + 2 * N * C * C
    # Every fine token is in one region, whose one query attends to it.
    attention = 2 * N * C
    mlp = kept * (C * D + D * D)
    found = made(f"tokenpacker:window={window}", batch=batch)
    expected = 2 * batch * (keys + query + inputs + attention + out + mlp)
    assert found.flops["compression"] == expected
    assert found.tokens["visual_kept"] == kept
    assert found.flops["projector"] == 0


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("kept", [1, 64, 256])
def test_products_of_mqt(kept: int, batch: int) -> None:
    inputs = kept * C * C + 2 * N * C * C
    expected = 2 * batch * (inputs + 2 * kept * N * C + kept * C * C + kept * C * D)
    found = made(f"mqt:k={kept}", batch=batch)
    assert found.flops["compression"] == expected
    assert found.tokens["visual_kept"] == kept
    assert found.flops["projector"] == 0


def test_parameters_replace_those_of_the_projector() -> None:
    # Modules of the authors' code: see the counts with torch in tests/reference.
    projector = C * D + D + D * D + D
    plain = made(None).memory_bytes["weights"]
    for compress, count in (("mqt", 8_923_136), ("tokenpacker", 36_722_688)):
        assert made(compress).memory_bytes["weights"] == plain + 2 * (count - projector)


@pytest.mark.parametrize("kept", [64, 144])
@pytest.mark.parametrize("compress", ["hired:k={}", "mqt:k={}", "tokenpacker"])
def test_only_kept_tokens_are_cached(compress: str, kept: int) -> None:
    if compress == "tokenpacker":
        compress = f"tokenpacker:window={24 // int(kept**0.5)}"
    found = made(compress.format(kept))
    assert found.memory_bytes["kv_cache"] == 2 * 32 * (kept + 64) * 4096 * 2


def test_queries_are_as_many_as_were_trained() -> None:
    with pytest.raises(SpecError, match="less than or equal to 256"):
        parse("mqt:k=257")
    case = prepare("llava-1.5-7b", "a100", text_tokens=64)
    seen = Context(case.model, case.images, case.deployment)
    with pytest.raises(InputError, match="at most 256 per tower sequence"):
        load_method("mqt").params_for(257, seen)


@pytest.mark.parametrize("second", ["mqt", "tokenpacker", "hired:k=9"])
@pytest.mark.parametrize("first", ["tome:kept=300", "fastervlm:k=300"])
def test_no_other_method_shortens_the_grid_first(first: str, second: str) -> None:
    with pytest.raises(UnsupportedError):
        made(f"{first} then {second}")


@pytest.mark.parametrize("compress", ["mqt", "tokenpacker", "hired:k=64"])
@pytest.mark.parametrize("model", ["qwen2-vl-7b", "internvl3-8b", "idefics3-8b"])
def test_towers_and_projectors_that_do_not_fit(compress: str, model: str) -> None:
    with pytest.raises(CostModelError, match="compress"):
        made(compress, model)


def test_hired_computes_late_attention_again() -> None:
    found = made("hired:k=64")
    assert found.flops["compression"] == 2 * 16 * 577**2 * 64
    assert own("hired:k=64", "launches") == 8
    assert own("hired:k=64", "host_syncs") == 1
    # 64 rows instead of 576 pass the projector, which stays where it is.
    assert found.flops["projector"] == made(None).flops["projector"] / 9
    assert not plan("hired:k=64").graph_safe
    assert not plan("hired:k=64").needs_attention_weights


@pytest.mark.parametrize(("model", "images", "maps"), [("llava-1.5-7b", (), 1), (NEXT, SQUARE, 10)])
def test_hired_keeps_maps_of_hooked_layers(model: str, images: Any, maps: int) -> None:
    case = prepare(model, "a100", text_tokens=64, compress="hired:k=64", images=images)
    found = evaluate(case.program()[0])
    index = [op.name for op in found.ops].index("hired.gather")
    # One layer of one sequence; two layers of five; and the vectors that are gathered.
    width = D if model == NEXT else C
    assert found.live[index] == maps * 16 * 577**2 * 2 + 64 * width * 2 * 2


def test_hired_hooks_leave_the_tower_its_kernel() -> None:
    plain = made(None, NEXT, images=SQUARE)
    found = made("hired", NEXT, images=SQUARE)
    assert found.time_s["vision_encoder"] == pytest.approx(plain.time_s["vision_encoder"])
    assert found.bytes_moved["vision_encoder"] == plain.bytes_moved["vision_encoder"]
    groups = plan("hired", NEXT, images=SQUARE).tower_groups
    assert [group.layers for group in groups] == [1, 22, 1]
    assert {group.attention for group in groups} == {None}


def test_hired_spends_its_budget_tile_by_tile() -> None:
    # 0.2 of five times 576: half for the whole image, half for four tiles.
    found = made("hired", NEXT, images=SQUARE)
    assert found.tokens["visual_kept"] == 576
    assert found.flops["compression"] == 2 * (5 * 2 * 16 * 577**2 * 64)
    assert own("hired", "launches", NEXT, images=SQUARE) == 2 * 5 + 14 + 4 * 3 + 2 + 2 + 2
    assert own("hired", "host_syncs", NEXT, images=SQUARE) == 4 + 2
    # All tokens pass the projector before any is dropped.
    assert found.flops["projector"] == made(None, NEXT, images=SQUARE).flops["projector"]


@pytest.mark.parametrize(
    ("compress", "images", "kept"),
    [
        # The whole image has no more than its 576, the rest is for the tiles.
        ("hired:k=1500,alpha=0.9", SQUARE, 1500),
        ("hired:k=2000,alpha=0.5", SQUARE, 2000),
        # A share of 1 and all tokens leave the image and its newline tokens as they are.
        ("hired:retention=1", SQUARE, 2928),
        ("hired:k=2928", SQUARE, 2928),
        # Padding has no tokens that could be kept.
        ("hired:retention=0.99", WIDE, 1948),
        ("hired:k=1000", WIDE, 1000),
    ],
)
def test_budgets_of_images_with_tiles(
    compress: str, images: tuple[tuple[int, int]], kept: int
) -> None:
    assert plan(compress, NEXT, images=images).kept.mean == kept


@pytest.mark.parametrize("images", [SQUARE, WIDE, (*SQUARE, *WIDE)])
def test_hired_keeps_everything_with_tiles(images: tuple[tuple[int, int], ...]) -> None:
    found, plain = made("hired:retention=1", NEXT, images=images), made(None, NEXT, images=images)
    assert found.flops == plain.flops
    assert found.bytes_moved == plain.bytes_moved
    assert found.memory_bytes == plain.memory_bytes


@given(
    tokens=st.lists(st.integers(1, 2928), min_size=2, max_size=2).map(sorted),
    alpha=st.floats(0.05, 1),
)
def test_a_larger_budget_never_leaves_fewer_tokens(tokens: list[int], alpha: float) -> None:
    fewer, more = (
        plan(f"hired:k={k},alpha={alpha}", NEXT, images=SQUARE).kept.mean for k in tokens
    )
    assert fewer <= more <= 2928
    assert fewer <= tokens[0] or tokens[0] >= 2880


def test_bad_budgets_of_hired() -> None:
    with pytest.raises(SpecError, match="give k or retention, not both"):
        parse("hired:k=3,retention=0.5")
    with pytest.raises(InputError, match="at most the 576 tokens of an image"):
        plan("hired:k=577")
    case = prepare("llava-1.5-7b", "a100", text_tokens=64)
    seen = Context(case.model, case.images, case.deployment)
    with pytest.raises(InputError, match=r"visual-tokens-kept: 577 .*at most the 576"):
        load_method("hired").params_for(577, seen)


@pytest.mark.parametrize("name", ["hired", "mqt"])
@pytest.mark.parametrize("kept", [192, 128, 64])
def test_budgets_are_reached(name: str, kept: int) -> None:
    assert made(load_request(name, kept)).tokens["visual_kept"] == kept


def load_request(name: str, kept: int) -> str:
    case = prepare("llava-1.5-7b", "a100", text_tokens=64)
    values = load_method(name).params_for(kept, Context(case.model, case.images, case.deployment))
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in values.items())


def test_tokenpacker_reaches_squares_only() -> None:
    assert load_request("tokenpacker", 64) == "tokenpacker:window=3"
    with pytest.raises(InputError, match="36, 64, 144, 576"):
        load_request("tokenpacker", 192)
