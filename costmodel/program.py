"""From model, workload and compression plan to a program: a list of symbolic operators.

A program keeps formulas and values apart.  `Program.values` holds numbers,
`Program.derived` relations between symbols (``s = T + V``); the pass (prefill or
decode) only changes relations, so both use one set of formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import sympy
from sympy import Expr, Integer, Max, Rational, Symbol

from costmodel.blocks import (
    LayerTokens,
    Sequences,
    Style,
    TowerTokens,
    decoder_layers,
    decoder_weights,
    embedding,
    final_norm,
    lm_head,
    projector,
    projector_weights,
    vision_embedding,
    vision_layers,
    vision_post_norm,
    vision_weights,
)
from costmodel.compression.plan import CompressionPlan, DecoderGroup, TowerGroup
from costmodel.errors import InputError
from costmodel.ops import ZERO, Op, Weights
from costmodel.specs.model import ModelSpec, TextSpec, VisionSpec
from costmodel.specs.workload import DTYPE_BYTES, Deployment, Workload
from costmodel.symbols import indexed, sym
from costmodel.vision_tokens.layout import Segment, VisualLayout

__all__ = ["CacheGroup", "Phase", "Program", "build_program"]

Phase = Literal["prefill", "decode"]

Value = float | Expr


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


@dataclass(frozen=True)
class Program:
    """Everything that is computed, moved and kept for one model and plan.

    Attributes
    ----------
    ops : tuple of Op
        Operators in execution order.
    weights : tuple of Weights
        Parameters in memory.
    cache : tuple of CacheGroup
        KV cache by layer group.
    values : dict of Symbol to float
        Numbers; sweeps override them.
    derived : dict of Symbol to Expr
        Relations that hold in a prefill pass.
    derived_decode : dict of Symbol to Expr
        Relations that hold in a decode pass.
    """

    ops: tuple[Op, ...]
    weights: tuple[Weights, ...]
    cache: tuple[CacheGroup, ...]
    values: dict[Symbol, float] = field(repr=False)
    derived: dict[Symbol, Expr] = field(repr=False)
    derived_decode: dict[Symbol, Expr] = field(repr=False)

    def phase_ops(self, phase: Phase) -> tuple[Op, ...]:
        """Return the operators of one pass.

        Decode runs the language model and the head only, and its attention is
        of kind ``attention_decode``.
        """
        if phase == "prefill":
            return self.ops
        chosen = (op for op in self.ops if op.stage in ("llm", "lm_head"))
        return tuple(
            replace(op, kind="attention_decode") if op.kind == "attention_prefill" else op
            for op in chosen
            if op.name != "merge_visual"
        )

    def relations(self, phase: Phase) -> dict[Symbol, Expr]:
        """Return the relations of one pass."""
        return self.derived if phase == "prefill" else self.derived_decode

    def stage_ops(self, stage: str) -> tuple[Op, ...]:
        """Return the operators of one stage in prefill."""
        return tuple(op for op in self.ops if op.stage == stage)


def build_program(
    model: ModelSpec,
    layout: VisualLayout | None,
    workload: Workload,
    deployment: Deployment,
    plan: CompressionPlan | None = None,
) -> Program:
    """Build the program of one request batch.

    Parameters
    ----------
    model : ModelSpec
        The model.
    layout : VisualLayout, optional
        What all images of one request become; None without images.
    workload : Workload
        Batch, text and output tokens.
    deployment : Deployment
        Runtime, attention, formats, devices.
    plan : CompressionPlan, optional
        Compression; None for none.

    Returns
    -------
    Program

    Raises
    ------
    InputError
        If the devices do not divide the heads, or layer counts are out of range.
    """
    _check_tp(model.text, deployment.tp)
    style = Style(deployment.fused, deployment.attention, deployment.tp)
    ops: list[Op] = []
    weights: list[Weights] = []
    values = _storage_values(deployment) | {
        sym("b"): workload.batch,
        sym("T"): workload.text_tokens,
        sym("o"): workload.output_tokens,
    }
    derived: dict[Symbol, Expr] = {}

    if model.vision is not None:
        _add_vision(model, layout, deployment, style, plan, ops, weights, values, derived)
    if plan is not None:
        ops += plan.ops
        weights += plan.weights
        values |= plan.values

    groups = _decoder_groups(model, layout, plan)
    values |= _text_values(model.text, deployment)
    decode: dict[Symbol, Expr] = dict(derived)
    cache, tokens = _decoder_relations(
        groups, model.text, deployment, values, derived, decode
    )  # fmt: skip
    ops += embedding(tokens[0].hidden, sym("v") if model.vision is not None else None, style)
    for group, layer_tokens in zip(groups, tokens, strict=True):
        group_style = replace(style, attention=group.attention or style.attention)
        ops += decoder_layers(model.text, layer_tokens, group_style)
    ops.append(final_norm(model.text, tokens[-1].hidden, style))
    ops += lm_head(style)
    weights += decoder_weights(model.text, style)
    derived[sym("e")] = Integer(1) if deployment.head_tokens == "last" else tokens[-1].hidden
    decode[sym("e")] = Integer(1)
    return Program(tuple(ops), tuple(weights), cache, values, derived, decode)


def _check_tp(text: TextSpec, tp: int) -> None:
    def divides(devices: int) -> bool:
        kv_fits = text.kv_heads % devices == 0 or devices % text.kv_heads == 0
        return (
            text.heads % devices == 0 and kv_fits
            and text.intermediate_size % devices == 0 and text.vocab_size % devices == 0
        )  # fmt: skip

    if not divides(tp):
        choices = [str(n) for n in range(1, text.heads + 1) if divides(n)]
        raise InputError(
            "tp", tp, f"a number that divides heads ({text.heads}), key/value heads "
            f"({text.kv_heads}), MLP width and vocabulary: {', '.join(choices)}",
        )  # fmt: skip


def _storage_values(deployment: Deployment) -> dict[Symbol, float]:
    return {
        sym("bw"): DTYPE_BYTES[deployment.weights_dtype],
        sym("bo"): DTYPE_BYTES[deployment.other_weights_dtype],
        sym("ba"): DTYPE_BYTES[deployment.dtype],
        sym("bkv"): DTYPE_BYTES[deployment.kv_dtype],
    }


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


# --- vision side ---------------------------------------------------------------


def _add_vision(
    model: ModelSpec,
    layout: VisualLayout | None,
    deployment: Deployment,
    style: Style,
    plan: CompressionPlan | None,
    ops: list[Op],
    weights: list[Weights],
    values: dict[Symbol, float],
    derived: dict[Symbol, Expr],
) -> None:
    vision, spec = model.vision, model.projector
    if vision is None or spec is None:
        return
    weights += vision_weights(vision)
    replaced = plan is not None and plan.replaces_projector
    if not replaced:
        weights += projector_weights(spec)
    values |= _vision_values(vision) | {sym("q"): spec.merge, sym("di"): spec.in_features}
    for index, width in enumerate(spec.widths):
        values[indexed("w", index, len(spec.widths))] = width
    if layout is None or not layout.segments:
        return

    style = replace(style, tp=1, attention=style.attention)
    count = len(layout.segments)
    sequences = []
    patches: Expr = ZERO
    for index, segment in enumerate(layout.segments):
        t, g, n = (indexed(name, index, count) for name in ("t", "g", "n"))
        values |= {t: segment.count, g: segment.patches}
        derived[n] = g + int(vision.class_token)
        sequences.append(Sequences(t, n))
        patches += t * g
    total = sum((item.count * item.length for item in sequences), start=ZERO)
    ops += vision_embedding(vision, patches, total, style)
    for tokens, forced in _tower_groups(
        vision, layout.segments, sequences, total, deployment, plan, values
    ):
        ops += vision_layers(vision, tokens, replace(style, attention=forced or style.attention))
    ops += vision_post_norm(
        vision, total, sum((item.count for item in sequences), start=ZERO), style
    )  # fmt: skip

    if not replaced:
        values[sym("r")] = layout.projected
        if plan is not None and plan.projector_rows is not None:
            rows = sympy.sympify(plan.projector_rows)
            del values[sym("r")]
            derived[sym("r")] = rows
        newlines = spec.newline and layout.features > layout.projected
        ops += projector(spec, sym("r"), style, newlines)


def _vision_values(vision: VisionSpec) -> dict[Symbol, float]:
    return {
        sym("Mv"): vision.layers,
        sym("dv"): vision.hidden_size,
        sym("Hv"): vision.heads,
        sym("Dv"): vision.head_dim,
        sym("fv"): vision.intermediate_size,
        sym("P"): vision.patch_size,
        sym("C"): vision.channels,
        sym("F"): vision.temporal_patch_size,
        sym("Ev"): vision.positions,
        sym("Uv"): vision.unused_parameters,
    }


def _tower_groups(
    vision: VisionSpec,
    segments: tuple[Segment, ...],
    sequences: list[Sequences],
    total: Expr,
    deployment: Deployment,
    plan: CompressionPlan | None,
    values: dict[Symbol, float],
) -> list[tuple[TowerTokens, Literal["flash", "sdpa", "eager"] | None]]:
    executed = _executed_layers(vision, deployment, plan)
    groups = plan.tower_groups if plan is not None else ()
    if groups and sum(group.layers for group in groups) != executed:
        raise InputError(
            "compress", plan.method if plan else "", f"layer groups that cover {executed} layers"
        )
    if vision.window_patches is not None and not groups:
        return _window_groups(vision, segments, sequences, total, executed, values)
    found = []
    for index, group in enumerate(groups or (TowerGroup(executed),)):
        layers = indexed("Lv", index, max(len(groups), 1))
        values[layers] = group.layers
        attended = group.attention_tokens or tuple(item.length for item in sequences)
        kept = tuple(
            Sequences(item.count, sympy.sympify(length))
            for item, length in zip(sequences, attended, strict=True)
        )
        rows = sum((item.count * item.length for item in kept), start=ZERO)
        mlp = group.mlp_tokens or attended
        mlp_rows = sum(
            (item.count * length for item, length in zip(sequences, mlp, strict=True)), start=ZERO
        )
        label = f"_{index}" if len(groups) > 1 else ""
        found.append((TowerTokens(label, layers, kept, rows, mlp_rows), group.attention))
    return found


def _executed_layers(
    vision: VisionSpec, deployment: Deployment, plan: CompressionPlan | None
) -> int:
    executed = deployment.vision_layers
    if executed is None:
        executed = vision.layers_executed
    if not 1 <= executed <= vision.layers:
        raise InputError("vision-layers", executed, f"a number from 1 to {vision.layers}")
    if plan is not None and plan.tower_layers is not None:
        executed = max(executed, plan.tower_layers)
    return executed


def _window_groups(
    vision: VisionSpec,
    segments: tuple[Segment, ...],
    sequences: list[Sequences],
    total: Expr,
    executed: int,
    values: dict[Symbol, float],
) -> list[tuple[TowerTokens, Literal["flash", "sdpa", "eager"] | None]]:
    windows = _windows(segments, vision.window_patches or 1)
    attended = []
    for index, (length, count) in enumerate(sorted(windows.items(), reverse=True)):
        y, z = (indexed(name, index, len(windows)) for name in ("y", "z"))
        values |= {y: count, z: length}
        attended.append(Sequences(y, z))
    full = sum(1 for layer in vision.full_attention_layers if layer < executed)
    values |= {sym("Lw"): executed - full, sym("Lv"): full}
    window = TowerTokens("_window", sym("Lw"), tuple(attended), total, total, window=True)
    whole = TowerTokens("_full", sym("Lv"), tuple(sequences), total, total)
    return [(window, None), (whole, None)] if full else [(window, None)]


def _windows(segments: tuple[Segment, ...], side: int) -> dict[int, int]:
    """Tokens of each window -> how many such windows there are."""
    found: dict[int, int] = {}
    for segment in segments:
        for height, rows in _cuts(segment.height_patches, side):
            for width, columns in _cuts(segment.width_patches, side):
                size = height * width
                found[size] = found.get(size, 0) + rows * columns * segment.count
    return found


def _cuts(length: int, side: int) -> list[tuple[int, int]]:
    """Sizes of the pieces of `length` cut every `side`, and how many of each."""
    pieces = [(side, length // side), (length % side, 1)]
    return [(size, count) for size, count in pieces if size and count]


# --- language model ------------------------------------------------------------


def _decoder_groups(
    model: ModelSpec, layout: VisualLayout | None, plan: CompressionPlan | None
) -> tuple[DecoderGroup, ...]:
    if plan is None:
        visual = layout.tokens if layout is not None else 0
        return (DecoderGroup(layers=model.text.layers, visual=visual),)
    covered = sum(group.layers for group in plan.decoder_groups)
    if covered != model.text.layers:
        raise InputError(
            "compress", plan.method, f"layer groups that cover {model.text.layers} decoder layers"
        )
    return plan.decoder_groups


def _decoder_relations(
    groups: tuple[DecoderGroup, ...],
    text: TextSpec,
    deployment: Deployment,
    values: dict[Symbol, float],
    prefill: dict[Symbol, Expr],
    decode: dict[Symbol, Expr],
) -> tuple[tuple[CacheGroup, ...], list[LayerTokens]]:
    count = len(groups)
    text_tokens, produced = sym("T"), sym("o")
    cache: list[CacheGroup] = []
    tokens: list[LayerTokens] = []
    kv_heads = Max(Integer(text.kv_heads) / deployment.tp, 1) if deployment.tp > 1 else sym("G")
    for index, group in enumerate(groups):
        layers, visual = indexed("L", index, count), indexed("V", index, count)
        values[layers] = group.layers
        _bind(visual, group.visual, values, prefill, decode)
        hidden, past = indexed("s", index, count), indexed("p", index, count)
        prefill |= {hidden: text_tokens + visual, past: ZERO}
        cached = visual if group.visual_cached is None else sympy.sympify(group.visual_cached)
        # Output tokens 2, 3 ... o run on a cache that grows from T + V; p is its mean.
        decode |= {
            hidden: Integer(1),
            past: text_tokens + cached + Max(produced - 2, 0) * Rational(1, 2),
        }

        tokens.append(
            LayerTokens(
                label=f"_{index}" if count > 1 else "",
                layers=layers,
                hidden=hidden,
                computed_kv=_tokens_of(
                    "sk", group.visual_kv, index, count, hidden, prefill, decode
                ),
                mlp=_tokens_of("sm", group.visual_mlp, index, count, hidden, prefill, decode),
                attending=_tokens_of(
                    "sa", group.visual_attended, index, count, hidden, prefill, decode
                ),
                past=past,
            )
        )
        kept = text_tokens + cached + produced
        size = 2 * sym("b") * layers * kept * kv_heads * sym("D") * sym("bkv")
        cache.append(CacheGroup(group.layers, kept, size))
    if count > 1:
        values[sym("L")] = text.layers
    first = indexed("V", 0, count)
    prefill[sym("v")] = first
    decode[sym("v")] = ZERO
    return tuple(cache), tokens


def _tokens_of(
    name: str,
    visual: Expr | int | None,
    index: int,
    count: int,
    hidden: Expr,
    prefill: dict[Symbol, Expr],
    decode: dict[Symbol, Expr],
) -> Expr:
    """Return the symbol of a count that differs from the hidden state's, or that count."""
    if visual is None:
        return hidden
    symbol = indexed(name, index, count)
    prefill[symbol] = sym("T") + sympy.sympify(visual)
    decode[symbol] = Integer(1)
    return symbol


def _bind(
    symbol: Symbol,
    value: Expr | int,
    values: dict[Symbol, float],
    *relations: dict[Symbol, Expr],
) -> None:
    expression = sympy.sympify(value)
    if expression.is_number:
        values[symbol] = float(expression)
    else:
        for relation in relations:
            relation[symbol] = expression
