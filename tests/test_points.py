"""Grids of points give what single estimates give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from costmodel.errors import InputError, UnknownNameError
from costmodel.estimation import Case, estimate, prepare
from costmodel.points import AXES, Grid, evaluate_grid
from costmodel.results import STAGES


def case(**options: Any) -> Case:
    return prepare("llava-1.5-7b", "a100", **{"text_tokens": 64, **options})


def check(grid: Grid, at: int | tuple[int, ...], **options: Any) -> None:
    alone = estimate("llava-1.5-7b", "a100", **{"text_tokens": 64, **options})
    for name, values in grid.time_s.items():
        assert values[at] == pytest.approx(alone.time_s[name], rel=1e-13, abs=1e-30), name
    for name, values in grid.flops.items():
        assert values[at] == pytest.approx(alone.flops[name], rel=1e-13), name
    memory = grid.memory
    assert memory.weights[at] == alone.memory_bytes["weights"]
    assert memory.kv_cache[at] == alone.memory_bytes["kv_cache"]
    assert memory.activations_peak[at] == alone.memory_bytes["activations_peak"]


def test_every_point_of_a_grid_is_an_estimate() -> None:
    texts, batches = [64, 500], [1, 2, 16]
    grid = evaluate_grid(
        case(output_tokens=9), text_tokens=np.array(texts)[:, None], batch=batches
    )  # fmt: skip
    assert set(grid.time_s) == {*STAGES, "host_overhead", "ttft", "tpot"}
    assert set(grid.flops) == {*STAGES, "total"}
    for row, text in enumerate(texts):
        for column, batch in enumerate(batches):
            check(grid, (row, column), text_tokens=text, batch=batch, output_tokens=9)
    np.testing.assert_array_equal(grid.axes["batch"], [batches] * 2)
    np.testing.assert_array_equal(grid.axes["text_tokens"], np.array([texts] * 3).T)


def test_output_tokens() -> None:
    grid = evaluate_grid(case(), output_tokens=[0, 1, 100])
    for index, produced in enumerate([0, 1, 100]):
        check(grid, index, output_tokens=produced)


def test_a_symbol_of_the_method() -> None:
    grid = evaluate_grid(case(compress="cluster:k=64"), k=[16, 64])
    for index, kept in enumerate([16, 64]):
        check(grid, index, compress=f"cluster:k={kept}")


def test_visual_tokens_are_those_of_the_language_model() -> None:
    grid = evaluate_grid(case(), visual_tokens=[64, 576])
    tower = grid.time_s["vision_encoder"]
    assert tower[0] == tower[1] > 0
    check(grid, 1)
    # FORMATS: 1.666 and 8.504 TFLOP.
    assert [round(value / 1e12, 3) for value in grid.flops["llm_prefill"]] == [1.666, 8.504]


def test_no_axes_are_one_point() -> None:
    check(evaluate_grid(case()), ())


@pytest.mark.parametrize("name", ["batches", "k", "visual"])
def test_an_axis_that_the_program_lacks(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"unknown axis '{name}'") as caught:
        evaluate_grid(case(), **{name: [1, 2]})
    assert set(AXES) <= set(caught.value.choices)


@pytest.mark.parametrize("value", [[], [-1], [float("nan")], [1, float("inf")]])
def test_values_that_are_no_sizes(value: list[float]) -> None:
    with pytest.raises(InputError, match=r"text_tokens: .*finite numbers"):
        evaluate_grid(case(), text_tokens=value)
