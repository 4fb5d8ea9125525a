"""Matrix products against hand-computed cases; the arithmetic stands beside each number."""

from __future__ import annotations

from sympy import Expr

from costmodel.ops import exact, gemm, matmul
from costmodel.symbols import sym


def at(expression: Expr, **values: int) -> int:
    return exact(expression, {sym(name): value for name, value in values.items()})


SIZES = {"b": 2, "s": 3, "d": 4, "f": 5, "bw": 1, "bo": 4, "ba": 2, "bkv": 1}
B, S, D, F = (sym(name) for name in "bsdf")


def test_gemm_without_bias() -> None:
    op = gemm("up", "llm", m=B * S, n=F, k=D)
    assert at(op.flops, **SIZES) == 2 * (2 * 3) * 5 * 4
    assert at(op.traffic.weights, **SIZES) == 5 * 4 * 1
    assert at(op.traffic.act_in, **SIZES) == 6 * 4 * 2
    assert at(op.traffic.act_out, **SIZES) == 6 * 5 * 2
    assert at(op.traffic.total, **SIZES) == 20 + 48 + 60
    assert at(op.live, **SIZES) == 48 + 60
    assert (op.launches, op.host_syncs, op.repeat) == (1, 0, 1)
    assert op.matmul
    assert op.part == "linear"
    assert dict(op.shape) == {"batch": 1, "m": B * S, "n": F, "k": D}


def test_a_bias_adds_bytes_of_its_own_format_and_no_counted_flops() -> None:
    plain = gemm("up", "llm", m=B * S, n=F, k=D)
    biased = gemm("up", "llm", m=B * S, n=F, k=D, bias=True)
    assert biased.flops == plain.flops
    assert at(biased.traffic.weights, **SIZES) == 5 * 4 * 1 + 5 * 4


def test_a_weight_of_another_format() -> None:
    op = gemm("head", "lm_head", m=B, n=F, k=D, weight_bytes=sym("bo"))
    assert at(op.traffic.weights, **SIZES) == 5 * 4 * 4
    assert sym("bw") not in op.free_symbols


def test_held_bytes_are_live_but_not_moved() -> None:
    plain = gemm("up", "llm", m=B * S, n=F, k=D)
    held = gemm("up", "llm", m=B * S, n=F, k=D, held=B * S * D * sym("ba"))
    assert held.traffic == plain.traffic
    assert at(held.live, **SIZES) == at(plain.live, **SIZES) + 6 * 4 * 2


def test_matmul_of_activations() -> None:
    ba = sym("ba")
    op = matmul("x", "llm", batch=B, m=S, n=F, k=D, a_bytes=B * S * D * ba, b_bytes=D * F * ba)
    assert at(op.flops, **SIZES) == 2 * 2 * 3 * 5 * 4
    # The second operand is shared between the batches here, so it is read once.
    assert at(op.traffic.act_in, **SIZES) == 2 * 3 * 4 * 2 + 4 * 5 * 2
    assert at(op.traffic.act_out, **SIZES) == 2 * 3 * 5 * 2
    assert op.traffic.weights == 0
    assert at(op.live, **SIZES) == 48 + 40 + 60


def test_matmul_with_the_kv_cache() -> None:
    bkv = sym("bkv")
    op = matmul(
        "x", "llm", batch=B, m=S, n=F, k=D, a_bytes=B * S * D * sym("ba"),
        b_bytes=B * D * F * bkv, b_is_cache=True,
    )  # fmt: skip
    assert at(op.traffic.act_in, **SIZES) == 2 * 3 * 4 * 2
    assert at(op.traffic.kv_read, **SIZES) == 2 * 4 * 5 * 1
    # The cache is memory of its own, not a live activation.
    assert at(op.live, **SIZES) == 48 + 60


def test_times_multiplies_the_repeats_and_holding_adds_live_bytes() -> None:
    op = gemm("up", "llm", m=B * S, n=F, k=D, repeat=sym("L"))
    assert op.times(sym("B")).repeat == sym("L") * sym("B")
    assert op.times(sym("B")).flops == op.flops
    assert op.holding(sym("ba")).live == op.live + sym("ba")
