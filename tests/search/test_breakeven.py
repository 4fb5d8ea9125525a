"""Break-evens: against single estimates, the published page, and the algebra of the formulas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costmodel import estimate
from costmodel.errors import InputError, UnknownNameError
from costmodel.search.breakeven import BreakEven, break_even, runs

ROOT = Path(__file__).resolve().parents[2]
MODEL, GPU = "llava-1.5-7b", "a100-80gb-sxm"

QUESTIONS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("cluster:iterations=10,check=false", "k", "ttft", {"text_tokens": 64, "span": (100, 200)}),
    ("cluster:k=64", "iterations", "ttft", {"text_tokens": 64, "runtime": "eager"}),
    ("cluster:k=144", "batch", "ttft", {"text_tokens": 64}),
    ("fastv:k=288", "text_tokens", "ttft", {"text_tokens": 64, "span": (1, 300)}),
    ("cluster", "k", "flops", {"text_tokens": 20, "batch": 3, "span": (540, 576)}),
    ("cluster", "k", "bytes", {"text_tokens": 64, "span": (340, 380)}),
    ("random:k=100 then cluster:k=50", "iterations", "flops", {"text_tokens": 64, "span": (0, 20)}),
    ("pyramiddrop", "batch", "bytes", {"text_tokens": 64}),
]


def asked(compress: str, name: str, value: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return the question of a single estimate at one value."""
    options = {key: value for key, value in options.items() if key != "span"}
    if name in ("batch", "text_tokens", "visual_tokens"):
        return {**options, "compress": compress, name: value}
    kept = [item for item in compress.split(",") if not re.search(rf"\b{name}=", item)]
    text = ",".join(kept)
    return {**options, "compress": f"{text}{',' if ':' in text else ':'}{name}={value}"}


def measured(result: Any, metric: str) -> float:
    sections = {"flops": result.flops, "bytes": result.bytes_moved}
    return float(result.time_s["ttft"] if metric == "ttft" else sections[metric]["total"])


@pytest.fixture(scope="module")
def found() -> list[BreakEven]:
    return [
        break_even(MODEL, GPU, compress, name, metric=metric, **options)
        for compress, name, metric, options in QUESTIONS
    ]


@pytest.mark.parametrize("which", range(len(QUESTIONS)))
@pytest.mark.parametrize("share", [0.0, 0.13, 0.61, 1.0])
def test_every_value_is_an_estimate(found: list[BreakEven], which: int, share: float) -> None:
    compress, name, metric, options = QUESTIONS[which]
    index = round(share * (len(found[which].values) - 1))
    value = int(found[which].values[index])
    single = estimate(MODEL, GPU, **asked(compress, name, value, options))
    assert single.baseline is not None
    assert found[which].compressed[index] == pytest.approx(measured(single, metric), rel=1e-9)
    assert found[which].baseline[index] == pytest.approx(
        measured(single.baseline, metric), rel=1e-9
    )


def test_crossings_are_where_single_estimates_change_sign(found: list[BreakEven]) -> None:
    seen = 0
    for (compress, name, metric, options), one in zip(QUESTIONS, found, strict=True):
        for crossing in one.crossings:
            pays = []
            for value in (crossing.below, crossing.above):
                single = estimate(MODEL, GPU, **asked(compress, name, value, options))
                assert single.baseline is not None
                pays.append(measured(single, metric) < measured(single.baseline, metric))
            assert pays == [crossing.pays == "below", crossing.pays == "above"]
            seen += 1
    assert seen >= 4


def test_every_sign_change_is_found(found: list[BreakEven]) -> None:
    for one in found:
        signs = one.compressed < one.baseline
        assert len(one.crossings) == int((signs[1:] != signs[:-1]).sum())
        chosen = [value for low, high in one.pays for value in range(low, high + 1)]
        assert chosen == one.values[signs].tolist()


def test_closed_forms_give_the_same_crossings(found: list[BreakEven]) -> None:
    with_formula = [one for one in found if one.formula is not None and one.crossings]
    assert len(with_formula) >= 2
    for one in with_formula:
        for crossing in one.crossings:
            assert crossing.root is not None
            assert crossing.below <= crossing.root <= crossing.above


def test_closed_form_in_symbols_is_its_own_root() -> None:
    """The formula's symbols replaced by values give the numbers, as the counts do."""
    one = break_even(MODEL, GPU, "cluster:k=64", "iterations", text_tokens=64, metric="flops")
    assert one.formula is not None
    (solution,) = one.formula.solutions
    (root,) = one.formula.roots
    numbers = {s: one.formula.values[s.name] for s in solution.free_symbols}
    assert float(solution.subs(numbers)) == pytest.approx(root)
    for count, pays in ((int(root), True), (int(root) + 1, False)):
        single = estimate(MODEL, GPU, text_tokens=64, compress=f"cluster:k=64,iterations={count}")
        assert single.baseline is not None
        assert (single.flops["total"] < single.baseline.flops["total"]) is pays


def test_by_hand_iterations_of_clustering() -> None:
    """LLM FLOPs saved by 512 fewer tokens over those of one Lloyd iteration."""
    d, f, layers, text, before, k = 4096, 11008, 32, 64, 576, 64

    def llm(tokens: int) -> int:
        return layers * (tokens * (8 * d * d + 6 * d * f) + 4 * tokens * tokens * d)

    seeding = 2 * before * d * (1 + (k - 1))
    root = (llm(text + before) - llm(text + k) - seeding) / (2 * before * k * d)
    one = break_even(MODEL, GPU, "cluster:k=64", "iterations", text_tokens=64, metric="flops")
    assert one.formula is not None
    assert one.formula.roots[0] == pytest.approx(root, rel=1e-12)


def _page_rows() -> list[list[str]]:
    page = (ROOT / "docs" / "clustering.md").read_text(encoding="utf-8")
    predicted = page.partition("## Predicted")[2].partition("## Measured")[0]
    rows = [line.strip("| ").split(" | ") for line in predicted.splitlines() if "`" in line]
    return [row for row in rows if len(row) == 8]


@pytest.mark.parametrize("gpu", ["a100-80gb-sxm", "rtx-a6000"])
@pytest.mark.parametrize("impl", ["eager", "fused", "sklearn"])
def test_the_page_of_clustering_says_the_same(gpu: str, impl: str) -> None:
    """Overhead above 100 % of what is saved is what does not pay."""
    rows = [row for row in _page_rows() if row[0] == f"`{gpu}`" and row[1] == impl]
    assert len(rows) == 6
    for batch in ("1", "8"):
        one = break_even(
            MODEL, gpu, f"cluster:iterations=10,check=false,impl={impl}", "k",
            text_tokens=64, batch=int(batch), span=(20, 144),
        )  # fmt: skip
        own = [row for row in rows if row[2] == batch]
        assert len(own) == 3
        for row in own:
            index = int(np.flatnonzero(one.values == int(row[3]))[0])
            overhead_ms, saved_ms = float(row[5]), float(row[6])
            difference_ms = 1e3 * float(one.difference[index])
            assert difference_ms == pytest.approx(overhead_ms - saved_ms, abs=0.11)
            assert (float(row[7].split()[0]) > 100) is (difference_ms > 0)


def test_break_even_comes_later_where_prefill_is_slower() -> None:
    limits = [
        break_even(MODEL, gpu, "cluster:check=false", "k", text_tokens=64, span=(100, 220)).pays[
            -1
        ][1]
        for gpu in ("a100-80gb-sxm", "rtx-a6000")
    ]
    assert limits[0] < limits[1]


def test_bands_hold_what_pays(found: list[BreakEven]) -> None:
    for one in found:
        if one.metric != "ttft":
            assert one.surely_pays() is None
            assert one.may_pay() is None
            continue
        for band in ("same_stack", "any_stack"):
            assert (one.low[band] <= one.difference).all()
            assert (one.difference <= one.high[band]).all()
        assert (one.low["any_stack"] <= one.low["same_stack"]).all()
        assert (one.high["any_stack"] >= one.high["same_stack"]).all()


def test_ideal_times_have_no_bands() -> None:
    one = break_even(MODEL, GPU, "cluster", "k", text_tokens=64, time_model="ideal", span=(1, 20))
    assert one.surely_pays() is None
    assert one.floor.calibrated_tokens is None


def test_values_a_method_cannot_do_are_counted() -> None:
    one = break_even(MODEL, GPU, "cluster", "k", text_tokens=64, span=(570, 580))
    assert (one.values.tolist(), one.refused) == (list(range(570, 577)), 4)
    assert "576" in one.reason


def test_visual_tokens_pay_when_there_are_many() -> None:
    one = break_even(MODEL, GPU, "cluster:k=64", "visual-tokens", text_tokens=64, span=(500, 640))
    for value in (500, 577, 640):
        single = estimate(MODEL, GPU, text_tokens=64, compress="cluster:k=64", visual_tokens=value)
        index = value - 500
        assert single.baseline is not None
        assert one.compressed[index] == pytest.approx(single.time_s["ttft"])
        assert one.baseline[index] == pytest.approx(single.baseline.time_s["ttft"])


def test_retention_gives_way_to_k() -> None:
    one = break_even(MODEL, GPU, "cluster:retention=0.1", "k", text_tokens=64, span=(1, 4))
    assert one.values.tolist() == [1, 2, 3, 4]


def test_runs_of_nothing() -> None:
    assert runs(np.array([1, 2]), np.array([False, False])) == ()


@pytest.mark.parametrize(
    ("gpu", "published"), [("a100-80gb-sxm", 153), ("a100-40gb-sxm", 201), ("rtx-a6000", 202)]
)
def test_weight_floor_is_the_arithmetic_intensity_of_the_device(gpu: str, published: int) -> None:
    floor = break_even(MODEL, gpu, "cluster", "k", text_tokens=64, span=(1, 2)).floor
    assert round(floor.weights_only_tokens) == published
    assert floor.with_activations_tokens > floor.weights_only_tokens


def test_fewer_bytes_of_weights_lower_the_floor() -> None:
    whole, quarter = (
        break_even(
            MODEL, GPU, "cluster", "k", text_tokens=64, span=(1, 2), weights_dtype=dtype
        ).floor
        for dtype in ("fp16", "int4")
    )
    assert quarter.weights_only_tokens == pytest.approx(whole.weights_only_tokens / 4)


@pytest.mark.parametrize(
    ("compress", "name", "options", "parts"),
    [
        ("cluster", "kk", {}, ("kk", "k", "batch")),
        ("spatial:k=64", "iterations", {}, ("iterations", "batch", "spatial")),
        ("cluster:k=64", "impl", {}, ("impl", "iterations")),
        ("random:k=90 then cluster:k=50", "k", {}, ("random.k", "cluster.k")),
        ("cluster:k=64", "batch", {"span": (5, 5)}, ("range", "5:5", "LOW < HIGH")),
        ("cluster:k=64", "batch", {"span": (0, 5)}, ("0:5", "1 <=")),
        ("cluster:k=64", "n_init", {"span": (1, 30_000)}, ("20,000",)),
        ("cluster", "k", {"span": (600, 700)}, ("600", "576")),
        ("none", "batch", {}, ("compress", "none")),
        ("cluster:k=64", "batch", {"metric": "joules"}, ("joules", "flops")),
    ],
)
def test_bad_questions(
    compress: str, name: str, options: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises((InputError, UnknownNameError)) as caught:
        break_even(MODEL, GPU, compress, name, text_tokens=64, **options)
    assert all(re.search(re.escape(part), str(caught.value)) for part in parts)
