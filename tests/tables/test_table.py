"""Tables give what the direct path gives, at every point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import costmodel
from costmodel.compression.method import list_methods
from costmodel.errors import CostModelError, InputError, UnknownNameError, UnsupportedError
from costmodel.estimation import Case, compare, estimate, prepare
from costmodel.points import evaluate_grid
from costmodel.results import Estimate
from costmodel.studies.plan_runs import requests_for
from costmodel.tables.table import Table, tabulate

# Rounding of sums in another order.
EXACT = 1e-11

MODELS = ("llava-1.5-7b", "llava-1.5-13b", "qwen2-vl-7b", "internvl3-8b", "llava-next-vicuna-7b")
GPUS = ("a100-80gb-sxm", "h100-sxm", "l40s", "a40")
COUNTS = (2, 5, 16, 40, 64, 100, 144)
METHODS: dict[str, tuple[str, tuple[int, ...]]] = {
    "cluster:k=64": ("cluster", COUNTS),
    "cluster:retention=0.2,impl=sklearn": ("cluster:impl=sklearn", COUNTS),
    "cluster:k=5,impl=fused,order=position": ("cluster:impl=fused,order=position", COUNTS),
    "random:k=7,position=before_projector": ("random:position=before_projector", COUNTS),
    "spatial:retention=0.5": ("spatial", COUNTS),
    "avgpool:window=2": ("avgpool", (576, 144, 36, 9)),
    "stf": ("stf", (144, 64, 16, 1)),
    "mbtf+stf": ("mbtf+stf", (144, 64, 36)),
}
"""As prepared: the same without its count, and tokens it can keep of each image."""

OPTIONS = st.fixed_dictionaries(
    {
        "runtime": st.sampled_from(["eager", "compiled", "cuda-graph"]),
        "attention": st.sampled_from(["flash", "sdpa", "eager"]),
        "head_tokens": st.sampled_from(["last", "all"]),
        "weights_dtype": st.sampled_from([None, "int4"]),
        "tp": st.sampled_from([1, 2]),
        "time_model": st.sampled_from(["calibrated", "ideal"]),
        "output_tokens": st.sampled_from([0, 1, 30]),
    }
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str, str, dict[str, Any]]:
    options: dict[str, Any] = dict(draw(OPTIONS))
    if draw(st.booleans()):
        options["images"] = ["336x336"] * draw(st.sampled_from([1, 2]))
    method = draw(st.sampled_from(list(METHODS)))
    return draw(st.sampled_from(MODELS)), draw(st.sampled_from(GPUS)), method, options


def built(model: str, gpu: str, compress: str | None, options: dict[str, Any]) -> Case:
    """Return the case; discard the example if the model cannot do this."""
    try:
        case = prepare(model, gpu, text_tokens=64, compress=compress, **options)
        case.program()
    except CostModelError:
        assume(False)
    return case


def counts(case: Case, per_image: list[int]) -> list[int]:
    """Return the tokens that enter the language model."""
    images = sum(group.units for group in case.images)
    return [n * images + sum(g.units * g.layout.markers for g in case.images) for n in per_image]


@given(questions(), st.data())
@settings(max_examples=20)
def test_every_point_is_an_estimate(
    question: tuple[str, str, str, dict[str, Any]], data: st.DataObject
) -> None:
    """A point equals the estimate of the method asked to keep that number of each image."""
    model, gpu, compress, options = question
    case = built(*question)
    text, reachable = METHODS[compress]
    kept = data.draw(st.sampled_from(reachable))
    try:
        ((_, expected),) = compare(
            model, gpu, [text], visual_tokens_kept=kept, text_tokens=64, **options
        )
    except CostModelError:
        assume(False)
    assert isinstance(expected, Estimate)
    others = [count for count in reachable if count < 64 and count != kept][:2]
    try:
        table = tabulate(case, batch=[1, 2], text_tokens=[1, 64],
                         visual_tokens=counts(case, [kept, *others]))  # fmt: skip
    except InputError:
        assume(not others)
        raise
    assert not table.direct
    visual = expected.tokens["visual_kept"]
    for name, seconds in table.stages(1, 64, visual).items():
        assert seconds == pytest.approx(expected.time_s[name], rel=EXACT, abs=1e-18), name
    assert table.ttft_s(1, 64, visual) == pytest.approx(expected.time_s["ttft"], rel=EXACT)
    assert table.tpot_s(1, 64, visual) == pytest.approx(expected.time_s["tpot"], rel=EXACT)
    for kind in ("same_stack", "any_stack"):
        if (bounds := expected.interval_s["ttft"][kind]) is not None:
            found = table.ttft_band(1, 64, visual, kind=kind)
            assert list(map(float, found)) == pytest.approx(bounds, rel=EXACT)


CASES: list[tuple[str, str, str | None, dict[str, Any], list[int]]] = [
    ("llava-1.5-7b", "a100-80gb-sxm", "cluster:k=64", {}, [1, 2, 3, 4, 64, 500]),
    ("llava-1.5-7b", "h100-sxm", None, {"runtime": "eager", "attention": "eager"}, [0, 1, 64, 576]),
    ("llava-1.5-13b", "h100-sxm", "stf", {"tp": 4}, [1, 4, 144]),
    ("llava-1.5-7b", "l40s", "mbtf", {"runtime": "cuda-graph"}, [100, 101, 102]),
    ("qwen2-vl-7b", "h100-sxm", "cluster:k=64,impl=sklearn", {"tp": 2}, [8, 9, 10, 30]),
    ("llama-3-8b", "a100-80gb-sxm", None, {"weights_dtype": "int4"}, [0]),
    ("llava-1.5-7b", "a100-80gb-sxm", "avgpool", {"head_tokens": "all"}, [36, 64]),
    ("llava-1.5-7b", "v100-sxm", "random:k=7", {"time_model": "ideal"}, [1, 5, 6, 7]),
]


@pytest.mark.parametrize(("model", "gpu", "compress", "options", "visual"), CASES)
def test_tables_and_the_direct_path_agree(
    model: str, gpu: str, compress: str | None, options: dict[str, Any], visual: list[int]
) -> None:
    case = prepare(model, gpu, text_tokens=7, output_tokens=9, compress=compress, **options)
    axes: dict[str, Any] = {
        "batch": [1, 2, 3, 4, 5, 32],
        "text_tokens": [*range(1, 40), 900, 3000],
        "visual_tokens": visual,
    }
    table, direct = tabulate(case, **axes), tabulate(case, **axes, max_entries=0)
    assert (table.direct, direct.direct) == (False, True)
    points = [axis.ravel() for axis in np.meshgrid(*axes.values())]
    assert len(points[0]) > 200
    expected = direct.stages(*points)
    for name, seconds in table.stages(*points).items():
        np.testing.assert_allclose(seconds, expected[name], rtol=EXACT, atol=1e-18, err_msg=name)
    np.testing.assert_allclose(table.ttft_s(*points), direct.ttft_s(*points), rtol=EXACT)
    np.testing.assert_allclose(table.tpot_s(*points), direct.tpot_s(*points), rtol=EXACT)
    if case.time_model == "calibrated":
        for kind in ("same_stack", "any_stack"):
            np.testing.assert_allclose(
                table.ttft_band(*points, kind=kind), direct.ttft_band(*points, kind=kind),
                rtol=EXACT,
            )  # fmt: skip


def test_the_direct_path_is_the_grid() -> None:
    """Where the host is late at some points and not at others."""
    case = prepare("llava-1.5-7b", "h100-sxm", text_tokens=7, runtime="eager", attention="eager")
    axes: dict[str, Any] = {
        "batch": [1, 8],
        "text_tokens": range(1, 2000, 97),
        "visual_tokens": [0, 64, 576],
    }
    points = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    grid = evaluate_grid(case, **points)
    for most in (0, 10**6):
        stages = tabulate(case, **axes, max_entries=most).stages(**points)
        assert set(stages) == set(grid.time_s) - {"tpot"}
        for name, seconds in stages.items():
            np.testing.assert_allclose(seconds, grid.time_s[name], rtol=EXACT, atol=1e-18)
    host = grid.time_s["host_overhead"]
    assert len(np.unique(host[1, -1].round(12))) == 1 < len(np.unique(host[0].round(12)))


@pytest.fixture(scope="module")
def table() -> Table:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    return costmodel.tabulate(
        case, batch=[1, 2, 8], text_tokens=range(60, 70), visual_tokens=[64, 576]
    )


def test_points_broadcast(table: Table) -> None:
    text, visual = np.arange(60, 70, dtype=np.uint8), np.array([[64], [576]])
    together = table.ttft_s(2, text, visual)
    assert together.shape == (2, 10)
    assert together[1, 3] == table.ttft_s(2, 63, 576) == table.ttft_s([2.0], [63.0], 576)[0]
    assert table.ttft_s(np.empty(0, int), 60, 64).shape == (0,)
    assert {array.shape for array in table.stages(2, text, visual).values()} == {(2, 10)}


def test_points_in_several_chunks(table: Table) -> None:
    batch = np.tile([1, 2, 8], 9000)
    alone = [float(table.ttft_s(b, 64, 576)) for b in (1, 2, 8)]
    assert table.ttft_s(batch, 64, 576).tolist() == alone * 9000
    low, high = table.ttft_band(batch, 64, 576)
    one_low, one_high = table.ttft_band(8, 64, 576)
    assert (low[-1], high[-1]) == (one_low, one_high)


def test_a_sum_of_the_stages(table: Table) -> None:
    stages = table.stages(8, 64, 576)
    assert stages["ttft"] == pytest.approx(table.ttft_s(8, 64, 576), rel=EXACT)
    low, high = table.ttft_band(8, 64, 576)
    assert low < stages["ttft"] < high


def test_single_precision() -> None:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress="cluster:k=64")
    axes: dict[str, Any] = {
        "batch": range(1, 5),
        "text_tokens": range(30),
        "visual_tokens": range(64, 80),
    }
    points = np.meshgrid(*axes.values())
    double, single = tabulate(case, **axes), tabulate(case, **axes, dtype="float32")
    assert single.ttft_s(*points).dtype == np.float32
    np.testing.assert_allclose(single.ttft_s(*points), double.ttft_s(*points), rtol=1e-6)
    assert single.nbytes == double.nbytes // 2
    for narrow, wide in zip(single.ttft_band(*points), double.ttft_band(*points), strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-5)
    with pytest.raises(UnknownNameError, match="dtype 'int32'"):
        tabulate(case, dtype=np.int32)


def test_the_case_itself_is_the_default() -> None:
    case = prepare("llava-next-vicuna-7b", "a100-80gb-sxm", text_tokens=64, batch=2)
    expected = estimate("llava-next-vicuna-7b", "a100-80gb-sxm", text_tokens=64, batch=2)
    assert tabulate(case).ttft_s() == pytest.approx(expected.time_s["ttft"], rel=EXACT)


def test_numbers_that_are_not_whole(table: Table) -> None:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    expected = evaluate_grid(case, visual_tokens=64.5).time_s["ttft"]
    assert table.ttft_s(1, 64, 64.5) == pytest.approx(float(expected), rel=EXACT)
    fractional = tabulate(case, visual_tokens=[64.5, 100.5])
    assert fractional.direct
    assert fractional.ttft_s(1, 64, 64.5) == pytest.approx(float(expected), rel=EXACT)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((3, 64, 64), "batch: 3 is not valid; .*: 1, 2, 8"),
        ((1, 70, 64), "text_tokens: 70 is not valid; .*: 60 to 69"),
        ((1, 64, [64, 65]), "visual_tokens: 65 is not valid; .*: 64, 576"),
        ((-1, 64, 64), "batch: -1 is"),
        ((1, 64, 10**12), "visual_tokens: 10*"),
        ((1, 64, float("nan")), "visual_tokens: nan .* numbers from 64 to 576"),
        ((1, 64, None), "visual_tokens: None .* the table has several"),
    ],
)
def test_points_outside(table: Table, point: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        table.ttft_s(*point)


@pytest.mark.parametrize(
    ("compress", "axes", "message"),
    [
        (None, {"batch": []}, "batch: .* at least 1"),
        (None, {"batch": [0]}, "batch: .* at least 1"),
        (None, {"text_tokens": [-1]}, "text_tokens: .* at least 0"),
        (None, {"visual_tokens": [float("inf")]}, "visual_tokens: .*finite"),
        ("stf", {"visual_tokens": [100]}, "visual-tokens-kept: 100 .*144, 576"),
        ("cluster:k=64", {"visual_tokens": [577]}, "at most the 576 visual tokens"),
        ("cluster:k=64", {"visual_tokens": [0]}, "the same whole number, at least 1"),
    ],
)
def test_axes_that_cannot_be(compress: str | None, axes: dict[str, Any], message: str) -> None:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress=compress)
    with pytest.raises(InputError, match=message):
        tabulate(case, **axes)


def test_no_bands_without_measurements() -> None:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, time_model="ideal")
    with pytest.raises(UnsupportedError, match="time-model: 'ideal'"):
        tabulate(case).ttft_band()
    with pytest.raises(UnknownNameError, match="kind 'wide'"):
        tabulate(case).ttft_band(kind="wide")  # type: ignore[arg-type]


def test_memory_is_bounded() -> None:
    """A domain beyond the bound needs no tables, whatever its size."""
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    table = tabulate(case, batch=range(1, 2001), text_tokens=range(100_000))
    assert (table.direct, table.nbytes) == (True, 0)
    expected = evaluate_grid(case, batch=[7], text_tokens=99_999).time_s["ttft"]
    assert table.ttft_s(7, 99_999) == pytest.approx(expected[0], rel=EXACT)
    with pytest.raises(InputError, match=r"batch: 2001 is not valid; .* 1 to 2000"):
        table.ttft_s(2001, 1)


def test_axes_of_one_value_need_not_be_as_prepared() -> None:
    case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress="mbtf+stf")
    table = tabulate(case, batch=[2], text_tokens=[1], visual_tokens=[36])
    ((_, expected),) = compare(
        "llava-1.5-7b", "a100-80gb-sxm", ["mbtf+stf"], visual_tokens_kept=36, text_tokens=1, batch=2
    )
    assert isinstance(expected, Estimate)
    for name, seconds in table.stages(2, 1, 36).items():
        assert seconds == pytest.approx(expected.time_s[name], rel=EXACT, abs=1e-18), name


@pytest.mark.parametrize("compress", ["cluster:k=64", "random:k=64"])
def test_memory_of_wide_grids_is_looked_up(compress: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is live where embeddings are merged, and the cache, depend on all three axes: in one
    # array that is every point, in parts it is a few hundred entries.
    case = costmodel.prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress=compress)
    batch, text, visual = np.arange(1, 9), np.arange(16, 56), np.arange(40, 70)
    table = costmodel.tabulate(
        case, batch=batch, text_tokens=text, visual_tokens=visual, max_entries=2000
    )

    def refuse(*_: object) -> None:
        raise AssertionError("evaluated point by point")

    monkeypatch.setattr("costmodel.tables.table.direct_values", refuse)
    points = np.meshgrid(batch, text, visual, indexing="ij")
    names = ("kv_cache", "activations_peak", "memory_total")
    found = table.quantities(names, *points)
    one = costmodel.evaluate_grid(case, batch=points[0], text_tokens=points[1], k=points[2]).memory
    assert np.array_equal(found["kv_cache"], one.kv_cache)
    assert np.array_equal(found["activations_peak"], one.activations_peak)
    assert np.array_equal(found["memory_total"], one.total)


def _at_64(name: str) -> str:
    """Return a method that keeps 64 of 576 tokens, or as it is if it cannot."""
    case = prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64)
    found = [request for _, request in requests_for(case, [64], [name])]
    return found[0].label


@pytest.mark.parametrize("name", [name for name in list_methods() if name != "none"])
def test_every_method_has_tables_of_the_direct_path(name: str) -> None:
    case = prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64, compress=_at_64(name))
    batch, text = np.meshgrid([1, 2, 5], [17, 64, 301], indexing="ij")
    table = tabulate(case, batch=[1, 2, 5], text_tokens=[17, 64, 301])
    assert not table.direct
    grid = evaluate_grid(case, batch=batch, text_tokens=text)
    np.testing.assert_allclose(table.ttft_s(batch, text), grid.time_s["ttft"], rtol=1e-11)
    np.testing.assert_allclose(table.tpot_s(batch, text), grid.time_s["tpot"], rtol=1e-11)
    found = table.quantities(("flops_total", "memory_total"), batch, text)
    np.testing.assert_allclose(found["flops_total"], grid.flops["total"], rtol=1e-12)
    np.testing.assert_allclose(found["memory_total"], grid.memory.total, rtol=1e-12)
