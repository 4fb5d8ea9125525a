"""The vision tower and the projector of a program."""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Symbol, sympify

from costmodel.assembly.piece import Piece
from costmodel.blocks import (
    Sequences,
    Style,
    TowerTokens,
    projector,
    projector_weights,
    vision_embedding,
    vision_layers,
    vision_post_norm,
    vision_weights,
)
from costmodel.compression.plan import CompressionPlan, TowerGroup
from costmodel.errors import InputError
from costmodel.ops import ZERO
from costmodel.specs.model import ModelSpec, ProjectorSpec, VisionSpec
from costmodel.specs.workload import Deployment
from costmodel.symbols import indexed, sym
from costmodel.vision_tokens.layout import Segment, VisualLayout

__all__ = ["executed_layers", "vision_piece"]


def vision_piece(
    model: ModelSpec,
    layout: VisualLayout | None,
    deployment: Deployment,
    plan: CompressionPlan | None,
) -> Piece:
    """Return tower and projector; without images only their parameters.

    Parameters
    ----------
    model : ModelSpec
        The model.
    layout : VisualLayout, optional
        What the images of one request become.
    deployment : Deployment
        Fusion, attention, vision layers.
    plan : CompressionPlan, optional
        May change layers, token counts and the projector.

    Returns
    -------
    Piece
        Empty for a model without a vision tower.

    Raises
    ------
    InputError
        If the number of vision layers is out of range, or a plan does not cover them.
    """
    piece = Piece()
    vision, spec = model.vision, model.projector
    if vision is None or spec is None:
        return piece
    keeps_projector = plan is None or not plan.replaces_projector
    piece.weights += vision_weights(vision)
    if keeps_projector:
        piece.weights += projector_weights(spec)
    piece.values |= _tower_values(vision) | {sym("q"): spec.merge, sym("di"): spec.in_features}
    for index, width in enumerate(spec.widths):
        piece.values[indexed("w", index, len(spec.widths))] = width
    executed = executed_layers(vision, deployment, plan)
    if layout is None or not layout.segments:
        return piece

    style = Style(deployment.fused, deployment.attention)
    _add_tower(piece, vision, layout.segments, executed, style, plan)
    if keeps_projector:
        _add_projector(piece, spec, layout, style, plan)
    return piece


def executed_layers(
    vision: VisionSpec, deployment: Deployment, plan: CompressionPlan | None
) -> int:
    """Return how many vision layers run.

    Raises
    ------
    InputError
        If the deployment asks for more layers than there are, or none.
    """
    executed = deployment.vision_layers
    if executed is None:
        executed = vision.layers_executed
    if not 1 <= executed <= vision.layers:
        raise InputError("vision-layers", executed, f"a number from 1 to {vision.layers}")
    if plan is not None and plan.tower_layers is not None:
        executed = max(executed, plan.tower_layers)
    return executed


def _tower_values(vision: VisionSpec) -> dict[Symbol, float]:
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


def _add_tower(
    piece: Piece,
    vision: VisionSpec,
    segments: tuple[Segment, ...],
    executed: int,
    style: Style,
    plan: CompressionPlan | None,
) -> None:
    sequences = []
    patches, tokens, count = ZERO, ZERO, ZERO
    for index, segment in enumerate(segments):
        t, g, n = (indexed(name, index, len(segments)) for name in "tgn")
        piece.values |= {t: segment.count, g: segment.patches}
        piece.relate(n, g + int(vision.class_token))
        sequences.append(Sequences(t, n))
        patches, tokens, count = patches + t * g, tokens + t * n, count + t
    piece.ops += vision_embedding(vision, patches, tokens, style)
    groups = plan.tower_groups if plan is not None else ()
    if vision.window_patches is not None and not groups:
        parts = _window_parts(piece, vision, segments, sequences, executed)
        styles = [style] * len(parts)
    else:
        parts = _plain_parts(piece, groups or (TowerGroup(executed),), sequences, executed)
        # Hugging Face's LLaVA asks for the outputs of all layers, to read one of them.
        if not style.fused and vision.layers_needed is not None:
            parts = _with_all_states(parts)
        styles = [
            Style(style.fused, group.attention or style.attention)
            for group in groups or (TowerGroup(executed),)
        ]
    for part, part_style in zip(parts, styles, strict=True):
        piece.ops += vision_layers(vision, part, part_style)
    # A plan may leave fewer tokens than came in.
    piece.ops += vision_post_norm(vision, parts[-1].mlp_rows, count, style)


def _plain_parts(
    piece: Piece, groups: tuple[TowerGroup, ...], sequences: list[Sequences], executed: int
) -> list[TowerTokens]:
    covered = sum(group.layers for group in groups)
    if covered != executed:
        raise InputError("vision layer groups", covered, f"groups that cover {executed} layers")
    parts = []
    for index, group in enumerate(groups):
        layers = indexed("Lv", index, len(groups))
        piece.values[layers] = group.layers
        lengths = group.attention_tokens or tuple(item.length for item in sequences)
        mlp_lengths = group.mlp_tokens or lengths
        for name, given in (("attention", lengths), ("MLP", mlp_lengths)):
            if len(given) != len(sequences):
                raise InputError(
                    f"vision layer group {index} {name} tokens", len(given),
                    f"one count for each of the {len(sequences)} shapes of tower sequences",
                )  # fmt: skip
        attended = tuple(
            Sequences(item.count, sympify(length))
            for item, length in zip(sequences, lengths, strict=True)
        )
        parts.append(
            TowerTokens(
                label=f"_{index}" if len(groups) > 1 else "",
                layers=layers,
                attended=attended,
                rows=_total(sequences, lengths),
                mlp_rows=_total(sequences, mlp_lengths),
                held=ZERO if group.held is None else group.held,
            )
        )
    return parts


def _with_all_states(parts: list[TowerTokens]) -> list[TowerTokens]:
    """Hold what entered the first layer and left each one, as the last of each group runs."""
    state = sym("b") * sym("dv") * sym("ba")
    before, found = parts[0].rows, []
    for part in parts:
        # The layer itself counts what entered it.
        kept = before + (part.layers - 2) * part.mlp_rows
        found.append(replace(part, held=part.held + kept * state))
        before += part.layers * part.mlp_rows
    return found


def _total(sequences: list[Sequences], lengths: tuple[Expr, ...]) -> Expr:
    pairs = zip(sequences, lengths, strict=True)
    return sum((item.count * sympify(length) for item, length in pairs), start=ZERO)


def _window_parts(
    piece: Piece,
    vision: VisionSpec,
    segments: tuple[Segment, ...],
    sequences: list[Sequences],
    executed: int,
) -> list[TowerTokens]:
    total = _total(sequences, tuple(item.length for item in sequences))
    windows = _windows(segments, vision.window_patches or 1)
    attended = []
    for index, (length, count) in enumerate(sorted(windows.items(), reverse=True)):
        y, z = (indexed(name, index, len(windows)) for name in "yz")
        piece.values |= {y: count, z: length}
        attended.append(Sequences(y, z))
    full = sum(1 for layer in vision.full_attention_layers if layer < executed)
    piece.values |= {sym("Lw"): executed - full, sym("Lv"): full}
    window = TowerTokens("_window", sym("Lw"), tuple(attended), total, total)
    whole = TowerTokens("_full", sym("Lv"), tuple(sequences), total, total)
    return [part for part, layers in ((window, executed - full), (whole, full)) if layers]


def _windows(segments: tuple[Segment, ...], side: int) -> dict[int, int]:
    """Tokens of a window -> how many such windows there are."""
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


def _add_projector(
    piece: Piece,
    spec: ProjectorSpec,
    layout: VisualLayout,
    style: Style,
    plan: CompressionPlan | None,
) -> None:
    rows = layout.projected if plan is None or plan.projector_rows is None else plan.projector_rows
    piece.relate(sym("r"), sympify(rows))
    # A method that acts before the projector leaves no grid to put newlines into.
    whole = plan is None or plan.projector_rows is None
    newlines = spec.newline and whole
    piece.ops += projector(spec, sym("r"), style, newlines)
