"""Memory-bound operators against hand-counted kernels."""

from __future__ import annotations

from typing import Any

import pytest
from sympy import Expr, Integer

from costmodel.ops import activation, add, copy, elementwise, exact, norm, rotary
from costmodel.symbols import sym

VALUES = {"s": 3, "d": 5, "ba": 2, "bo": 4}
SIZE = 3 * 5
SHAPE: dict[str, Any] = {"rows": sym("s"), "cols": sym("d")}


def at(expression: Expr) -> int:
    return exact(expression, {sym(name): value for name, value in VALUES.items()})


def test_elementwise_counts_per_element() -> None:
    op = elementwise(
        "e", "llm", **SHAPE, read=3 * sym("ba"), write=sym("ba"), flops_per_element=Integer(7),
        weights=sym("d") * sym("bo"), launches=Integer(2),
    )  # fmt: skip
    assert at(op.flops) == SIZE * 7
    assert at(op.traffic.act_in) == SIZE * 3 * 2
    assert at(op.traffic.act_out) == SIZE * 2
    assert at(op.traffic.weights) == 5 * 4
    assert at(op.live) == SIZE * (3 + 1) * 2
    assert op.launches == 2
    assert not op.matmul


def test_fused_rmsnorm_reads_and_writes_once() -> None:
    op = norm("n", "llm", **SHAPE, kind="rmsnorm", fused=True)
    assert (at(op.traffic.act_in), at(op.traffic.act_out)) == (SIZE * 2, SIZE * 2)
    assert at(op.traffic.weights) == 5 * 4
    assert op.launches == 1
    # Square, sum, scale, weight.
    assert at(op.flops) == SIZE * 4


def test_fused_residual_norm_reads_and_writes_the_residual_too() -> None:
    op = norm("n", "llm", **SHAPE, kind="rmsnorm", fused=True, residual=True)
    assert (at(op.traffic.act_in), at(op.traffic.act_out)) == (SIZE * 4, SIZE * 4)
    assert op.launches == 1
    assert at(op.flops) == SIZE * 5


def test_eager_rmsnorm_is_eight_kernels() -> None:
    op = norm("n", "llm", **SHAPE, kind="rmsnorm", fused=False)
    # LlamaRMSNorm of transformers, reads and writes per element, ba = 2:
    #   cast up        r 2  w 4        rsqrt            per row
    #   square         r 4  w 4        multiply         r 4  w 4
    #   mean           r 4             cast down        r 4  w 2
    #   add epsilon    per row         multiply weight  r 2  w 2
    reads = 2 + 4 + 4 + 4 + 4 + 2
    writes = 4 + 4 + 4 + 2 + 2
    assert at(op.traffic.act_in) == SIZE * reads
    assert at(op.traffic.act_out) == SIZE * writes
    assert op.launches == 8


@pytest.mark.parametrize("fused", [False, True])
def test_layernorm_is_one_kernel_with_two_vectors(fused: bool) -> None:
    op = norm("n", "llm", **SHAPE, kind="layernorm", fused=fused)
    assert op.launches == 1
    assert at(op.traffic.weights) == 2 * 5 * 4
    assert (at(op.traffic.act_in), at(op.traffic.act_out)) == (SIZE * 2, SIZE * 2)


def test_rotary_fused_and_eager() -> None:
    fused = rotary("r", "llm", **SHAPE, fused=True)
    assert (at(fused.traffic.act_in), at(fused.traffic.act_out)) == (SIZE * 2, SIZE * 2)
    assert fused.launches == 1
    eager = rotary("r", "llm", **SHAPE, fused=False)
    # apply_rotary_pos_emb of transformers, in elements read and written per element:
    #   x * cos        r 1    w 1
    #   -x[half]       r 0.5  w 0.5
    #   concatenate    r 1    w 1
    #   rotated * sin  r 1    w 1
    #   add            r 2    w 1
    assert at(eager.traffic.act_in) == SIZE * 2 * (1 + 0.5 + 1 + 1 + 2)
    assert at(eager.traffic.act_out) == SIZE * 2 * (1 + 0.5 + 1 + 1 + 1)
    # Five kernels for the queries and five for the keys.
    assert eager.launches == 10
    assert eager.flops == fused.flops


@pytest.mark.parametrize(
    ("function", "gated", "fused", "reads", "writes", "launches"),
    [
        ("silu", False, True, 1, 1, 1),
        ("silu", False, False, 1, 1, 1),
        # silu_and_mul: gate and up in, product out.
        ("silu", True, True, 2, 1, 1),
        # silu (r 1, w 1), then the product of two (r 2, w 1).
        ("silu", True, False, 3, 2, 2),
        # x * sigmoid(1.702 x): scale (1, 1), sigmoid (1, 1), product (2, 1).
        ("quick_gelu", False, False, 4, 3, 3),
        ("quick_gelu", False, True, 1, 1, 1),
        ("gelu_pytorch_tanh", False, False, 1, 1, 1),
    ],
)
def test_activation(
    function: str, gated: bool, fused: bool, reads: int, writes: int, launches: int
) -> None:
    op = activation("a", "llm", **SHAPE, function=function, gated=gated, fused=fused)
    assert at(op.traffic.act_in) == SIZE * 2 * reads
    assert at(op.traffic.act_out) == SIZE * 2 * writes
    assert op.launches == launches


def test_a_gate_adds_one_product() -> None:
    plain = activation("a", "llm", **SHAPE, function="silu", gated=False, fused=True)
    gated = activation("a", "llm", **SHAPE, function="silu", gated=True, fused=True)
    assert at(gated.flops) == at(plain.flops) + SIZE


def test_an_unknown_activation_counts_as_gelu() -> None:
    one = activation("a", "llm", **SHAPE, function="mish", gated=False, fused=True)
    other = activation("a", "llm", **SHAPE, function="gelu", gated=False, fused=True)
    assert one == other


def test_add_reads_two_and_writes_one() -> None:
    op = add("a", "llm", **SHAPE)
    assert (at(op.traffic.act_in), at(op.traffic.act_out)) == (SIZE * 4, SIZE * 2)
    assert at(op.flops) == SIZE


def test_copy_per_pass_and_from_another_format() -> None:
    op = copy("c", "llm", **SHAPE, passes=Integer(3), launches=Integer(17))
    assert (at(op.traffic.act_in), at(op.traffic.act_out)) == (SIZE * 2 * 3, SIZE * 2 * 3)
    assert op.launches == 17
    assert op.flops == 0
    # A pass at a time is live: one source and one copy.
    assert at(op.live) == SIZE * 4
    lookup = copy("c", "llm", **SHAPE, read_bytes=sym("bo"))
    assert (at(lookup.traffic.act_in), at(lookup.traffic.act_out)) == (SIZE * 4, SIZE * 2)
