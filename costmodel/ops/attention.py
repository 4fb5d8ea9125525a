"""Scaled dot-product attention in three implementations.

All count the full product, ``4 batch H q kv D`` FLOP, as FlopCounterMode does;
a causal kernel may skip half of it, which is a matter of the time model.

``flash``
    One kernel; reads Q, K, V once, writes O.
``sdpa``
    ``torch.nn.functional.scaled_dot_product_attention`` with an explicit
    causal mask, as Hugging Face calls it for padded batches: the mask is read
    too, and grouped K and V are first repeated to all query heads.
``eager``
    Matrix products, scaling, mask, fp32 softmax and cast as separate kernels
    with the score matrix in memory between them.
"""

from __future__ import annotations

from typing import Literal

from sympy import Expr, Integer

from costmodel.ops.elementwise import copy, elementwise
from costmodel.ops.gemm import matmul
from costmodel.ops.op import ONE, ZERO, Op, OpKind, Stage, Traffic
from costmodel.symbols import sym

__all__ = ["AttentionImpl", "attention"]

AttentionImpl = Literal["flash", "sdpa", "eager"]

_FP32_BYTES = Integer(4)


def attention(
    name: str,
    stage: Stage,
    *,
    kind: OpKind,
    impl: AttentionImpl,
    batch: Expr,
    q_len: Expr,
    kv_len: Expr,
    heads: Expr,
    kv_heads: Expr,
    head_dim: Expr,
    grouped: bool = False,
    causal: bool = False,
    cached: bool = False,
    repeat: Expr = ONE,
    held: Expr = ZERO,
) -> tuple[Op, ...]:
    r"""Attention of ``q_len`` queries to ``kv_len`` keys in ``batch`` sequences.

    .. math:: F = 4\,\mathrm{batch}\,H\,q\,k\,D,\quad
              Q_\mathrm{flash} = \mathrm{batch}\,(2 q H D\,\beta_a + 2 k G D\,\beta_{kv})

    Parameters
    ----------
    name, stage, repeat, held
        As in `costmodel.ops.gemm.gemm`.
    kind : OpKind
        ``attention_prefill``, ``attention_decode`` or ``attention_encoder``.
    impl : {"flash", "sdpa", "eager"}
        Implementation.
    batch : Expr
        Sequences.
    q_len, kv_len : Expr
        Tokens of one sequence.
    heads, kv_heads, head_dim : Expr
        Shape of the heads on one device.
    grouped : bool
        Whether there are fewer key/value heads than query heads.
    causal : bool
        Whether a mask applies.
    cached : bool
        Whether K and V come from the KV cache.

    Returns
    -------
    tuple of Op
        One operator for a fused kernel, several for eager.

    Examples
    --------
    >>> b, s, H, D = (sym(x) for x in "bsHD")
    >>> ops = attention("a", "llm", kind="attention_prefill", impl="flash", batch=b,
    ...                 q_len=s, kv_len=s, heads=H, kv_heads=H, head_dim=D, causal=True)
    >>> ops[0].flops
    4*D*H*b*s**2
    """
    ba, bkv = sym("ba"), sym("bkv")
    query = batch * q_len * heads * head_dim * ba
    keys_or_values = batch * kv_len * kv_heads * head_dim * (bkv if cached else ba)
    scores = batch * heads * q_len * kv_len
    mask = batch * q_len * kv_len * ba if causal else ZERO
    ops: list[Op] = []

    if impl != "flash" and grouped:
        ops.append(
            _repeat_kv(name, stage, batch, kv_len, heads, head_dim, keys_or_values, cached,
                       repeat, held)
        )  # fmt: skip
        keys_or_values = batch * kv_len * heads * head_dim * ba
        cached = False

    # Keys and values that are not in the cache stay until both products are done.
    projected = ZERO if cached else keys_or_values
    if impl == "eager":
        width = (("rows", batch * heads * q_len), ("cols", kv_len))
        ops += [
            matmul(
                f"{name}.qk", stage, batch=batch * heads, m=q_len, n=kv_len, k=head_dim,
                a_bytes=query, b_bytes=keys_or_values, b_is_cache=cached, repeat=repeat,
                held=held + mask + projected, part="attention",
            ),
            # scale (r, w), mask (r, w, mask read), softmax in fp32 (r, w 4), cast (r 4, w)
            elementwise(
                f"{name}.softmax", stage, rows=width[0][1], cols=width[1][1],
                read=(2 + int(causal)) * ba + _FP32_BYTES + (ba / heads if causal else ZERO),
                write=(2 + int(causal)) * ba + _FP32_BYTES,
                flops_per_element=Integer(6 if causal else 5),
                launches=Integer(4 if causal else 3), repeat=repeat,
                live=sym("bs"), held=held + query + mask + 2 * projected,
                part="attention", primitive="softmax",
                note="scale, mask, fp32 softmax and cast, each its own kernel",
            ),
            matmul(
                f"{name}.pv", stage, batch=batch * heads, m=q_len, n=head_dim, k=kv_len,
                a_bytes=scores * ba, b_bytes=keys_or_values, b_is_cache=cached, repeat=repeat,
                held=held + query + mask + projected, part="attention",
            ),
            copy(
                f"{name}.transpose", stage, rows=batch * q_len, cols=heads * head_dim,
                repeat=repeat, held=held + scores * ba + query + mask + 2 * projected,
            ),
        ]  # fmt: skip
        return tuple(ops)

    mask = mask if impl == "sdpa" else ZERO
    ops.append(
        Op(
            name=name,
            stage=stage,
            kind=kind,
            shape=(
                ("batch", batch),
                ("q_len", q_len),
                ("kv_len", kv_len),
                ("heads", heads),
                ("kv_heads", kv_heads if impl == "flash" else heads),
                ("head_dim", head_dim),
            ),
            flops=4 * scores * head_dim,
            traffic=Traffic(
                act_in=query + mask + 2 * projected,
                act_out=query,
                kv_read=2 * keys_or_values if cached else ZERO,
            ),
            repeat=repeat,
            live=2 * query + mask + 2 * projected + held,
            part="attention",
            matmul=True,
        )
    )
    return tuple(ops)


def _repeat_kv(
    name: str,
    stage: Stage,
    batch: Expr,
    kv_len: Expr,
    heads: Expr,
    head_dim: Expr,
    source_bytes: Expr,
    cached: bool,
    repeat: Expr,
    held: Expr,
) -> Op:
    out = 2 * batch * kv_len * heads * head_dim * sym("ba")
    return Op(
        name=f"{name}.repeat_kv",
        stage=stage,
        kind="copy",
        shape=(("rows", 2 * batch * kv_len), ("cols", heads * head_dim)),
        flops=ZERO,
        traffic=Traffic(
            act_in=ZERO if cached else 2 * source_bytes,
            act_out=out,
            kv_read=2 * source_bytes if cached else ZERO,
        ),
        repeat=repeat,
        launches=Integer(2),
        live=out + held,
        primitive="copy",
        note="grouped keys and values copied to every query head",
    )
