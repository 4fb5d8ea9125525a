"""Decoder layers of the language model, one set of formulas for prefill and decode.

Prefill computes s = T + V tokens on an empty cache (p = 0), decode computes
s = 1 token on a cache of p tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sympy import Expr, Integer

from costmodel.blocks.style import Style
from costmodel.ops import (
    ONE,
    ZERO,
    Op,
    Traffic,
    Weights,
    activation,
    add,
    attention,
    collective,
    copy,
    gemm,
    norm,
    rotary,
)
from costmodel.specs.model import TextSpec
from costmodel.symbols import sym

__all__ = ["LayerTokens", "decoder_layers", "decoder_weights", "embedding", "final_norm", "lm_head"]


@dataclass(frozen=True)
class LayerTokens:
    """Token counts of one group of decoder layers, per sequence.

    Attributes
    ----------
    label : str
        Suffix of operator names; empty for a single group.
    layers : Expr
        Layers of the group.
    hidden : Expr
        Tokens in the hidden state (queries, output projection, norms).
    computed_kv : Expr
        Tokens whose keys and values are computed.
    mlp : Expr
        Tokens through the MLP.
    attending : Expr
        Queries of the attention.
    past : Expr
        Tokens in the cache before this pass.
    """

    label: str
    layers: Expr
    hidden: Expr
    computed_kv: Expr
    mlp: Expr
    attending: Expr
    past: Expr

    @property
    def keys(self) -> Expr:
        """Tokens of this pass that are attended and enter the cache.

        Where attention works on another number of tokens than the hidden state has,
        that number (features expanded again); else those whose keys are computed.
        """
        return self.computed_kv if self.attending == self.hidden else self.attending


def _local_kv_heads(spec: TextSpec, style: Style) -> Expr:
    # Fewer key/value heads than devices: each device keeps a copy of one.
    return sym("G") / style.devices if spec.kv_heads >= style.tp else Integer(1)


@lru_cache(maxsize=64)
def decoder_layers(spec: TextSpec, tokens: LayerTokens, style: Style) -> tuple[Op, ...]:
    r"""Operators of one group of decoder layers.

    With full hidden states, per layer and sequence of s tokens:

    .. math:: F = 2s(2 d H D + 2 d G D + 3 d f) + 4 s (p + s) H D

    (2 d f instead of 3 d f where the MLP is not gated).

    Parameters
    ----------
    spec : TextSpec
        Which parts exist; its numbers are not used.
    tokens : LayerTokens
        Token counts.
    style : Style
        Fusion, attention, devices.

    Returns
    -------
    tuple of Op
        In execution order, each with ``repeat`` = layers of the group.
    """
    b, d, H, D = (sym(name) for name in "bdHD")
    n, repeat = style.devices, tokens.layers
    heads, kv_heads = H / n, _local_kv_heads(spec, style)
    rows, kv_rows, mlp_rows = b * tokens.hidden, b * tokens.computed_kv, b * tokens.mlp
    width_q, width_kv = heads * D, kv_heads * D
    held = _held(tokens, heads, style)
    same_rows = tokens.hidden == tokens.computed_kv
    suffix = tokens.label
    ops: list[Op] = []

    def name(part: str) -> str:
        return f"decoder{suffix}.{part}"

    def linear(part: str, m: Expr, out: Expr, into: Expr, bias: bool, held: Expr) -> Op:
        return gemm(
            name(part), "llm", m=m, n=out, k=into, bias=bias, repeat=repeat, held=held
        )  # fmt: skip

    ops.append(
        norm(
            name("input_norm"), "llm", rows=kv_rows, cols=d, kind=spec.norm, fused=style.fused,
            residual=style.fused, repeat=repeat,
        )
    )  # fmt: skip
    if style.fused and same_rows:
        ops.append(
            linear("qkv_proj", rows, width_q + 2 * width_kv, d, spec.qkv_bias, held.entering)
        )  # fmt: skip
    else:
        q_out, kv_out = rows * width_q * sym("ba"), kv_rows * width_kv * sym("ba")
        before = held.entering
        ops += [
            linear("q_proj", rows, width_q, d, spec.qkv_bias, before),
            linear("k_proj", kv_rows, width_kv, d, spec.qkv_bias, before + q_out),
            linear("v_proj", kv_rows, width_kv, d, spec.qkv_bias, before + q_out + kv_out),
        ]
    if spec.qk_norm:
        ops.append(
            norm(
                name("qk_norm"), "llm", rows=rows, cols=width_q + width_kv, kind="rmsnorm",
                weight_cols=2 * D, fused=style.fused, repeat=repeat, held=held.attention,
            )
        )  # fmt: skip
    rotary_rows, rotary_cols = b * tokens.keys, width_q + width_kv
    if tokens.attending != tokens.keys:
        # One row per key, so that time models see as many rows as there are.
        rotary_cols = width_kv + width_q * tokens.attending / tokens.keys
    queries = b * tokens.attending * width_q * sym("ba")
    values = b * tokens.keys * width_kv * sym("ba")
    ops += [
        rotary(
            name("rotary"), "llm", rows=rotary_rows, cols=rotary_cols, fused=style.fused,
            grouped=spec.kv_heads < spec.heads, repeat=repeat, held=held.attention + values,
        ),
        _cache_write(name("kv_cache"), tokens, width_kv, style, held.attention + queries),
        *attention(
            name("attention"), "llm", kind="attention_prefill", impl=style.attention, batch=b,
            q_len=tokens.attending, kv_len=tokens.past + tokens.keys, heads=heads,
            kv_heads=kv_heads, head_dim=D, grouped=spec.kv_heads < spec.heads, causal=True,
            cached=True, repeat=repeat, held=held.attention,
        ),
        linear("o_proj", rows, d, width_q, spec.o_bias, held.attention + held.names * queries),
    ]  # fmt: skip
    if style.tp > 1:
        ops.append(_all_reduce(name("o_all_reduce"), rows, repeat, held.entering))
    if not style.fused:
        ops.append(add(name("attention_add"), "llm", rows=rows, cols=d, repeat=repeat))
    ops.append(
        norm(
            name("post_attention_norm"), "llm", rows=mlp_rows, cols=d, kind=spec.norm,
            fused=style.fused, residual=style.fused, repeat=repeat, held=held.names * held.entering,
        )
    )  # fmt: skip
    ops += _mlp(spec, style, name, mlp_rows, repeat, held)
    if style.tp > 1:
        ops.append(_all_reduce(name("down_all_reduce"), mlp_rows, repeat, held.projecting))
    if not style.fused:
        ops.append(
            add(name("mlp_add"), "llm", rows=mlp_rows, cols=d, repeat=repeat, held=held.entering)
        )
    return tuple(ops)


@dataclass(frozen=True)
class _Held:
    """Bytes that wait beside the parts of a layer [B].

    Fused code keeps the residual.  Python code keeps what its variables name: the state that
    entered the layer, through all of it; after the attention its sum with that; and the normed
    state, beside everything that is computed from it.

    Attributes
    ----------
    entering : Expr
        While the normed state is the input.
    attention, mlp : Expr
        After the projections of the normed state, when it is no input any more.
    projecting : Expr
        While the MLP reads the normed state.
    names : Expr
        1 where variables hold what is not needed any more, 0 in fused code.
    """

    entering: Expr
    attention: Expr
    projecting: Expr
    mlp: Expr
    names: Expr


def _held(tokens: LayerTokens, heads: Expr, style: Style) -> _Held:
    b, ba = sym("b"), sym("ba")
    state = b * sym("d") * ba
    if style.fused:
        residual = style.residuals * tokens.hidden * state
        return _Held(residual, residual, residual, residual, ZERO)
    weights = ZERO
    if style.attention == "eager":
        # The layer names the weights that its attention returns, and every layer gets the mask.
        weights = b * tokens.attending * (tokens.past + tokens.keys) * (heads + 1) * ba
    entering = tokens.computed_kv * state
    projecting = entering + tokens.hidden * state + weights
    return _Held(
        entering=entering,
        attention=2 * entering,
        projecting=projecting,
        mlp=projecting + tokens.mlp * state,
        names=ONE,
    )


def _mlp(
    spec: TextSpec,
    style: Style,
    name: Callable[[str], str],
    rows: Expr,
    repeat: Expr,
    held: _Held,
) -> list[Op]:
    d, f = sym("d"), sym("f") / style.devices
    one = rows * f * sym("ba")
    ops: list[Op] = []

    def linear(part: str, out: Expr, into: Expr, beside: Expr) -> Op:
        return gemm(
            name(part), "llm", m=rows, n=out, k=into, bias=spec.mlp_bias, repeat=repeat,
            held=beside,
        )  # fmt: skip

    before = held.projecting
    if spec.gated_mlp and style.fused:
        ops.append(linear("gate_up_proj", 2 * f, d, before))
    elif spec.gated_mlp:
        ops += [linear("gate_proj", f, d, before), linear("up_proj", f, d, before + one)]
    else:
        ops.append(linear("up_proj", f, d, before))
    ops.append(
        activation(
            name("mlp_activation"), "llm", rows=rows, cols=f, function=spec.activation,
            gated=spec.gated_mlp, fused=style.fused, repeat=repeat, held=held.mlp,
        )
    )  # fmt: skip
    ops.append(linear("down_proj", d, f, held.mlp))
    return ops


def _cache_write(name: str, tokens: LayerTokens, width_kv: Expr, style: Style, held: Expr) -> Op:
    b, ba, bkv = sym("b"), sym("ba"), sym("bkv")
    new = 2 * b * tokens.keys * width_kv
    # Hugging Face's DynamicCache concatenates, so every pass copies the past too;
    # serving engines write only the new entries, keys and values in one kernel.
    past = ZERO if style.fused else 2 * b * tokens.past * width_kv
    return Op(
        name=name,
        stage="llm",
        kind="copy",
        shape=(("rows", b * tokens.keys), ("cols", 2 * width_kv)),
        flops=ZERO,
        traffic=Traffic(act_in=new * ba, kv_read=past * bkv, kv_write=(new + past) * bkv),
        repeat=tokens.layers,
        launches=Integer(1 if style.fused else 2),
        # Keys are concatenated before values, and the old ones dropped between.
        live=new * ba + past * bkv / 2 + held,
        primitive="cache_write",
        note="append keys and values to the cache",
    )


def _all_reduce(name: str, rows: Expr, repeat: Expr, held: Expr) -> Op:
    return collective(
        name, "llm", op="all_reduce", rows=rows, cols=sym("d"), repeat=repeat, held=held
    )


def embedding(hidden: Expr, merged: Expr | None, style: Style) -> list[Op]:
    """Token embedding of all positions, and the visual embeddings merged into them.

    Parameters
    ----------
    hidden : Expr
        Positions per sequence.
    merged : Expr, optional
        Visual embeddings per sequence; None for a model without images.
    style : Style
        Devices.

    Returns
    -------
    list of Op
    """
    b, d = sym("b"), sym("d")
    ops = [copy("embed_tokens", "llm", rows=b * hidden, cols=d, read_bytes=sym("bo"), gather=True)]
    if style.tp > 1:
        ops.append(
            collective("embed_all_reduce", "llm", op="all_reduce", rows=b * hidden, cols=d)
        )  # fmt: skip
    if merged is not None:
        ops.append(
            copy(
                "merge_visual", "llm", rows=b * merged, cols=d, held=b * hidden * d * sym("ba"),
                note="visual embeddings written over their placeholders",
            )
        )  # fmt: skip
    return ops


def final_norm(spec: TextSpec, hidden: Expr, style: Style) -> Op:
    """Norm after the last decoder layer, over all positions."""
    return norm(
        "final_norm", "llm", rows=sym("b") * hidden, cols=sym("d"), kind=spec.norm,
        fused=style.fused, residual=style.fused,
    )  # fmt: skip


def lm_head(style: Style) -> list[Op]:
    r"""Logits of e positions per sequence.

    .. math:: F = 2\,b\,e\,d\,W

    Returns
    -------
    list of Op
    """
    rows, d, vocabulary = sym("b") * sym("e"), sym("d"), sym("W")
    ops = [
        gemm(
            "lm_head", "lm_head", m=rows, n=vocabulary / style.devices, k=d,
            weight_bytes=sym("bo"), note="output in the activations' format",
        )
    ]  # fmt: skip
    if style.tp > 1:
        ops.append(
            collective("logits_all_gather", "lm_head", op="all_gather", rows=rows, cols=vocabulary)
        )  # fmt: skip
    return ops


def decoder_weights(spec: TextSpec, style: Style) -> list[Weights]:
    r"""Parameters of the language model and its head.

    .. math:: N = Wd + L(2dHD + 2dGD + 3df + 2d) + d \;(+\; Wd \text{ for an untied head})

    Returns
    -------
    list of Weights
    """
    d, H, G, D, f, L, W = (sym(name) for name in ("d", "H", "G", "D", "f", "L", "W"))
    n = style.devices
    norm_vectors = 1 if spec.norm == "rmsnorm" else 2
    qkv = d * (H + 2 * G) * D + H * D * d
    mlp = (3 if spec.gated_mlp else 2) * d * f
    kv = 2 * d * G * D
    # Fewer key/value heads than devices: the matrices of each head are copied to several.
    shared_kv = spec.kv_heads < style.tp
    small = 2 * norm_vectors * d
    small += (H + 2 * G) * D if spec.qkv_bias else ZERO
    small += d if spec.o_bias else ZERO
    small += (f * (2 if spec.gated_mlp else 1) + d) if spec.mlp_bias else ZERO
    small += 2 * D if spec.qk_norm else ZERO
    weights = [
        Weights("decoder.linear", "llm", L * (qkv + mlp - (kv if shared_kv else 0)), shards=n),
        *([Weights("decoder.kv_copies", "llm", L * kv, shards=G)] if shared_kv else []),
        Weights("decoder.norms_and_biases", "llm", L * small + norm_vectors * d, linear=False),
        Weights("embed_tokens", "llm", W * d, linear=False, shards=n),
    ]
    if not spec.tie_word_embeddings:
        weights.append(Weights("lm_head", "lm_head", W * d, linear=False, shards=n))
    return weights
