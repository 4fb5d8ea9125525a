"""From expressions to arrays: broadcasting, precision, overrides, caching."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from sympy import Integer, Max, Rational

from costmodel import evaluation
from costmodel.errors import UnknownNameError
from costmodel.estimation import prepare
from costmodel.evaluation import Evaluation, evaluate, evaluate_expressions, resolve
from costmodel.ops import exact
from costmodel.program import PHASES, Phase, Program
from costmodel.symbols import sym


@lru_cache
def program(model: str = "llava-1.5-7b", compress: str | None = None, **options: Any) -> Program:
    return prepare(model, "a100", text_tokens=64, compress=compress, **options).program()[0]


def arrays(found: Evaluation) -> dict[str, np.ndarray[Any, Any]]:
    named = {
        name: getattr(found, name)
        for name in ("flops", "launches", "host_syncs", "repeat", "live", "bytes_moved")
    }
    return named | found.traffic


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("compress", [None, "cluster:k=64", "mbtf+stf"])
def test_scalar_and_vectorised_agree_bit_for_bit(phase: Phase, compress: str | None) -> None:
    texts, batches = np.array([1, 64, 1000, 123_457]), np.array([1, 3, 17, 4096])
    together = evaluate(program(compress=compress), phase, T=texts, b=batches)
    assert together.points == (4,)
    for point, (text, batch) in enumerate(zip(texts, batches, strict=True)):
        alone = evaluate(program(compress=compress), phase, T=int(text), b=int(batch))
        assert alone.points == ()
        for name, rows in arrays(together).items():
            np.testing.assert_array_equal(rows[:, point], arrays(alone)[name], err_msg=name)
        for one, many in zip(alone.shapes, together.shapes, strict=True):
            for name, size in many.items():
                assert np.broadcast_to(size, (4,))[point] == one[name]


def test_a_grid_of_text_and_batch_is_every_combination() -> None:
    texts, batches = np.arange(1, 5)[:, None], np.array([1, 8, 64])
    grid = evaluate(program(), T=texts, b=batches)
    assert grid.points == (4, 3)
    for rows in arrays(grid).values():
        assert rows.shape == (len(grid.ops), 4, 3)
    one = evaluate(program(), T=3, b=64)
    np.testing.assert_array_equal(grid.flops[:, 2, 2], one.flops)


def test_constants_have_the_shape_of_the_points() -> None:
    # The patch embedding does not depend on T: lambdify alone would return a scalar.
    found = evaluate(program(), T=np.arange(1, 6))
    row = [op.name for op in found.ops].index("vision.patch_embed")
    assert found.flops[row].shape == (5,)
    assert len(set(found.flops[row])) == 1
    assert (found.launches[row] == 1).all()


def test_a_plain_number_and_a_plain_symbol_are_arrays_too() -> None:
    batch = np.array([1.0, 2.0])
    three, plain, double = evaluate_expressions(
        [Integer(3), sym("b"), 2 * sym("b")], {sym("b"): batch}
    )
    assert three.shape == ()
    assert three.dtype == plain.dtype == double.dtype == np.float64
    np.testing.assert_array_equal(double, [2.0, 4.0])


def test_max_broadcasts_scalars_and_arrays() -> None:
    (found,) = evaluate_expressions([Max(sym("o") - 2, 0) / 2], {sym("o"): np.array([0.0, 5.0])})
    np.testing.assert_array_equal(found, [0.0, 1.5])
    (found,) = evaluate_expressions(
        [Max(sym("o"), sym("T"), 1)], {sym("o"): np.array([0.0, 5.0]), sym("T"): np.array(3.0)}
    )
    np.testing.assert_array_equal(found, [3.0, 5.0])


def test_results_come_in_the_order_asked_with_repetitions() -> None:
    b = sym("b")
    found = evaluate_expressions([2 * b, b, 2 * b, Rational(1, 2)], {b: np.array(4.0)})
    assert [float(value) for value in found] == [8, 4, 8, 0.5]


def test_integers_beyond_64_bits_become_floats_instead_of_wrapping() -> None:
    found = evaluate(program(), T=10_000_000, b=1_000_000)
    row = [op.name for op in found.ops].index("decoder.attention")
    op = found.ops[row]
    values = {symbol: int(value) for symbol, value in program().values.items()}
    values |= {sym("T"): 10_000_000, sym("b"): 1_000_000}
    values |= {sym("s"): 10_000_576, sym("p"): 0}
    truth = exact(op.flops, values)
    assert truth > 2**63
    assert found.flops.dtype == np.float64
    assert float(found.flops[row]) == pytest.approx(truth, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.uint8])
def test_overrides_of_any_numeric_type_are_computed_in_float64(dtype: Any) -> None:
    found = evaluate(program(), T=np.array([200], dtype=dtype), b=np.array([100], dtype=dtype))
    np.testing.assert_array_equal(found.flops[:, 0], evaluate(program(), T=200, b=100).flops)


def test_bytes_are_the_sum_of_their_kinds() -> None:
    found = evaluate(program(), T=np.array([64, 65]))
    total = sum(found.traffic[kind] for kind in found.traffic)
    np.testing.assert_array_equal(found.bytes_moved, total)
    assert set(found.traffic) == {"weights", "act_in", "act_out", "kv_read", "kv_write"}


def test_total_is_the_sum_over_repeats() -> None:
    found = evaluate(program())
    mask = [op.name == "decoder.attention" for op in found.ops]
    assert float(found.total(found.flops, mask)) == 214_748_364_800  # FORMATS, ground truth
    expected = sum(float(f * r) for f, r in zip(found.flops, found.repeat, strict=True))
    assert float(found.total(found.flops)) == pytest.approx(expected, rel=1e-15)


def test_an_override_replaces_a_value() -> None:
    np.testing.assert_array_equal(
        evaluate(program(), b=8).flops, evaluate(program(batch=8)).flops
    )  # fmt: skip


def test_an_override_replaces_a_relation() -> None:
    assert resolve(program(), "prefill")[sym("s")] == 640
    assert resolve(program(), "prefill", {"s": 100})[sym("s")] == 100
    # What depends on it follows, what it depends on stays.
    every = program(head_tokens="all")
    known = resolve(every, "prefill", {"s": 100})
    assert known[sym("e")] == 100
    assert known[sym("T")] == 64


def test_relations_of_relations_follow_an_override() -> None:
    found = program(compress="cluster:k=64")
    assert resolve(found, "prefill", {"k": 100})[sym("s")] == 164
    assert resolve(found, "decode", {"k": 100})[sym("p")] == 164


def test_an_override_of_a_model_size() -> None:
    flops = evaluate(program(), L=64)
    plain = evaluate(program())
    row = [op.name for op in plain.ops].index("decoder.attention")
    assert float(flops.total(flops.flops)) > float(plain.total(plain.flops))
    assert flops.repeat[row] == 64


@pytest.mark.parametrize("phase", PHASES)
def test_an_unknown_override_names_the_closest_symbol(phase: Phase) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown symbol 'lv'\. Did you mean Lv\?"):
        evaluate(program(), phase, lv=3)
    with pytest.raises(UnknownNameError, match=r"unknown symbol 'text_tokens'"):
        resolve(program(), phase, {"text_tokens": 3})


def test_a_symbol_that_the_program_lacks_is_unknown_too() -> None:
    # Without compression nothing depends on k: a sweep over it would be silently flat.
    assert evaluate(program(compress="random:k=8"), k=[8, 16]).points == (2,)
    with pytest.raises(UnknownNameError, match="unknown symbol 'k'"):
        evaluate(program(), k=[8, 16])


def test_a_program_with_a_missing_value_says_which() -> None:
    found = program()
    broken = Program(
        found.ops, found.weights, found.cache,
        {symbol: value for symbol, value in found.values.items() if symbol.name != "T"},
        found.derived, found.derived_decode,
    )  # fmt: skip
    with pytest.raises(KeyError, match=r"unresolved symbols: \['s'"):
        resolve(broken, "prefill")


def misses() -> int:
    return evaluation._compile.cache_info().misses


def test_a_second_evaluation_compiles_nothing() -> None:
    found = prepare("vila-1.5-3b", "a100", text_tokens=64, compress="random:k=8").program()[0]
    for phase in PHASES:
        evaluate(found, phase)
    before = misses()
    for phase in PHASES:
        evaluate(found, phase, T=np.arange(1, 100), k=5)
    # Equal expressions of another program share the compiled functions too.
    other = prepare("vila-1.5-3b", "l4", text_tokens=9, batch=7, compress="random:k=3").program()[0]
    for phase in PHASES:
        evaluate(other, phase)
    assert misses() == before


def test_decode_shares_the_functions_of_prefill() -> None:
    found = prepare("vila-1.5-3b", "a100", text_tokens=64, attention="sdpa").program()[0]
    evaluate(found, "prefill")
    resolve(found, "decode")
    before = misses()
    evaluate(found, "decode")
    assert misses() == before
