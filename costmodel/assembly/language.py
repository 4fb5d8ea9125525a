"""The language model and its head in a program, layer group by layer group."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Integer, Max, Rational, Symbol, sympify

from costmodel.assembly.piece import Piece
from costmodel.blocks import (
    LayerTokens,
    Style,
    decoder_layers,
    decoder_weights,
    embedding,
    final_norm,
    lm_head,
)
from costmodel.compression.plan import DecoderGroup
from costmodel.errors import InputError
from costmodel.ops import ONE, ZERO
from costmodel.specs.model import TextSpec
from costmodel.specs.workload import Deployment
from costmodel.symbols import indexed, sym

__all__ = ["CacheGroup", "language_piece"]


@dataclass(frozen=True)
class CacheGroup:
    """KV cache of consecutive decoder layers.

    Attributes
    ----------
    layers : int
        How many layers.
    tokens : Expr
        Cached tokens per request after prefill and generation.
    bytes : Expr
        Bytes on one device [B].
    """

    layers: int
    tokens: Expr
    bytes: Expr


def language_piece(
    text: TextSpec,
    groups: tuple[DecoderGroup, ...],
    deployment: Deployment,
    has_vision: bool,
) -> tuple[Piece, tuple[CacheGroup, ...]]:
    """Return embedding, decoder layers, final norm and head, and the KV cache.

    Parameters
    ----------
    text : TextSpec
        The language model.
    groups : tuple of DecoderGroup
        Cover all layers.
    deployment : Deployment
        Fusion, attention, devices, head positions.
    has_vision : bool
        Whether visual embeddings are merged into the prompt.

    Returns
    -------
    Piece, tuple of CacheGroup

    Raises
    ------
    InputError
        If the groups do not cover the layers, or the devices do not divide the shapes.
    """
    _check_devices(text, deployment.tp)
    covered = sum(group.layers for group in groups)
    if covered != text.layers:
        raise InputError("decoder layer groups", covered, f"groups that cover {text.layers} layers")
    style = Style(deployment.fused, deployment.attention, deployment.tp)
    piece = Piece(values=_text_values(text, deployment))
    cache = tuple(
        _relate_group(piece, group, index, len(groups), text, deployment)
        for index, group in enumerate(groups)
    )
    tokens = [_layer_tokens(piece, group, index, len(groups)) for index, group in enumerate(groups)]
    first = groups[0]
    piece.prefill[sym("v")] = (
        indexed("V", 0, len(groups)) if first.visual_kv is None else sympify(first.visual_kv)
    )
    piece.decode[sym("v")] = ZERO

    # Tokens that layers leave alone are in the hidden state too: those with keys.
    prompt = tokens[0].computed_kv
    piece.ops += embedding(prompt, sym("v") if has_vision else None, style)
    # The caller keeps the visual embeddings; Python code names the merged ones to the end too.
    rows = (sym("v") if has_vision else ZERO) + (ZERO if style.fused else prompt)
    given = piece.held = sym("b") * rows * sym("d") * sym("ba")
    for group, layer_tokens in zip(groups, tokens, strict=True):
        group_style = Style(style.fused, group.attention or style.attention, style.tp)
        ops = decoder_layers(text, layer_tokens, group_style)
        held = given + (ZERO if group.held is None else group.held)
        piece.ops += [op.holding(held) for op in ops]
    piece.ops.append(final_norm(text, tokens[-1].computed_kv, style).holding(given))
    piece.ops += [op.holding(given) for op in lm_head(style)]
    piece.weights += decoder_weights(text, style)
    piece.prefill[sym("e")] = ONE if deployment.head_tokens == "last" else tokens[-1].computed_kv
    piece.decode[sym("e")] = ONE
    return piece, cache


def _check_devices(text: TextSpec, tp: int) -> None:
    def divides(devices: int) -> bool:
        kv_fits = text.kv_heads % devices == 0 or devices % text.kv_heads == 0
        sizes = (text.heads, text.intermediate_size, text.vocab_size)
        return kv_fits and all(size % devices == 0 for size in sizes)

    if not divides(tp):
        choices = [str(n) for n in range(1, text.heads + 1) if divides(n)]
        raise InputError(
            "tp", tp, f"a number that divides heads ({text.heads}), key/value heads "
            f"({text.kv_heads}), MLP width and vocabulary: {', '.join(choices)}",
        )  # fmt: skip


def _text_values(text: TextSpec, deployment: Deployment) -> dict[Symbol, float]:
    return {
        sym("L"): text.layers,
        sym("d"): text.hidden_size,
        sym("H"): text.heads,
        sym("G"): text.kv_heads,
        sym("D"): text.head_dim,
        sym("f"): text.intermediate_size,
        sym("W"): text.vocab_size,
        sym("N"): deployment.tp,
    }


def _relate_group(
    piece: Piece,
    group: DecoderGroup,
    index: int,
    count: int,
    text: TextSpec,
    deployment: Deployment,
) -> CacheGroup:
    layers, visual, hidden, past = (indexed(name, index, count) for name in "LVsp")
    prompt, produced = sym("T"), sym("o")
    piece.values[layers] = group.layers
    piece.relate(visual, sympify(group.visual))
    # The symbol where the count is that of the hidden state, so that it can be overridden.
    cached = visual if group.cached is group.visual else sympify(group.cached)
    piece.prefill |= {hidden: prompt + visual, past: ZERO}
    # Output tokens 2, 3 ... o run on a cache that grows from T + V; p is its mean.
    piece.decode |= {
        hidden: Integer(1),
        past: prompt + cached + Max(produced - 2, 0) * Rational(1, 2),
    }
    # Fewer key/value heads than devices: each device keeps a copy of one.
    kv_heads = sym("G") / sym("N") if deployment.tp > 1 else sym("G")
    if text.kv_heads < deployment.tp:
        kv_heads = ONE
    kept = prompt + cached + produced
    size = 2 * sym("b") * layers * kept * kv_heads * sym("D") * sym("bkv")
    return CacheGroup(group.layers, kept, size)


def _layer_tokens(piece: Piece, group: DecoderGroup, index: int, count: int) -> LayerTokens:
    hidden = indexed("s", index, count)

    def tokens_of(name: str, visual: Expr | int | None) -> Expr:
        if visual is None:
            return hidden
        symbol = indexed(name, index, count)
        piece.prefill[symbol] = sym("T") + sympify(visual)
        piece.decode[symbol] = Integer(1)
        return symbol

    return LayerTokens(
        label=f"_{index}" if count > 1 else "",
        layers=indexed("L", index, count),
        hidden=hidden,
        computed_kv=tokens_of("sk", group.visual_kv),
        mlp=tokens_of("sm", group.visual_mlp),
        attending=tokens_of("sa", group.visual_attended),
        past=indexed("p", index, count),
    )
