"""What each method does to a request: counts, operators, parameters, limits."""

from __future__ import annotations

import inspect
import math
import re
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.compression.method import Context, list_methods, load_method, parse
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.selection import BudgetParams
from costmodel.errors import InputError, UnsupportedError
from costmodel.estimation import Case, prepare
from costmodel.evaluation import evaluate, evaluate_expressions, resolve
from costmodel.program import Program, build_program

Built = tuple[Case, Program, CompressionPlan]


@lru_cache(maxsize=2000)
def build(compress: str, model: str = "llava-1.5-7b", **options: Any) -> Built:
    case = prepare(model, "a100", compress=compress, **{"text_tokens": 64, **options})
    program, plan = case.program()
    assert plan is not None
    return case, program, plan


def context(model: str = "llava-1.5-7b", **options: Any) -> Context:
    case = prepare(model, "a100", text_tokens=64, **options)
    return Context(case.model, case.images, case.deployment)


def rows(program: Program, quantity: str, prefix: str = "") -> dict[str, float]:
    evaluation = evaluate(program)
    total = getattr(evaluation, quantity) * evaluation.repeat
    return {
        op.name: float(value)
        for op, value in zip(evaluation.ops, total, strict=True)
        if op.name.startswith(prefix)
    }


def own(compress: str, quantity: str, model: str = "llava-1.5-7b", **options: Any) -> float:
    """Sum a quantity over the method's own operators."""
    _, program, plan = build(compress, model, **options)
    names = {op.name for op in plan.ops}
    return sum(value for name, value in rows(program, quantity).items() if name in names)


def tokens(program: Program) -> float:
    """Return the visual tokens that enter the language model."""
    evaluation = evaluate(program)
    index = [op.name for op in evaluation.ops].index("merge_visual")
    return float(evaluation.shapes[index]["rows"])


def weights(program: Program, stage: str) -> float:
    counts = [item.count for item in program.weights if item.stage == stage]
    return float(sum(evaluate_expressions(counts, resolve(program, "prefill"))))


GRID_MODELS = ("llava-1.5-7b", "llava-1.5-13b")
WINDOWS = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24])
POSITIONS = st.sampled_from(["after_projector", "before_projector"])


def keeping(name: str, **extra: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    fields = {"k": st.integers(1, 576), "position": POSITIONS, **extra}
    return st.fixed_dictionaries(fields).map(
        lambda values: f"{name}:" + ",".join(f"{key}={value}" for key, value in values.items())
    )


STRATEGIES: dict[str, st.SearchStrategy[str]] = {
    "none": st.just("none"),
    "random": keeping("random"),
    "spatial": keeping("spatial"),
    "cluster": keeping(
        "cluster",
        iterations=st.integers(0, 30),
        n_init=st.integers(1, 3),
        impl=st.sampled_from(["eager", "fused", "sklearn"]),
        check=st.booleans(),
        order=st.sampled_from(["insertion", "position"]),
    ),
    "avgpool": st.builds("avgpool:window={},position={}".format, WINDOWS, POSITIONS),
    "stf": st.builds("stf:window={}".format, WINDOWS),
    "mbtf": st.builds("mbtf:blocks={},hidden={}".format, st.integers(1, 24), st.integers(1, 9000)),
    "mbtf+stf": st.builds("mbtf+stf:window={},blocks={}".format, WINDOWS, st.integers(1, 24)),
    "saliency": st.one_of(
        st.builds("saliency:k={},variant={}".format, st.integers(1, 576),
                  st.sampled_from(["embedding", "projected"])),
        st.builds("saliency:k={},variant=layer,layer={},then={}".format, st.integers(1, 576),
                  st.integers(0, 30), st.sampled_from(["continue", "restart"])),
    ),
    "saliency-cluster": st.builds(
        "saliency-cluster:k={},variant={},rule={},share={},impl={}".format, st.integers(1, 576),
        st.sampled_from(["embedding", "projected", "layer"]),
        st.sampled_from(["top-k", "pick", "rest"]), st.floats(0.01, 1),
        st.sampled_from(["eager", "fused", "compiled", "sklearn"]),
    ),
    "fastv": st.builds(
        "fastv:layer={},ratio={},variant={}".format, st.integers(0, 31),
        st.sampled_from([0, 0.5, 0.9]), st.sampled_from(["paper", "released", "last-row"]),
    ),
    "pyramiddrop": st.builds(
        "pyramiddrop:layers={},ratio={},variant={}".format,
        st.sampled_from(["8+16+24", "1", "3+30"]), st.sampled_from([0.01, 0.3, 1]),
        st.sampled_from(["released", "lean"]),
    ),
    "sparsevlm": st.builds(
        "sparsevlm:budget={},variant={},weights={}".format,
        st.sampled_from([192, 128, 96, 64]), st.sampled_from(["v1", "v2"]),
        st.sampled_from(["eager", "beside"]),
    ),
    "vtw": st.builds("vtw:layer={}".format, st.integers(1, 31)),
    "v2drop": st.builds("v2drop:layers={},tokens={}".format,
                        st.sampled_from(["3+17+22", "1+2+31"]),
                        st.sampled_from(["576+100+1", "9+9+9"])),
    "dart": st.builds("dart:layer={},k={}".format, st.integers(1, 31), st.integers(1, 576)),
    "pact": st.builds("pact:layer={},k={}".format, st.integers(1, 31), st.integers(1, 317)),
    "shortv": st.builds("shortv:n={}".format, st.integers(1, 19)),
    "vscan": st.builds("vscan:k={},left=9,layer={}".format, st.integers(9, 576),
                       st.integers(1, 31)),
    "voco-llama": st.builds("voco-llama:k={}".format, st.integers(1, 576)),
    "htc-vlm": st.builds("htc-vlm:k={},anchors={}".format, st.integers(1, 64),
                         st.integers(1, 9)),
    "divprune": keeping("divprune", impl=st.sampled_from(["released", "running"])),
    "holov": st.builds("holov:k={},crops={},maps={}".format, st.integers(1, 576),
                       st.integers(1, 64), st.sampled_from(["all", "one"])),
    "tome": st.one_of(
        st.builds("tome:r={},attention={}".format, st.integers(0, 20),
                  st.sampled_from(["eager", "sdpa"])),
        st.builds("tome:kept={}".format, st.integers(64, 576)),
    ),
    "visionzip": st.builds("visionzip:k={},impl={},maps={}".format, st.integers(12, 576),
                           st.sampled_from(["released", "fused"]),
                           st.sampled_from(["all", "one"])),
    "prumerge": st.builds("prumerge:kept={},impl={}".format, st.integers(2, 500),
                          st.sampled_from(["released", "fused"])),
    "prumerge-plus": st.builds("prumerge-plus:kept={},impl={}".format, st.integers(40, 250),
                               st.sampled_from(["released", "fused"])),
    "dymu": st.builds("dymu:level={},impl={}".format,
                      st.sampled_from(["low", "mid", "high"]),
                                    st.sampled_from(["released", "fused"])),
    "fastervlm": st.builds("fastervlm:k={},maps={},position={}".format, st.integers(1, 576),
                           st.sampled_from(["all", "one"]), POSITIONS),
    "vispruner": st.builds("vispruner:k={},maps={},important={}".format, st.integers(1, 576),
                           st.sampled_from(["all", "one"]), st.sampled_from([0.25, 0.5, 1])),
    "m3": st.builds("m3:tokens={}".format, st.sampled_from([1, 9, 36, 144, 576])),
    "hired": st.one_of(
        st.builds("hired:k={},alpha={}".format, st.integers(1, 576), st.floats(0.01, 1)),
        st.builds("hired:retention={}".format, st.floats(0.001, 1)),
    ),
    "mqt": st.builds("mqt:k={}".format, st.integers(1, 256)),
    "tokenpacker": st.builds("tokenpacker:window={}".format, WINDOWS),
    "cdpruner": st.builds("cdpruner:k={},text_segments={}".format, st.integers(1, 576),
                          st.integers(1, 3)),
}  # fmt: skip
"""How to draw each method on LLaVA-1.5; a new method needs an entry."""


def test_every_method_has_a_strategy() -> None:
    assert set(STRATEGIES) == set(list_methods())


@pytest.mark.parametrize("name", list_methods())
def test_every_method_is_documented(name: str) -> None:
    method = load_method(name)
    for attribute in ("name", "title", "summary", "where", "reference", "training"):
        text = getattr(method, attribute)
        assert text.strip(), attribute
    assert method.summary.endswith(".")
    assert re.fullmatch(r"https://\S+", method.url)
    assert isinstance(method.static, bool)
    assert inspect.getdoc(type(method))
    assert type(method).plan.__doc__
    for key, field in method.Params.model_fields.items():
        assert field.description, f"{name}:{key}"
    assert inspect.getdoc(method.Params)


@pytest.mark.parametrize("name", STRATEGIES)
@given(data=st.data(), model=st.sampled_from(GRID_MODELS))
def test_a_drawn_method_gives_a_sound_plan(name: str, data: st.DataObject, model: str) -> None:
    case = prepare(model, "a100", text_tokens=64)
    plan = parse(data.draw(STRATEGIES[name])).plan(context(model))
    program = build_program(case.model, case.layout, case.workload, case.deployment, plan)
    assert plan.kept.is_static is load_method(name).static
    assert 0 <= plan.kept.mean <= 576
    if plan.insertion.where == "llm":
        assert plan.kept.mean <= tokens(program)
    else:
        assert tokens(program) == plan.kept.mean >= 1
    assert sum(group.layers for group in plan.decoder_groups) == case.model.text.layers
    assert {op.stage for op in plan.ops} <= {"compression"}
    assert {item.stage for item in plan.weights} <= {"compression"}
    known = program.values.keys() | program.derived.keys()
    assert all(op.free_symbols <= known for op in plan.ops)
    evaluation = evaluate(program)
    for values in (evaluation.flops, evaluation.bytes_moved, evaluation.live, evaluation.launches):
        assert (values >= 0).all()
    assert (evaluation.repeat >= 0).all()


@pytest.mark.parametrize("name", list_methods())
def test_none_is_the_program_without_a_plan_and_others_are_not(name: str) -> None:
    needs_budget = issubclass(load_method(name).Params, BudgetParams)
    request = parse(f"{name}:k=64" if needs_budget else name)
    plan = request.plan(context())
    assert (plan.ops == ()) is (name == "none")


IDENTITIES = [
    "none",
    *(f"{name}:k=576" for name in ("random", "spatial", "cluster")),
    *(f"{name}:retention=1" for name in ("random", "spatial", "cluster")),
    *(f"{name}:k=576,position=before_projector" for name in ("random", "spatial", "cluster")),
    "avgpool:window=1",
    "avgpool:window=1,position=before_projector",
    "mbtf",
]


@pytest.mark.parametrize("compress", IDENTITIES)
@pytest.mark.parametrize("quantity", ["flops", "bytes_moved", "live", "launches"])
def test_keeping_everything_changes_no_other_stage(compress: str, quantity: str) -> None:
    plan = parse(compress).plan(context())
    case = prepare("llava-1.5-7b", "a100", text_tokens=64)
    program = build_program(case.model, case.layout, case.workload, case.deployment, plan)
    plain = case.program()[0]
    before, after = rows(plain, quantity), rows(program, quantity)
    names = {op.name for op in plan.ops}
    assert {name: value for name, value in after.items() if name not in names} == before


@pytest.mark.parametrize("name", ["random", "spatial", "cluster"])
@pytest.mark.parametrize("model", ["llava-next-vicuna-7b", "qwen2-vl-7b", "idefics3-8b"])
def test_keeping_everything_after_any_projector(name: str, model: str) -> None:
    plain = prepare(model, "a100", text_tokens=64).program()[0]
    _, program, plan = build(f"{name}:retention=1", model)
    assert plan.kept.mean == tokens(plain)
    names = {op.name for op in plan.ops}
    after = {key: value for key, value in rows(program, "flops").items() if key not in names}
    assert after == rows(plain, "flops")


@pytest.mark.parametrize(
    ("values", "kept"),
    [("k=64", 64), ("retention=0.25", 144), ("retention=0.11", 63), ("retention=0.0001", 1)],
)
@pytest.mark.parametrize("name", ["random", "spatial", "cluster"])
def test_budget_in_tokens_or_as_a_share(name: str, values: str, kept: int) -> None:
    _, program, plan = build(f"{name}:{values}")
    assert plan.kept.mean == tokens(program) == kept


@pytest.mark.parametrize("name", ["random", "spatial", "cluster"])
def test_more_tokens_than_there_are(name: str) -> None:
    with pytest.raises(InputError, match=rf"compress {name} k: 577 .*at most the 576 visual"):
        build(f"{name}:k=577")
    with pytest.raises(InputError, match="at most the 576 visual tokens of each image"):
        build(f"{name}:k=577", images=("336x336", "336x336"))


@pytest.mark.parametrize("name", ["random", "spatial", "cluster", "avgpool"])
def test_before_a_projector_that_joins_tokens(name: str) -> None:
    budget = "" if name == "avgpool" else ",k=8"
    with pytest.raises(UnsupportedError, match=r"compress.*projector"):
        build(f"{name}:position=before_projector{budget}", "vila-1.5-3b")


@pytest.mark.parametrize("name", ["random", "spatial", "cluster"])
def test_before_the_projector_vectors_are_narrow_and_rows_few(name: str) -> None:
    _, after, _ = build(f"{name}:k=64")
    _, before, plan = build(f"{name}:k=64,position=before_projector")
    # Projector of LLaVA: 24,159,191,040 FLOP for 576 rows (FORMATS, ground truth).
    assert sum(rows(after, "flops", "projector.linear").values()) == 24_159_191_040
    assert sum(rows(before, "flops", "projector.linear").values()) == 24_159_191_040 * 64 / 576
    assert str(plan.insertion) == "after_encoder"
    if name == "cluster":
        wide, narrow = (
            rows(found, "flops", "cluster.assign_distance") for found in (after, before)
        )
        # FACTS 1.1: clustering at width 1024 instead of 4096 is four times cheaper.
        assert sum(wide.values()) == 4 * sum(narrow.values())


def test_random_sampling_is_a_draw_and_a_gather() -> None:
    _, program, plan = build("random:k=64")
    assert [op.name for op in plan.ops] == ["random.draw", "random.gather"]
    # Random numbers, top-k, gather.
    assert own("random:k=64", "launches") == 3
    moved = rows(program, "bytes_moved", "random")
    assert moved == {"random.draw": 576 * 8, "random.gather": 2 * 64 * 4096 * 2}


def test_spatial_sampling_is_one_gather() -> None:
    assert own("spatial:k=64", "launches") == 1
    assert own("spatial:k=64", "bytes_moved") == 2 * 64 * 4096 * 2
    assert own("spatial:k=64", "flops") == 0


def test_selections_launch_once_for_all_requests_and_images() -> None:
    for name, launches in (("random", 3), ("spatial", 1)):
        compress = f"{name}:k=64"
        assert own(compress, "launches", batch=8, images=("336x336",) * 3) == launches
        one, many = own(compress, "bytes_moved"), own(
            compress, "bytes_moved", batch=8, images=("336x336",) * 3
        )  # fmt: skip
        assert many == 24 * one


def test_published_flops_of_clustering() -> None:
    # FACTS 1.1: n=576, k=64, d=4096: 0.302 GFLOP per iteration and 0.302 GFLOP to seed.
    flops = rows(build("cluster:k=64,iterations=10")[1], "flops", "cluster.")
    assert flops["cluster.assign_distance"] == 10 * 301_989_888
    assert flops["cluster.init_first"] + flops["cluster.init_distance"] == 301_989_888


def test_eager_clustering_loops_over_requests_and_images() -> None:
    compress = "cluster:k=64,iterations=10"
    once = own(compress, "launches")
    # Eleven per further centre, fifteen per checked iteration in fp16; the rest once per image,
    # two of it once for the batch.
    assert once == 11 * 63 + 15 * 10 + (4 + 11 + 3) + 2
    assert own(compress, "host_syncs") == 11
    images = ("336x336",) * 3
    assert own(compress, "launches", batch=4, images=images) == 12 * (once - 2) + 2
    assert own(compress, "host_syncs", batch=4, images=images) == 12 * 11


def test_fused_clustering_batches_requests_and_images() -> None:
    compress = "cluster:k=64,iterations=10,impl=fused"
    once = own(compress, "launches")
    assert once == 11 * 63 + 14 * 10 + (4 + 11) + 2
    assert own(compress, "launches", batch=4, images=("336x336",) * 3) == once
    assert own(compress, "host_syncs", batch=4, images=("336x336",) * 3) == 0
    assert own(compress, "flops", batch=4) == 4 * own(compress, "flops")


@pytest.mark.parametrize(
    ("options", "graph_safe", "syncs"),
    [
        ("", False, 11),
        ("impl=fused", True, 0),
        ("impl=compiled", True, 0),
        ("impl=fused,check=true", False, 11),
        ("check=false", False, 0),
        ("impl=sklearn", False, 2),
        ("impl=sklearn,check=true", False, 2),
    ],
)
def test_what_a_cuda_graph_can_hold(options: str, graph_safe: bool, syncs: int) -> None:
    compress = f"cluster:k=64,{options}"
    assert build(compress)[2].graph_safe is graph_safe
    assert own(compress, "host_syncs") == syncs


def test_sklearn_tries_more_candidates_per_centre() -> None:
    # scikit-learn: 2 + floor(ln k) local trials; 2 + 4 for 64 clusters.
    plain = rows(build("cluster:k=64")[1], "flops")["cluster.init_distance"]
    greedy = rows(build("cluster:k=64,impl=sklearn")[1], "flops")["cluster.init_distance"]
    assert greedy == (2 + math.floor(math.log(64))) * plain == 6 * plain
    given = rows(build("cluster:k=64,impl=sklearn,init_trials=1")[1], "flops")
    assert given["cluster.init_distance"] == plain


def test_position_order_sorts_the_clusters() -> None:
    plain, sorted_ = build("cluster:k=64")[2], build("cluster:k=64,order=position")[2]
    assert {op.name for op in sorted_.ops} - {op.name for op in plain.ops} == {"cluster.reorder"}


def test_a_data_dependent_convergence_is_said() -> None:
    assert any("host waits" in note for note in build("cluster:k=64")[2].notes)
    assert not any("host waits" in note for note in build("cluster:k=64,impl=fused")[2].notes)
    assert any("CPU" in note for note in build("cluster:k=64,impl=sklearn")[2].notes)


TWO_SIZES = ("672x672", "336x336")
# FACTS 3: LLaVA-NeXT gives 2928 tokens for 672x672; FORMATS: 1176 for 336x336.
TOKENS = {"672x672": 2928, "336x336": 1176}


def test_images_of_two_sizes_are_two_problems() -> None:
    _, program, plan = build("cluster:k=64", "llava-next-vicuna-7b", images=TWO_SIZES)
    assert plan.kept.mean == tokens(program) == 128
    flops = rows(program, "flops", "cluster")
    for index, size in enumerate(TWO_SIZES):
        expected = 10 * 2 * TOKENS[size] * 64 * 4096
        assert flops[f"cluster_{index}.assign_distance"] == expected


def test_images_of_one_size_are_counted_together() -> None:
    images = ("672x672", "336x336", "672x672")
    case, program, plan = build("random:k=64", "llava-next-vicuna-7b", images=images)
    assert [group.units for group in case.images] == [2, 1]
    assert plan.kept.mean == tokens(program) == 3 * 64
    moved = rows(program, "bytes_moved", "random")
    assert moved["random_0.gather"] == 2 * moved["random_1.gather"] == 2 * 2 * 64 * 4096 * 2


def test_a_share_is_of_each_image() -> None:
    _, _, plan = build("spatial:retention=0.1", "llava-next-vicuna-7b", images=TWO_SIZES)
    assert plan.kept.mean == round(292.8) + round(117.6)


def test_the_smallest_image_limits_k() -> None:
    with pytest.raises(InputError, match="at most the 1176 visual"):
        build("random:k=2000", "llava-next-vicuna-7b", images=TWO_SIZES)


def test_marker_tokens_stay() -> None:
    # Qwen2-VL, 672x672: 576 tokens and a start and an end marker.
    _, program, plan = build("random:k=64", "qwen2-vl-7b")
    assert plan.kept.mean == tokens(program) == 66


@pytest.mark.parametrize("compress", ["stf", "mbtf+stf", "avgpool", "avgpool:window=2"])
def test_24_by_24_tokens_become_12_by_12(compress: str) -> None:
    _, program, plan = build(compress)
    assert plan.kept.mean == tokens(program) == 12 * 12


@pytest.mark.parametrize("compress", ["stf", "mbtf+stf", "avgpool"])
def test_windows_that_do_not_divide_the_grid(compress: str) -> None:
    for window in (5, 7, 25):
        with pytest.raises(
            InputError, match=rf"window: {window} .*divisor of the 24x24 .*: 1, 2, 3, 4, 6, 8, 12"
        ):
            build(f"{compress}:window={window}")


@pytest.mark.parametrize("compress", ["stf", "mbtf+stf", "avgpool"])
@pytest.mark.parametrize("model", ["llava-next-vicuna-7b", "llava-onevision-qwen2-7b"])
def test_models_without_a_square_grid(compress: str, model: str) -> None:
    with pytest.raises(InputError, match=r"square grid .*such as llava-1.5-7b; .* gives \d+"):
        build(compress, model)


@pytest.mark.parametrize("compress", ["stf", "mbtf+stf", "mbtf"])
def test_fusion_before_a_projector_that_joins_tokens(compress: str) -> None:
    with pytest.raises(UnsupportedError, match="projector keeps every tower token"):
        build(compress, "internvl3-8b")


def test_average_pooling_after_a_joining_projector() -> None:
    # VILA-1.5: 14x14 tokens after its own 2x2 merge.
    _, _, plan = build("avgpool:window=2", "vila-1.5-3b")
    assert plan.kept.mean == 49


@pytest.mark.parametrize(
    ("model", "kept"),
    # One tile, 24x24 tokens and two markers; five tiles (FORMATS) of 16x16 and two markers.
    [("qwen2-vl-7b", 144 + 2), ("internvl3-8b", 5 * 64 + 2)],
)
def test_average_pooling_leaves_the_markers(model: str, kept: int) -> None:
    _, program, plan = build("avgpool:window=2", model)
    assert plan.kept.mean == tokens(program) == kept


def test_average_pooling_is_one_kernel() -> None:
    _, program, plan = build("avgpool")
    assert [op.name for op in plan.ops] == ["avgpool.pool"]
    assert own("avgpool", "launches") == 1
    assert own("avgpool", "bytes_moved") == (576 + 144) * 4096 * 2
    assert own("avgpool:position=before_projector", "bytes_moved") == (576 + 144) * 1024 * 2
    assert weights(program, "compression") == 0


def test_published_stf() -> None:
    # FACTS 1.2, the authors' code: Linear 4096 -> 16384 -> 4096 on 144 rows,
    # 134,238,208 parameters, 19.33 GMAC; it replaces the projector.
    _, program, plan = build("stf")
    assert plan.replaces_projector
    assert weights(program, "compression") == 134_238_208
    assert weights(program, "projector") == 0
    assert not rows(program, "flops", "projector.")
    products = rows(program, "flops", "stf.linear")
    assert round(sum(products.values()) / 2e9, 2) == 19.33
    assert products["stf.linear_1"] == 2 * 144 * 4096 * 16384
    moved = rows(program, "bytes_moved", "stf.")
    assert moved["stf.unfold"] == 2 * 576 * 1024 * 2
    assert moved["stf.gelu"] == 2 * 144 * 16384 * 2
    weighed = 4096 * 16384 + 16384
    assert moved["stf.linear_1"] == 2 * (weighed + 144 * (4096 + 16384))


def test_published_mbtf() -> None:
    # FACTS 1.2: 8 tapped layers, Linear 8192 -> 4096 -> 1024 on 576 rows, 37,753,856
    # parameters, 21.74 GMAC.
    case, program, plan = build("mbtf")
    assert weights(program, "compression") == 37_753_856
    products = rows(program, "flops", "mbtf.linear")
    assert round(sum(products.values()) / 2e9, 2) == 21.74
    evaluation = evaluate(program)
    index = [op.name for op in evaluation.ops].index("mbtf.linear_1")
    assert evaluation.shapes[index]["k"] == 8192
    # The last tap is the layer before the last: 23 layers must run.
    assert plan.tower_layers == 23
    assert weights(program, "projector") == 20_979_712
    assert case.layout is not None
    assert plan.kept.mean == case.layout.tokens


def test_published_mbtf_and_stf_together() -> None:
    # FACTS 1.2: 41.07 GMAC of projector in total; 151.0 M parameters more than LLaVA's.
    _, program, plan = build("mbtf+stf")
    products = rows(program, "flops", "stf.linear") | rows(program, "flops", "mbtf.linear")
    assert round(sum(products.values()) / 2e9, 2) == 41.07
    added = weights(program, "compression") - 20_979_712
    assert round(added / 1e6, 1) == 151.0
    assert plan.replaces_projector
    assert plan.training != "none"


def test_mbtf_moves_its_taps() -> None:
    _, program, _ = build("mbtf")
    # Concatenate 8 maps of 576 x 1024 in fp16; leaving the class token out makes views only.
    moved = rows(program, "bytes_moved")["mbtf.concat"]
    assert moved == 2 * 8 * 576 * 1024 * 2
    assert rows(program, "launches")["mbtf.concat"] == 1


def test_mbtf_runs_the_layers_it_taps() -> None:
    plain = prepare("llava-1.5-7b", "a100", text_tokens=64, vision_layers=23).program()[0]
    _, program, _ = build("mbtf", vision_layers=10)
    assert rows(program, "flops", "vision.") == rows(plain, "flops", "vision.")


def test_more_taps_than_layers() -> None:
    with pytest.raises(InputError, match=r"blocks: 25 .*at most the tower's 24 layers"):
        build("mbtf:blocks=25")


def test_width_and_blocks_of_mbtf_are_parameters() -> None:
    _, program, _ = build("mbtf:blocks=4,hidden=2048")
    linear = 4 * 1024 * 2048 + 2048 * 1024
    assert weights(program, "compression") == linear + 2048 + 1024


@pytest.mark.parametrize("name", ["random", "spatial", "cluster", "avgpool", "stf", "mbtf+stf"])
@pytest.mark.parametrize("kept", [1, 4, 64, 144, 576])
def test_parameters_for_a_budget_keep_it(name: str, kept: int) -> None:
    values = load_method(name).params_for(kept, context())
    text = ",".join(f"{key}={value}" for key, value in values.items())
    assert build(f"{name}:{text}")[2].kept.mean == kept


def test_parameters_for_a_budget_are_per_image() -> None:
    images = ("336x336",) * 3
    for name in ("random", "avgpool"):
        values = load_method(name).params_for(144, context(images=images))
        text = ",".join(f"{key}={value}" for key, value in values.items())
        assert build(f"{name}:{text}", images=images)[2].kept.mean == 3 * 144


@pytest.mark.parametrize("name", ["avgpool", "stf", "mbtf+stf"])
def test_a_budget_no_window_reaches(name: str) -> None:
    with pytest.raises(InputError, match=r"visual-tokens-kept: 100 .*1, 4, 9, 16, 36, 64, 144"):
        load_method(name).params_for(100, context())


def test_mbtf_keeps_every_token() -> None:
    assert load_method("mbtf").params_for(576, context()) == {}
    with pytest.raises(InputError, match=r"visual-tokens-kept: 144 .*576: mbtf .* every token"):
        load_method("mbtf").params_for(144, context())
