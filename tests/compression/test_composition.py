"""Methods one after the other: what they leave, what they cost, and which pairs are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import Integer

from costmodel.case import Case, prepare
from costmodel.compression.composition import Chain, parse_compression, remaining
from costmodel.compression.method import (
    Context,
    Method,
    NoParams,
    Request,
    list_methods,
    load_method,
    parse,
)
from costmodel.compression.method import request as make_request
from costmodel.compression.plan import (
    CompressionPlan,
    DecoderGroup,
    Insertion,
    TokenCount,
    TowerGroup,
)
from costmodel.errors import CostModelError, InputError, SpecError, UnknownNameError
from costmodel.errors import UnsupportedError as Unsupported
from costmodel.estimation import estimate
from costmodel.evaluation import evaluate
from costmodel.points import evaluate_grid
from costmodel.program import Program
from costmodel.tables.table import tabulate


def case_of(compress: Any, model: str = "llava-1.5-7b", **options: Any) -> Case:
    return prepare(model, "a100", compress=compress, **{"text_tokens": 64, **options})


def built(compress: Any, *given: Any, **options: Any) -> tuple[Program, CompressionPlan]:
    program, plan = case_of(compress, *given, **options).program()
    assert plan is not None
    return program, plan


def context(model: str = "llava-1.5-7b", **options: Any) -> Context:
    case = prepare(model, "a100", text_tokens=64, **options)
    return Context(case.model, case.images, case.deployment)


def rows(program: Program, quantity: str = "flops") -> dict[str, float]:
    evaluation = evaluate(program)
    values = getattr(evaluation, quantity) * evaluation.repeat
    return {op.name: float(value) for op, value in zip(evaluation.ops, values, strict=True)}


class Made(Method):
    """A method whose plan a test gives."""

    name: ClassVar[str] = "made"
    title = summary = where = reference = url = "a test"
    Params = NoParams

    def __init__(self, name: str, **fields: Any) -> None:
        self.name = name  # type: ignore[misc]
        self.fields = fields

    def plan(self, params: Any, context: Context) -> CompressionPlan:
        """Return a plan that keeps all tokens, with the fields given."""
        tokens = context.features + context.markers
        plan = CompressionPlan(
            self.name, Insertion("after_projector"), TokenCount.static(tokens),
            context.uniform(tokens),
        )  # fmt: skip
        return replace(plan, **self.fields)

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return nothing."""
        return {}


def made(name: str, **fields: Any) -> Request:
    return Request(Made(name, **fields), NoParams())


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("random:k=192 then cluster:k=64", "random:k=192 then cluster:k=64"),
        (["random:k=192", "cluster:k=64"], "random:k=192 then cluster:k=64"),
        (("random:k=192", parse("cluster:k=64")), "random:k=192 then cluster:k=64"),
        (["random:k=9", "random:k=8 then random:k=7"],
         "random:k=9 then random:k=8 then random:k=7"),
        (["none", "random:k=9"], "random:k=9"),
        (["none", "none"], "none"),
        (["random:k=9"], "random:k=9"),
        ("none", "none"),
    ],
)  # fmt: skip
def test_good_input(given: Any, label: str) -> None:
    found = parse_compression(given)
    assert found is not None
    assert found.label == label
    # The label itself can be pasted back.
    assert parse_compression(label) == found
    assert parse_compression(found) is found
    assert isinstance(found, Chain) is (" then " in label)


@pytest.mark.parametrize("given", [None, [], ()])
def test_no_compression(given: Any) -> None:
    assert parse_compression(given) is None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["random:k=9", "clutser:k=3"], UnknownNameError, "Did you mean cluster"),
        ("random:k=9 then", SpecError, "k: .*valid integer"),
        (["random:k=9", "cluster:kk=3"], SpecError, "unknown key 'kk'"),
        (5, InputError, "compress: 5 .*or a list"),
        ([5], InputError, "compress: 5 .*or a list"),
    ],
)
def test_bad_input(given: Any, error: type[CostModelError], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_compression(given)


def test_the_second_works_on_what_the_first_leaves() -> None:
    _, plan = built(["random:k=192", "cluster:k=64,iterations=10"])
    program, _ = built(["random:k=192", "cluster:k=64,iterations=10"])
    assert plan.kept == TokenCount.static(64)
    flops = rows(program)
    # 192 points, not 576: 2 m k c per iteration.
    assert flops["cluster.assign_distance"] == 10 * 2 * 192 * 64 * 4096
    assert flops["cluster.init_first"] + flops["cluster.init_distance"] == 2 * 192 * 64 * 4096
    alone = rows(built("random:k=192")[0], "bytes_moved")
    both = rows(program, "bytes_moved")
    assert both["random.gather"] == alone["random.gather"] == 2 * 192 * 4096 * 2
    # The language model is that of 64 tokens, however they came about.
    direct = rows(built("random:k=64")[0])
    assert {k: v for k, v in flops.items() if k.startswith("decoder")} == {
        k: v for k, v in direct.items() if k.startswith("decoder")
    }


def test_layer_fusion_then_spatial_fusion_is_the_method_of_both() -> None:
    apart, plan = built(["mbtf", "stf"])
    together, whole = built("mbtf+stf")
    for quantity in ("flops", "bytes_moved", "launches", "live"):
        assert rows(apart, quantity) == rows(together, quantity)
    assert plan.replaces_projector
    assert plan.tower_layers == whole.tower_layers == 23
    assert plan.kept == whole.kept
    assert plan.training == whole.training
    total = sum(item.count.subs({**apart.values}) for item in apart.weights)
    assert total == sum(item.count.subs({**together.values}) for item in together.weights)


def test_before_the_projector_then_after_it() -> None:
    program, plan = built(["spatial:k=144,position=before_projector", "random:k=36"])
    flops = rows(program)
    linear = sum(value for name, value in flops.items() if name.startswith("projector.linear"))
    assert linear == 24_159_191_040 * 144 / 576
    assert plan.kept.mean == 36
    assert str(plan.insertion) == "after_projector"


def test_the_same_method_twice() -> None:
    program, plan = built(["random:k=192", "random:k=64"])
    names = [op.name for op in program.ops]
    assert len(names) == len(set(names))
    moved = rows(program, "bytes_moved")
    assert moved["random.gather"] == 2 * 192 * 4096 * 2
    assert moved["random.gather_again"] == 2 * 64 * 4096 * 2
    assert moved["random.draw_again"] == 192 * 8
    assert plan.kept.mean == 64


def test_three_methods() -> None:
    program, plan = built("random:k=300 then random:k=200 then random:k=100")
    moved = rows(program, "bytes_moved")
    assert [value / 16384 for name, value in moved.items() if "random.gather" in name] == [
        300, 200, 100,
    ]  # fmt: skip
    assert plan.kept.mean == 100


def test_a_sweep_over_the_first_reaches_the_second() -> None:
    case = case_of(["random:k=192", "cluster:k=64,iterations=10"])
    swept = evaluate_grid(case, k=[192, 384])
    for index, kept in enumerate((192, 384)):
        alone = evaluate_grid(case_of([f"random:k={kept}", "cluster:k=64,iterations=10"]))
        assert swept.flops["compression"][index] == alone.flops["compression"]
    with pytest.raises(Unsupported, match="visual_tokens"):
        tabulate(case, visual_tokens=[32, 64])


def test_images_of_two_sizes() -> None:
    sizes = ("672x672", "336x336")
    program, plan = built(["random:k=500", "spatial:k=64"], "llava-next-vicuna-7b", images=sizes)
    assert plan.kept.mean == 128
    moved = rows(program, "bytes_moved")
    assert moved["random_0.gather"] == moved["random_1.gather"] == 2 * 500 * 4096 * 2
    assert moved["spatial_0.gather"] == 2 * 64 * 4096 * 2


def test_an_expanded_estimate_says_what_was_asked() -> None:
    found = estimate(
        "llava-1.5-7b", "a100", text_tokens=64, compress=["random:k=192", "cluster:k=64"]
    )
    assert found.inputs["compress"] == "random:k=192 then cluster:k=64"
    first, second = found.inputs["compress_params"]
    assert (first["method"], first["params"]["k"]) == ("random", 192)
    assert (second["method"], second["params"]["k"]) == ("cluster", 64)
    assert found.tokens["visual_kept"] == 64
    assert found.tokens["prefill"] == 128
    assert found.baseline is not None
    assert found.baseline.tokens["visual_kept"] == 576


@given(
    first=st.sampled_from(["random", "spatial", "cluster"]), many=st.integers(1, 576),
    second=st.sampled_from(["random", "spatial", "cluster"]), data=st.data(),
)  # fmt: skip
def test_any_two_selections(first: str, many: int, second: str, data: st.DataObject) -> None:
    few = data.draw(st.integers(1, many))
    program, plan = built([f"{first}:k={many}", f"{second}:k={few}"])
    assert plan.kept == TokenCount.static(few)
    known = program.values.keys() | program.derived.keys()
    assert all(op.free_symbols <= known for op in program.ops)
    direct = rows(built(f"random:k={few}")[0])
    found = rows(program)
    assert found["merge_visual"] == direct["merge_visual"]
    assert found["decoder.down_proj" if "decoder.down_proj" in found else "lm_head"] > 0
    with pytest.raises(InputError, match=f"at most the {few} visual tokens"):
        built([f"{first}:k={few}", f"{second}:k={few + 1}"])


LLM = {
    "insertion": Insertion("llm", 2),
    "decoder_groups": (DecoderGroup(2, 576), DecoderGroup(30, 96)),
    "kept": TokenCount.static(96),
}
TOWER = {"insertion": Insertion("vision_encoder"), "tower_groups": (TowerGroup(24),)}
REFUSED = [
    (made("A", **LLM), made("B", **LLM), "one method inside the language model: A and B"),
    (made("A", **LLM), "random:k=64", "A acts inside the language model, random after the proj"),
    (made("A", decoder_groups=(DecoderGroup(32, 89, visual_attended=576),)), "random:k=64",
     "A acts inside the language model, random after the projector"),
    ("random:k=64", "random:k=9,position=before_projector",
     "random acts after the projector, random after the vision tower"),
    ("random:k=64", "mbtf", "random acts after the projector, mbtf after the vision tower"),
    ("random:k=64,position=before_projector", made("B", **TOWER),
     "random acts after the vision tower, B inside the vision tower"),
    ("stf", "stf", "stf and stf both replace"),
    ("stf", "mbtf", "stf replaces the projector, nothing is left before it"),
    ("stf", "avgpool:position=before_projector", "stf replaces the projector"),
    ("stf", "avgpool", r"stf then avgpool.*avgpool to be able to work on what stf leaves .*grid"),
    (made("A", **TOWER), made("B", **TOWER), "A and B both set its layers"),
    (made("A", kept=TokenCount.static(100), **TOWER), "mbtf",
     "mbtf without A: it reads layers of the vision tower"),
    ("random:k=64", made("B", tower_groups=(TowerGroup(24, attention="eager"),)),
     "B without random: it reads layers of the vision tower"),
    # It ends inside the language model, but starts in the tower.
    ("random:k=64", made("B", **{**LLM, **TOWER}),
     "random acts after the projector, B inside the vision tower, which is before it"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "message"), REFUSED)
def test_pairs_that_make_no_sense(
    first: str | Request, second: str | Request, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        built([first, second])
    assert "\n" not in str(caught.value)


def test_inside_the_tower_then_inside_the_language_model() -> None:
    tower = made("A", needs_attention_weights=True, notes=("one",), **TOWER)
    llm = made("B", graph_safe=False, training="some", notes=("one", "two"), **LLM)
    program, plan = built([tower, "random:k=576", llm])
    assert plan.tower_groups == (TowerGroup(24),)
    assert plan.decoder_groups == LLM["decoder_groups"]
    assert plan.needs_attention_weights
    assert not plan.graph_safe
    assert plan.training == "some"
    assert plan.notes == ("one", "two")
    assert plan.kept.mean == 96
    assert [group.layers for group in program.cache] == [2, 30]
    assert {op.name for op in plan.ops} == {"random.draw", "random.gather"}


def _inside() -> list[str]:
    """Every method that drops tokens inside the language model, for 192 visual tokens."""
    few, found = context(visual_tokens=192), []
    for name in list_methods():
        method = load_method(name)
        try:
            values = method.params_for(96, few)
            plan = make_request(method, values).plan(few)
        except CostModelError:
            continue
        # A method that reads the vision tower as well follows none that drops tokens behind it.
        if plan.insertion.where == "llm" and not plan.tower_groups:
            found.append(make_request(method, values).label)
    return [*found, "saliency:k=96,variant=layer"]


@pytest.mark.parametrize("inside", _inside())
def test_the_language_model_is_that_of_a_prompt_with_fewer_tokens(inside: str) -> None:
    asked: dict[str, Any] = {"text_tokens": 64, "time_model": "ideal", "output_tokens": 20}
    chain = estimate("llava-1.5-7b", "a100", compress=["random:k=192", inside], **asked)
    alone = estimate("llava-1.5-7b", "a100", visual_tokens=192, compress=inside, **asked)
    for numbers in ("flops", "bytes_moved", "time_s"):
        for stage in ("llm_prefill", "lm_head"):
            assert getattr(chain, numbers)[stage] == getattr(alone, numbers)[stage]
    assert chain.time_s["tpot"] == alone.time_s["tpot"]
    assert chain.memory_bytes["kv_cache"] == alone.memory_bytes["kv_cache"]
    assert chain.flops["compression"] == alone.flops["compression"]
    assert chain.tokens["visual_kept"] == alone.tokens["visual_kept"]
    launches = [
        sum(op.launches for op in one.ops if op.stage == "compression") for one in (chain, alone)
    ]
    assert launches[0] == launches[1] + 3


def test_a_distribution_passes_through() -> None:
    def counts(mean: float, p50: float, p95: float) -> Request:
        return made(
            "D", kept=TokenCount(mean, p50, p95), projector_rows=Integer(round(mean)),
            decoder_groups=(DecoderGroup(32, Integer(round(mean))),),
            insertion=Insertion("after_encoder"),
        )  # fmt: skip

    _, half = built([counts(200, 160, 400), "random:retention=0.5"])
    assert half.kept == TokenCount(100, 80, 200)
    # A fixed number where there are more, all of them where there are fewer.
    _, fixed = built([counts(200, 160, 400), "random:k=180"])
    assert fixed.kept == TokenCount(180, 160, 180)
    assert fixed.projector_rows == 200
    program, _ = built([counts(200, 160, 400), "random:k=180"])
    assert rows(program, "bytes_moved")["random.draw"] == 200 * 8


def test_what_remains_of_images() -> None:
    before = context(images=("336x336",) * 3)
    plan = parse("random:k=100").plan(before)
    after = remaining(before, plan, plan.kept.mean)
    assert (after.features, after.projected, after.markers) == (300, 3 * 576, 0)
    assert after.images[0].layout.grid is None
    uneven = replace(plan, kept=TokenCount.static(301))
    with pytest.raises(Unsupported, match="how many tokens it leaves of each image"):
        remaining(before, uneven, 301)


def test_markers_stay() -> None:
    # Qwen2-VL, 672x672: 576 tokens and a start and an end marker.
    _, plan = built(["random:k=200", "spatial:k=64"], "qwen2-vl-7b")
    assert plan.kept.mean == 66
