"""The vision tower: patch embedding, transformer layers, optional window attention.

Sequences (tiles, images, frame pairs) attend only to themselves; linear layers
run over all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sympy import Expr, Integer

from costmodel.blocks.style import Style
from costmodel.ops import (
    ZERO,
    Op,
    Weights,
    activation,
    add,
    attention,
    copy,
    elementwise,
    gemm,
    norm,
    rotary,
)
from costmodel.specs.model import VisionSpec
from costmodel.symbols import sym

__all__ = ["Sequences", "TowerTokens", "vision_embedding", "vision_layers", "vision_post_norm",
           "vision_weights"]  # fmt: skip


@dataclass(frozen=True)
class Sequences:
    """`count` sequences per request of `length` tokens each."""

    count: Expr
    length: Expr


@dataclass(frozen=True)
class TowerTokens:
    """One group of vision layers.

    Attributes
    ----------
    label : str
        Suffix of operator names.
    layers : Expr
        Layers of the group.
    attended : tuple of Sequences
        What attends to itself: whole sequences, or windows.
    rows : Expr
        Tokens per request in norms and attention projections.
    mlp_rows : Expr
        Tokens per request in the MLP.
    held : Expr
        Bytes live beside those of the layers themselves [B].
    """

    label: str
    layers: Expr
    attended: tuple[Sequences, ...]
    rows: Expr
    mlp_rows: Expr
    held: Expr = ZERO


def vision_embedding(spec: VisionSpec, patches: Expr, tokens: Expr, style: Style) -> list[Op]:
    r"""Patch embedding, class token, positions and the norm before the first layer.

    .. math:: F = 2\,b\,g\,d_v\,C F P^2

    Parameters
    ----------
    spec : VisionSpec
        Which parts exist.
    patches, tokens : Expr
        Patches and tokens (class tokens included) per request.
    style : Style
        Fusion.

    Returns
    -------
    list of Op
    """
    b, width = sym("b"), sym("dv")
    pixels = sym("C") * sym("P") ** 2 * (sym("F") if spec.temporal_patch_size > 1 else 1)
    ops = [
        gemm("vision.patch_embed", "vision_encoder", m=b * patches, n=width, k=pixels,
             bias=spec.patch_bias, weight_bytes=sym("bo"))
    ]  # fmt: skip
    if spec.class_token:
        ops.append(copy("vision.class_token", "vision_encoder", rows=b * tokens, cols=width))
    if spec.positions:
        ops.append(add("vision.positions", "vision_encoder", rows=b * tokens, cols=width))
    if spec.pre_norm:
        ops.append(
            norm("vision.pre_norm", "vision_encoder", rows=b * tokens, cols=width,
                 kind=spec.norm, fused=style.fused)
        )  # fmt: skip
    return ops


@lru_cache(maxsize=64)
def vision_layers(spec: VisionSpec, tokens: TowerTokens, style: Style) -> tuple[Op, ...]:
    r"""Operators of one group of vision layers.

    .. math:: F = 8 N d_v^2 + 4 N d_v f_v + 4 \sum_i t_i n_i^2 d_v,\quad N = \sum_i t_i n_i

    per layer and request, with 6 N d_v f_v where the MLP is gated.

    Parameters
    ----------
    spec : VisionSpec
        Which parts exist.
    tokens : TowerTokens
        Token counts of the group.
    style : Style
        Fusion and attention.

    Returns
    -------
    tuple of Op
    """
    b, width, inner = sym("b"), sym("dv"), sym("Hv") * sym("Dv")
    rows, mlp_rows, repeat = b * tokens.rows, b * tokens.mlp_rows, tokens.layers
    state = rows * width * sym("ba")
    residual = style.residuals * state
    # As in the decoder: Python code keeps what its variables name, the normed state among them.
    normed = ZERO if style.fused else state
    fused_residual = style.fused
    ops: list[Op] = []

    def name(part: str) -> str:
        return f"vision{tokens.label}.{part}"

    def linear(part: str, m: Expr, out: Expr, into: Expr, bias: bool, held: Expr) -> Op:
        return gemm(
            name(part), "vision_encoder", m=m, n=out, k=into, bias=bias, repeat=repeat, held=held
        )

    def layer_norm(part: str, op_rows: Expr) -> Op:
        return norm(
            name(part), "vision_encoder", rows=op_rows, cols=width, kind=spec.norm,
            fused=style.fused, residual=fused_residual, repeat=repeat,
            held=ZERO if part == "norm_1" or style.fused else residual,
        )  # fmt: skip

    def close(part: str, op_rows: Expr) -> list[Op]:
        closing = []
        if spec.layer_scale and not style.fused:
            closing.append(
                elementwise(
                    name(f"{part}_scale"), "vision_encoder", rows=op_rows, cols=width,
                    read=sym("ba"), write=sym("ba"), flops_per_element=Integer(1),
                    weights=width * sym("bo"), repeat=repeat, held=residual + normed,
                )
            )  # fmt: skip
        if not fused_residual:
            closing.append(
                add(
                    name(f"{part}_add"), "vision_encoder", rows=op_rows, cols=width,
                    repeat=repeat, held=normed,
                )
            )  # fmt: skip
        return closing

    ops.append(layer_norm("norm_1", rows))
    if style.fused or spec.qkv_fused:
        ops.append(linear("qkv_proj", rows, 3 * inner, width, spec.qkv_bias, residual))
    else:
        one = rows * inner * sym("ba")
        ops += [
            linear("q_proj", rows, inner, width, spec.qkv_bias, residual),
            linear("k_proj", rows, inner, width, spec.qkv_bias, residual + one),
            linear("v_proj", rows, inner, width, spec.qkv_bias, residual + 2 * one),
        ]
    if spec.qk_norm:
        ops.append(
            norm(name("qk_norm"), "vision_encoder", rows=2 * rows, cols=inner, kind="rmsnorm",
                 fused=style.fused, repeat=repeat, held=residual + normed)
        )  # fmt: skip
    values = rows * inner * sym("ba")
    if spec.rotary:
        ops.append(
            rotary(name("rotary"), "vision_encoder", rows=rows, cols=2 * inner,
                   fused=style.fused, repeat=repeat, held=residual + normed + values)
        )  # fmt: skip
    for index, group in enumerate(tokens.attended):
        part = "attention" if len(tokens.attended) == 1 else f"attention_{index}"
        ops += attention(
            name(part), "vision_encoder", kind="attention_encoder", impl=style.attention,
            batch=b * group.count, q_len=group.length, kv_len=group.length, heads=sym("Hv"),
            kv_heads=sym("Hv"), head_dim=sym("Dv"), repeat=repeat, held=residual + normed,
        )  # fmt: skip
    projected = ZERO if style.fused else 3 * values
    ops.append(linear("o_proj", rows, width, inner, spec.o_bias, residual + normed + projected))
    ops += close("attention", rows)
    ops.append(layer_norm("norm_2", mlp_rows))
    # The state that entered the layer is named until the layer ends, and so are the weights that
    # unfused attention returns.
    weights = ZERO
    if style.attention == "eager" and not style.fused:
        weights = sum(
            (
                b * group.count * sym("Hv") * group.length**2 * sym("ba")
                for group in tokens.attended
            ),
            start=ZERO,
        )
    ops += _mlp(spec, style, tokens, mlp_rows, residual + normed + weights)
    ops += close("mlp", mlp_rows)
    if tokens.held != ZERO:
        ops = [op.holding(tokens.held) for op in ops]
    return tuple(ops)


def _mlp(spec: VisionSpec, style: Style, tokens: TowerTokens, rows: Expr, held: Expr) -> list[Op]:
    width, inner = sym("dv"), sym("fv")
    after = held if style.fused else held + rows * width * sym("ba")

    def linear(part: str, out: Expr, into: Expr, beside: Expr) -> Op:
        return gemm(
            f"vision{tokens.label}.{part}", "vision_encoder", m=rows, n=out, k=into,
            bias=spec.mlp_bias, repeat=tokens.layers, held=beside,
        )  # fmt: skip

    if not spec.gated_mlp:
        up = [linear("fc1", inner, width, held)]
    elif style.fused:
        up = [linear("gate_up_proj", 2 * inner, width, held)]
    else:
        up = [
            linear("gate_proj", inner, width, held),
            linear("up_proj", inner, width, held + rows * inner * sym("ba")),
        ]
    return [
        *up,
        activation(
            f"vision{tokens.label}.mlp_activation", "vision_encoder", rows=rows, cols=inner,
            function=spec.activation, gated=spec.gated_mlp, fused=style.fused,
            repeat=tokens.layers, held=after,
        ),
        linear("fc2", width, inner, after),
    ]  # fmt: skip


def vision_post_norm(spec: VisionSpec, tokens: Expr, sequences: Expr, style: Style) -> list[Op]:
    """Norm after the last layer, where one runs.

    Parameters
    ----------
    spec : VisionSpec
        Whether it runs, and over which rows.
    tokens, sequences : Expr
        Tokens and sequences per request.
    style : Style
        Fusion.

    Returns
    -------
    list of Op
    """
    if not spec.post_norm or spec.post_norm_rows == "none":
        return []
    rows = sym("b") * (tokens if spec.post_norm_rows == "all" else sequences)
    return [
        norm("vision.post_norm", "vision_encoder", rows=rows, cols=sym("dv"), kind=spec.norm,
             fused=style.fused)
    ]  # fmt: skip


def vision_weights(spec: VisionSpec) -> list[Weights]:
    """Parameters of the tower: all layers that exist, executed or not."""
    width, inner, mlp, layers = sym("dv"), sym("Hv") * sym("Dv"), sym("fv"), sym("Mv")
    norm_vectors = 1 if spec.norm == "rmsnorm" else 2
    matrices = 4 * width * inner + (3 if spec.gated_mlp else 2) * width * mlp
    small: Expr = 2 * norm_vectors * width
    small += 3 * inner if spec.qkv_bias else ZERO
    small += width if spec.o_bias else ZERO
    small += (mlp * (2 if spec.gated_mlp else 1) + width) if spec.mlp_bias else ZERO
    small += 2 * width if spec.layer_scale else ZERO
    small += 2 * inner if spec.qk_norm else ZERO
    patch = sym("C") * sym("P") ** 2 * (sym("F") if spec.temporal_patch_size > 1 else 1) * width
    rest = patch + layers * small
    rest += width if spec.patch_bias else ZERO
    rest += width if spec.class_token else ZERO
    rest += sym("Ev") * width if spec.positions else ZERO
    rest += norm_vectors * width * (int(spec.pre_norm) + int(spec.post_norm))
    rest += sym("Uv") if spec.unused_parameters else ZERO
    return [
        Weights("vision.linear", "vision_encoder", layers * matrices),
        Weights("vision.other", "vision_encoder", rest, linear=False),
    ]
