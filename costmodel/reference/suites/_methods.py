"""Which runs of which compression methods are timed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..harness.case import Options, Value
from ..models.shapes import ModelShape

__all__ = ["Run", "kept_counts", "runs_of"]

_WINDOWS = (2, 3, 6)


@dataclass(frozen=True)
class Run:
    """One method at one setting.

    Attributes
    ----------
    method, variant : str
        Names of `..methods`.
    tokens, kept : int
        Tokens of an image before and after.
    width : int
        Elements of a token that goes in.
    params : mapping
        Parameters that are not the method's defaults, and those that a reader needs.
    graph : bool
        Whether a CUDA graph can capture it.
    batched : bool
        Whether it takes several images.
    """

    method: str
    variant: str
    tokens: int
    kept: int
    width: int
    params: Mapping[str, Value] = field(default_factory=dict)
    graph: bool = True
    batched: bool = True


def kept_counts(tokens: int) -> tuple[int, ...]:
    """Return how many tokens to keep: what windows leave of a square grid, else the same shares.

    Examples
    --------
    >>> kept_counts(576), kept_counts(64), kept_counts(500)
    ((144, 64, 16), (16,), (125, 56, 14))
    """
    side = math.isqrt(tokens)
    square = side * side == tokens
    windows = [w for w in _WINDOWS if not square or side % w == 0]
    return tuple(max(1, round(tokens / window**2)) for window in windows) or (max(1, tokens // 4),)


def runs_of(shape: ModelShape, tokens: int, options: Options) -> Iterator[Run]:
    """Yield the runs for the tokens of a model's images.

    Parameters
    ----------
    shape : ModelShape
        Gives widths and heads; it has a vision tower.
    tokens : int
        Visual tokens of an image.
    options : Options
        ``quick`` leaves runs out.
    """
    kept = kept_counts(tokens)
    yield from _sampling(shape, tokens, kept)
    yield from _clustering(shape, tokens, kept, options)
    if _is_square(tokens):
        yield from _fusion(shape, tokens, kept)
        yield from _in_tower(shape, tokens, kept[0], options)


def _sampling(shape: ModelShape, tokens: int, kept: tuple[int, ...]) -> Iterator[Run]:
    width, heads = shape.decoder.width, shape.decoder.heads
    for count in kept:
        yield Run("random", "batched", tokens, count, width)
        yield Run("random", "loop", tokens, count, width, graph=False)
        yield Run("spatial", "even", tokens, count, width)
        if _is_window(tokens, count):
            yield Run("spatial", "grid", tokens, count, width)
            yield Run("avgpool", "pool", tokens, count, width)
            yield Run("avgpool", "mean", tokens, count, width)
    params: dict[str, Value] = {"heads": heads, "key_heads": shape.decoder.kv_heads}
    for variant in ("embedding", "projected", "attention"):
        given = params if variant == "attention" else {}
        yield Run("saliency", variant, tokens, kept[0], width, given)


def _clustering(
    shape: ModelShape, tokens: int, kept: tuple[int, ...], options: Options
) -> Iterator[Run]:
    # Random tokens converge in two iterations: a test for convergence would end longer runs.
    tested: dict[str, Value] = {"iterations": 2, "check": True, "tolerance": 0.0}
    for count in kept[:1] if options.quick else kept:
        for iterations in (2,) if options.quick else (5, 10, 20):
            params: dict[str, Value] = {"iterations": iterations, "check": False}
            for variant in ("eager", "fused", "compiled"):
                if not (variant == "compiled" and options.device == "cpu"):
                    made = Run("cluster", variant, tokens, count, shape.decoder.width, params)
                    yield made if variant != "eager" else _uncaptured(made)
        run = Run("cluster", "eager", tokens, count, shape.decoder.width, tested)
        yield _uncaptured(run)
        if importlib.util.find_spec("sklearn") is not None and not options.quick:
            params = {"iterations": 10, "check": False}
            run = Run("cluster", "sklearn", tokens, count, shape.decoder.width, params)
            yield _uncaptured(run)


def _fusion(shape: ModelShape, tokens: int, kept: tuple[int, ...]) -> Iterator[Run]:
    width, out = _tower(shape), {"out_width": shape.decoder.width}
    # The method taps eight layers of 24.
    blocks: dict[str, Value] = {"blocks": 8}
    yield Run("mbtf", "linear", tokens, tokens, width, blocks)
    for count in kept:
        yield Run("stf", "linear", tokens, count, width, out)
        yield Run("stf", "conv", tokens, count, width, out)
    yield Run("mbtf+stf", "linear", tokens, kept[0], width, {**blocks, **out})


def _in_tower(shape: ModelShape, tokens: int, kept: int, options: Options) -> Iterator[Run]:
    width, heads = _tower(shape), {"heads": shape.vision.heads if shape.vision else 1}
    yield Run("tome", "step", tokens, tokens - max(1, tokens // 32), width, heads)
    yield Run("visionzip", "released", tokens, kept, width, heads, graph=False)
    yield Run("visionzip", "fused", tokens, kept, width, heads)
    fixed: dict[str, Value] = {"adaptive": False}
    yield Run("prumerge", "released", tokens, kept, width, fixed, graph=False)
    yield Run("prumerge", "fused", tokens, kept, width, fixed)
    for variant in ("released", "fused"):
        yield Run("prumerge+", variant, tokens, kept, width, graph=False, batched=False)
    if options.device == "cuda" and not options.quick and shape.vision is not None:
        layers: dict[str, Value] = {"layers": shape.vision.layers - 1, "fused": True}
        yield Run("tome", "tower", tokens, tokens // 3, width, {**heads, **layers})


def _uncaptured(run: Run) -> Run:
    return Run(run.method, run.variant, run.tokens, run.kept, run.width, run.params, graph=False)


def _tower(shape: ModelShape) -> int:
    if shape.vision is None:
        raise ValueError(f"{shape.name}: has no vision tower")
    return shape.vision.width


def _is_square(tokens: int) -> bool:
    return math.isqrt(tokens) ** 2 == tokens


def _is_window(tokens: int, kept: int) -> bool:
    side = math.isqrt(tokens // kept)
    return _is_square(tokens) and side * side * kept == tokens
