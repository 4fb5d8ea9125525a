"""Memory-bound operators: norms, activations, rotary embedding, additions, copies.

FLOPs of these are counted per element with every arithmetic or special
function (exp, erf, rsqrt, division) as one; FlopCounterMode does not count
them and neither do the stage totals.
"""

from __future__ import annotations

from typing import Literal

from sympy import Expr, Integer, Rational

from costmodel.ops.op import ONE, ZERO, Op, OpKind, Part, Primitive, Stage, Traffic
from costmodel.symbols import sym

__all__ = ["activation", "add", "copy", "elementwise", "norm", "rotary"]

_ACTIVATION_FLOPS = {"silu": 4, "quick_gelu": 5, "gelu": 6, "relu": 1}
# Kernels of an unfused activation: quick_gelu is x * sigmoid(1.702 x) in three, the second
# of which runs beside x.
_ACTIVATION_KERNELS = {"quick_gelu": 3}
_FP32_BYTES = Integer(4)


def elementwise(
    name: str,
    stage: Stage,
    *,
    rows: Expr,
    cols: Expr,
    read: Expr,
    write: Expr,
    flops_per_element: Expr,
    launches: Expr = ONE,
    weights: Expr = ZERO,
    kind: OpKind = "elementwise",
    repeat: Expr = ONE,
    live: Expr | None = None,
    held: Expr = ZERO,
    part: Part = "other",
    primitive: Primitive = "other",
    note: str = "",
) -> Op:
    """Work done element by element on ``rows x cols``.

    Parameters
    ----------
    name, stage, repeat, held, part, note
        As in `costmodel.ops.gemm.gemm`.
    rows, cols : Expr
        Size of the array.
    read, write : Expr
        Activation bytes read and written per element, all kernels together [B].
    flops_per_element : Expr
        Arithmetic per element [FLOP].
    launches : Expr
        Kernels started.
    weights : Expr
        Weight bytes read [B].
    kind : OpKind
        ``"elementwise"`` or ``"copy"``.
    primitive : Primitive
        Kernel family whose measured timings apply.
    live : Expr, optional
        Live bytes per element instead of ``read + write`` of one kernel [B].

    Returns
    -------
    Op
    """
    size = rows * cols
    return Op(
        name=name,
        stage=stage,
        kind=kind,
        shape=(("rows", rows), ("cols", cols)),
        flops=size * flops_per_element,
        traffic=Traffic(weights=weights, act_in=size * read, act_out=size * write),
        repeat=repeat,
        launches=launches,
        live=size * (read + write if live is None else live) + held,
        part=part,
        primitive=primitive,
        note=note,
    )


def norm(
    name: str,
    stage: Stage,
    *,
    rows: Expr,
    cols: Expr,
    kind: Literal["rmsnorm", "layernorm"],
    fused: bool,
    residual: bool = False,
    weight_cols: Expr | None = None,
    repeat: Expr = ONE,
    held: Expr = ZERO,
    part: Part = "other",
) -> Op:
    """RMSNorm or LayerNorm, in serving engines fused with the residual addition.

    Unfused RMSNorm is eight kernels in the Hugging Face code (cast up, square,
    mean, add epsilon, rsqrt, multiply, cast down, multiply by the weight): it reads
    ``2 ba + 16`` and writes ``2 ba + 12`` bytes per element, and holds two fp32
    arrays beside its input.  LayerNorm is one.

    Parameters
    ----------
    name, stage, rows, cols, repeat, held, part
        As in `elementwise`.
    kind : {"rmsnorm", "layernorm"}
        Which norm.
    fused : bool
        Serving-style kernels.
    weight_cols : Expr, optional
        Width of the learned vectors, if not `cols` (a norm shared by all heads).
    residual : bool
        With `fused`: whether the residual addition is part of the kernel.

    Returns
    -------
    Op

    Examples
    --------
    >>> norm("n", "llm", rows=sym("s"), cols=sym("d"), kind="rmsnorm", fused=True).launches
    1
    """
    ba = sym("ba")
    vectors = ONE if kind == "rmsnorm" else Integer(2)
    flops = Integer(4) if kind == "rmsnorm" else Integer(7)
    read, write, live, launches = ba, ba, 2 * ba, Integer(1)
    if kind == "rmsnorm" and not fused:
        read, write, launches = 2 * ba + 4 * _FP32_BYTES, 2 * ba + 3 * _FP32_BYTES, Integer(8)
        live = ba + 2 * _FP32_BYTES
    if fused and residual:
        read, write, live, flops = 2 * ba, 2 * ba, 3 * ba, flops + 1
    width = cols if weight_cols is None else weight_cols
    return elementwise(
        name, stage, rows=rows, cols=cols, read=read, write=write, flops_per_element=flops,
        launches=launches, weights=vectors * width * sym("bo"), repeat=repeat, live=live,
        held=held, part=part, primitive=kind,
    )  # fmt: skip


def activation(
    name: str,
    stage: Stage,
    *,
    rows: Expr,
    cols: Expr,
    function: str,
    gated: bool,
    fused: bool,
    repeat: Expr = ONE,
    held: Expr = ZERO,
) -> Op:
    """Activation of an MLP, for a gated one with the product of gate and up.

    Parameters
    ----------
    name, stage, rows, cols, repeat, held
        As in `elementwise`; `cols` is the width of the result.
    function : str
        ``silu``, ``gelu``, ``quick_gelu``, ``relu`` or a name that contains one.
    gated : bool
        Whether the input is gate and up.
    fused : bool
        One kernel instead of one per elementary function.

    Returns
    -------
    Op
    """
    ba = sym("ba")
    key = next((known for known in _ACTIVATION_FLOPS if function.startswith(known)), "gelu")
    kernels = Integer(1 if fused else _ACTIVATION_KERNELS.get(key, 1))
    # Each extra kernel rereads and rewrites; the product at the end reads its input once more.
    read = ba if kernels == 1 else (kernels + 1) * ba
    write = kernels * ba
    # One fused kernel may overwrite its input.
    live = (1 if fused else 2 if kernels == 1 else 3) * ba
    flops = Integer(_ACTIVATION_FLOPS[key])
    if gated:
        live = 3 * ba
        flops += 1
        if fused:
            read, write = 2 * ba, ba
        else:
            read, write, kernels = read + 2 * ba, write + ba, kernels + 1
    return elementwise(
        name, stage, rows=rows, cols=cols, read=read, write=write, flops_per_element=flops,
        launches=kernels, repeat=repeat, live=live, held=held,
        primitive="activation" if gated else "gelu",
    )  # fmt: skip


def add(
    name: str,
    stage: Stage,
    *,
    rows: Expr,
    cols: Expr,
    repeat: Expr = ONE,
    held: Expr = ZERO,
) -> Op:
    """Residual addition: two reads, one write.

    Examples
    --------
    >>> add("add", "llm", rows=sym("s"), cols=sym("d")).traffic.total
    3*ba*d*s
    """
    ba = sym("ba")
    return elementwise(
        name, stage, rows=rows, cols=cols, read=2 * ba, write=ba,
        flops_per_element=Integer(1), repeat=repeat, held=held, primitive="add",
    )  # fmt: skip


def rotary(
    name: str,
    stage: Stage,
    *,
    rows: Expr,
    cols: Expr,
    fused: bool,
    grouped: bool = False,
    repeat: Expr = ONE,
    held: Expr = ZERO,
) -> Op:
    """Rotary position embedding of queries and keys (`cols` is both widths together).

    ``x cos + rotate_half(x) sin``: unfused, five kernels for the queries and
    five for the keys (multiply, negate half, concatenate, multiply, add) that
    read 5.5 and write 4.5 elements per element.  Three arrays of the keys' size
    exist beside both inputs and the new queries: with as many keys as queries
    3 elements per element.  With fewer keys (`grouped`) the queries need most,
    at most 4.

    Returns
    -------
    Op
    """
    ba = sym("ba")
    return elementwise(
        name, stage, rows=rows, cols=cols,
        read=ba if fused else Rational(11, 2) * ba,
        write=ba if fused else Rational(9, 2) * ba,
        flops_per_element=Integer(3), launches=Integer(1 if fused else 10), repeat=repeat,
        live=(2 if fused else 4 if grouped else 3) * ba, held=held, primitive="rotary",
    )  # fmt: skip


def copy(
    name: str,
    stage: Stage,
    *,
    rows: Expr,
    cols: Expr,
    launches: Expr = ONE,
    passes: Expr = ONE,
    repeat: Expr = ONE,
    read_bytes: Expr | None = None,
    gather: bool = False,
    held: Expr = ZERO,
    note: str = "",
) -> Op:
    """Copy, gather, concatenation or permutation: each element read and written per pass.

    Parameters
    ----------
    name, stage, rows, cols, launches, repeat, held, note
        As in `elementwise`.
    passes : Expr
        Times each element is read and written.
    read_bytes : Expr, optional
        Bytes of one element read, if not an activation's [B].
    gather : bool
        Whether rows are picked by an index.

    Returns
    -------
    Op

    Examples
    --------
    >>> copy("gather", "compression", rows=sym("k"), cols=sym("c")).traffic.total
    2*ba*c*k
    """
    ba = sym("ba")
    read = ba if read_bytes is None else read_bytes
    return elementwise(
        name, stage, rows=rows, cols=cols, read=passes * read, write=passes * ba,
        flops_per_element=ZERO, launches=launches, kind="copy", repeat=repeat, live=read + ba,
        held=held, primitive="gather" if gather else "copy", note=note,
    )  # fmt: skip
