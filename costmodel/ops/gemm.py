"""Matrix products and convolutions."""

from __future__ import annotations

from sympy import Expr, Integer

from costmodel.ops.op import ONE, ZERO, Op, Part, Stage, Traffic
from costmodel.symbols import sym

__all__ = ["gemm", "matmul"]


def gemm(
    name: str,
    stage: Stage,
    *,
    m: Expr,
    n: Expr,
    k: Expr,
    bias: bool = False,
    weight_bytes: Expr | None = None,
    repeat: Expr = ONE,
    held: Expr = ZERO,
    part: Part = "linear",
    note: str = "",
) -> Op:
    r"""Linear layer ``y[m, n] = x[m, k] w[k, n] (+ bias[n])``.

    .. math:: F = 2mnk,\quad
              Q = nk\,\beta_w + (mk + mn)\,\beta_a

    A convolution whose kernel equals its stride is the same product with one
    row per output position, which is what FlopCounterMode counts.

    Parameters
    ----------
    name : str
        Operator name.
    stage : Stage
        Stage it belongs to.
    m, n, k : Expr
        Rows, output features and input features.
    bias : bool
        Whether a bias is read (its addition is part of the kernel).
    weight_bytes : Expr, optional
        Bytes of one weight [B]; a linear layer's by default.
    repeat : Expr
        Executions per forward pass.
    held : Expr
        Bytes live beside input and output [B].
    part : Part
        Sub-total it counts in.
    note : str
        A remark.

    Returns
    -------
    Op

    Examples
    --------
    >>> op = gemm("q", "llm", m=sym("b") * sym("s"), n=sym("d"), k=sym("d"))
    >>> op.flops
    2*b*d**2*s
    """
    beta = sym("bw") if weight_bytes is None else weight_bytes
    act_in, act_out = m * k * sym("ba"), m * n * sym("ba")
    return Op(
        name=name,
        stage=stage,
        kind="gemm",
        shape=(("batch", Integer(1)), ("m", m), ("n", n), ("k", k)),
        flops=2 * m * n * k,
        traffic=Traffic(
            weights=n * k * beta + (n * sym("bo") if bias else ZERO),
            act_in=act_in,
            act_out=act_out,
        ),
        repeat=repeat,
        live=act_in + act_out + held,
        part=part,
        matmul=True,
        note=note,
    )


def matmul(
    name: str,
    stage: Stage,
    *,
    batch: Expr,
    m: Expr,
    n: Expr,
    k: Expr,
    a_bytes: Expr,
    b_bytes: Expr,
    b_is_cache: bool = False,
    repeat: Expr = ONE,
    launches: Expr = ONE,
    held: Expr = ZERO,
    part: Part = "other",
    note: str = "",
) -> Op:
    r"""Batched product of two activations, ``batch`` times ``[m, k] x [k, n]``.

    .. math:: F = 2\,\mathrm{batch}\,mnk

    Parameters
    ----------
    name, stage, repeat, held, part, note
        As in `gemm`.
    batch, m, n, k : Expr
        Sizes.
    a_bytes, b_bytes : Expr
        Bytes read of the first and the second operand, all batches [B];
        passed in because operands may be shared between batches.
    b_is_cache : bool
        Whether the second operand is read from the KV cache.
    launches : Expr
        Kernels started.

    Returns
    -------
    Op
    """
    out = batch * m * n * sym("ba")
    return Op(
        name=name,
        stage=stage,
        kind="gemm",
        shape=(("batch", batch), ("m", m), ("n", n), ("k", k)),
        flops=2 * batch * m * n * k,
        traffic=Traffic(
            act_in=a_bytes if b_is_cache else a_bytes + b_bytes,
            act_out=out,
            kv_read=b_bytes if b_is_cache else ZERO,
        ),
        repeat=repeat,
        launches=launches,
        live=a_bytes + (ZERO if b_is_cache else b_bytes) + out + held,
        part=part,
        matmul=True,
        note=note,
    )
