"""Operators and parameters of trained resamplers: cross-attention in place of the projector."""

from __future__ import annotations

from sympy import Expr, Integer

from costmodel.compression.tower import TowerSequence
from costmodel.ops import ONE, ZERO, Op, Weights, activation, copy, elementwise, gemm, matmul, norm
from costmodel.symbols import sym

__all__ = ["query_resampler", "region_resampler"]

_FP32_BYTES = Integer(4)


def region_resampler(fused: bool) -> tuple[list[Op], list[Weights]]:
    r"""TokenPacker: a coarse grid of queries, each attending to its a x a region.

    Keys and values come from B tower layers joined, through two linear layers each; the query
    is the last of them, interpolated. Per request and m tokens:

    .. math:: F = 2 b m \left[2 (B c^2 + c^2) + \frac{c^2}{a^2}
              + 2 c^2 \Bigl(1 + \frac{1}{a^2}\Bigr) + 2 c
              + \frac{c d + d^2}{a^2}\right]

    Two small copies depend on the batch: the released module starts 32 kernels for one image
    and 37 for several, here 34 are counted.

    Parameters
    ----------
    fused : bool
        Whether norms and activations are single kernels.

    Returns
    -------
    list of Op, list of Weights

    References
    ----------
    .. [1] W. Li et al., "TokenPacker: Efficient Visual Projector for Multimodal LLM",
       arXiv:2407.02392, and its public code, ``multimodal_projector/builder.py``.
    """
    ba, a, c, d, taps = sym("ba"), sym("a"), sym("c"), sym("d"), sym("B")
    fine = sym("b") * sym("m")
    coarse = fine / a**2
    label = "tokenpacker"

    def layer_norm(part: str, rows: Expr) -> Op:
        return norm(f"{label}.{part}", "compression", rows=rows, cols=c, kind="layernorm",
                    fused=fused)  # fmt: skip

    def linear(part: str, rows: Expr, out: Expr, into: Expr, bias: bool = True) -> Op:
        return gemm(f"{label}.{part}", "compression", m=rows, n=out, k=into, bias=bias)

    def gelu(part: str, rows: Expr, cols: Expr) -> Op:
        return activation(f"{label}.{part}", "compression", rows=rows, cols=cols, function="gelu",
                          gated=False, fused=fused)  # fmt: skip

    ops = [copy(f"{label}.taps", "compression", rows=fine, cols=taps * c, note="layers joined")]
    one = fine * c * ba
    # The joined layers wait until values are made of them too, the keys for the values.
    for part, held in (("k", ZERO), ("v", one)):
        ops += [
            linear(f"{part}_linear_1", fine, c, taps * c).holding(held),
            gelu(f"{part}_gelu", fine, c).holding(held + taps * one),
            linear(f"{part}_linear_2", fine, c, c).holding(held + taps * one),
            layer_norm(f"{part}_norm", fine).holding(held + taps * one),
        ]
    ops += [
        elementwise(
            f"{label}.interpolate", "compression", rows=fine, cols=c,
            read=ba + _FP32_BYTES + _FP32_BYTES / a**2,
            write=_FP32_BYTES + (ba + _FP32_BYTES) / a**2,
            flops_per_element=Integer(8) / a**2, launches=Integer(3),
            note="last layer in fp32 to the coarse grid, bilinear",
        ),
        linear("q_linear", coarse, c, c, bias=False),
        layer_norm("q_norm", coarse),
        copy(f"{label}.regions", "compression", rows=2 * fine, cols=c, launches=Integer(7),
             passes=Integer(3), note="keys and values by region, which no view can do"),
        *_attention(label, coarse, ONE, a**2, c),
        linear("mlp_linear_1", coarse, d, c),
        gelu("mlp_gelu", coarse, d),
        linear("mlp_linear_2", coarse, d, d),
    ]  # fmt: skip
    matrices = 2 * (taps * c**2 + c**2) + c**2 + 4 * c**2 + c * d + d**2
    # Keys and values, three norms, the attention, the last two layers.
    vectors = 4 * c + 6 * c + 4 * c + 2 * d
    weights = [
        Weights(f"{label}.linear", "compression", matrices),
        Weights(f"{label}.norms_and_biases", "compression", vectors, linear=False),
    ]
    return ops, weights


def query_resampler(
    sequences: tuple[TowerSequence, ...], fused: bool
) -> tuple[list[Op], list[Weights]]:
    r"""Learned queries, the first k of which attend to all g tokens of a tower sequence.

    Keys are made of positions alone, values of the tokens. Per shape of sequence, t of which a
    request has:

    .. math:: F = 2 b t \left[2 c^2 (k + g) + 2 k g c + k c d\right]

    Parameters
    ----------
    sequences : tuple of TowerSequence
        What is resampled.
    fused : bool
        Whether norms are single kernels.

    Returns
    -------
    list of Op, list of Weights

    References
    ----------
    .. [1] W. Hu et al., "Matryoshka Query Transformer for Large Vision-Language Models",
       arXiv:2405.19315, and its public code, ``multimodal_projector/builder.py``.
    """
    ba, c, d, queries = sym("ba"), sym("c"), sym("d"), sym("nq")
    ops: list[Op] = []
    for item in sequences:
        rows, tokens = item.batch * item.kept, item.batch * item.patches
        share = queries / item.patches
        ops += [
            elementwise(
                f"{item.label}.positions", "compression", rows=item.patches, cols=c,
                read=share * (ba + _FP32_BYTES) + _FP32_BYTES,
                write=share * _FP32_BYTES + _FP32_BYTES + ba,
                flops_per_element=Integer(32), launches=Integer(3),
                note="position table in fp32 to the grid of the tokens, bicubic",
            ),
            copy(f"{item.label}.repeat", "compression", rows=rows + tokens, cols=c,
                 launches=Integer(3),
                 note="queries and positions repeated for every sequence, positions added"),
            *(
                norm(f"{item.label}.{part}_norm", "compression", rows=count, cols=c,
                     kind="layernorm", fused=fused)
                for part, count in (("q", rows), ("k", tokens), ("v", tokens))
            ),
            *_attention(item.label, item.batch, item.kept, item.patches, c),
            copy(f"{item.label}.order", "compression", rows=rows, cols=c,
                 note="sequences before tokens again, where there are several"),
            gemm(f"{item.label}.project", "compression", m=rows, n=d, k=c),
        ]  # fmt: skip
    # Projections of the attention and out of it; queries, positions, three norms, four biases.
    weights = [
        Weights("mqt.linear", "compression", 4 * c**2 + c * d),
        Weights("mqt.queries_and_norms", "compression", 2 * queries * c + 10 * c, linear=False),
    ]
    return ops, weights


def _attention(label: str, batch: Expr, queries: Expr, keys: Expr, width: Expr) -> list[Op]:
    """``nn.MultiheadAttention`` that returns weights too, its default: written out.

    Three input projections, product, softmax, product and a mean of the weights over heads
    that nobody reads, one output projection: ``2 B c (2 c (q + k) + 2 q k)`` FLOP for B problems.
    """
    ba, heads = sym("ba"), sym("hq")
    head, rows = width / heads, batch * queries
    many = batch * heads

    def linear(part: str, count: Expr) -> Op:
        return gemm(f"{label}.{part}", "compression", m=count, n=width, k=width, bias=True)

    return [
        linear("q_in", rows),
        linear("k_in", batch * keys),
        linear("v_in", batch * keys),
        elementwise(
            f"{label}.scale", "compression", rows=rows, cols=width, read=ba, write=ba,
            flops_per_element=ONE,
        ),
        matmul(
            f"{label}.qk", "compression", batch=many, m=queries, n=keys, k=head,
            a_bytes=rows * width * ba, b_bytes=batch * keys * width * ba,
        ),
        elementwise(
            f"{label}.softmax", "compression", rows=many * queries, cols=keys, read=2 * ba,
            write=ba * (1 + 1 / heads), flops_per_element=Integer(6), launches=Integer(2),
            live=2 * ba, primitive="softmax", note="softmax, and its mean over heads, not used",
        ),
        matmul(
            f"{label}.pv", "compression", batch=many, m=queries, n=head, k=keys,
            a_bytes=many * queries * keys * ba, b_bytes=batch * keys * width * ba,
        ),
        copy(f"{label}.heads", "compression", rows=rows, cols=width),
        linear("out", rows),
    ]  # fmt: skip
