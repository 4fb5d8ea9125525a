"""What methods share that drop visual tokens between layers of the language model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from sympy import Expr, Symbol

from costmodel.compression.method import Context
from costmodel.compression.plan import CompressionPlan, DecoderGroup, Insertion, TokenCount
from costmodel.errors import InputError
from costmodel.symbols import indexed, sym

__all__ = ["Drops", "check_layers", "drops", "grouped", "later_tokens", "numbers"]


@dataclass(frozen=True)
class Drops:
    """Layers before which visual tokens are dropped, and what is left from them on.

    Attributes
    ----------
    layers : tuple of int
        Ascending; the first is above 0.
    counts : tuple of int
        Visual tokens per request, markers left out: before the first drop and after each.
    symbols : tuple of Symbol
        The same as symbols, ``vl_0``, ``vl_1`` ...
    markers : int
        Marker tokens per request, which stay.
    depth : int
        Layers of the language model.
    """

    layers: tuple[int, ...]
    counts: tuple[int, ...]
    symbols: tuple[Symbol, ...]
    markers: int
    depth: int

    @property
    def values(self) -> dict[Symbol, float]:
        """Values of the symbols."""
        return dict(zip(self.symbols, map(float, self.counts), strict=True))

    def visual(self, stage: int) -> Expr:
        """Visual tokens per request after `stage` drops, markers included."""
        return self.symbols[stage] + self.markers

    def tokens(self, stage: int) -> Expr:
        """Tokens of a sequence after `stage` drops, text included."""
        return sym("T") + self.visual(stage)

    def per_layer(self) -> list[DecoderGroup]:
        """Return one group for each layer, to be changed and given to `grouped`."""
        stages = [sum(first <= layer for first in self.layers) for layer in range(self.depth)]
        return [DecoderGroup(1, self.visual(stage)) for stage in stages]

    def plan(
        self, method: str, groups: Sequence[DecoderGroup] | None = None, **rest: Any
    ) -> CompressionPlan:
        """Return the plan of a static method with these drops.

        Parameters
        ----------
        method : str
            Its name.
        groups : sequence of DecoderGroup, optional
            One for each layer, instead of `per_layer`.
        **rest
            Other fields of the plan.
        """
        values = {**self.values, **rest.pop("values", {})}
        return CompressionPlan(
            method=method,
            insertion=Insertion("llm", self.layers[0]),
            kept=TokenCount.static(self.counts[-1] + self.markers),
            decoder_groups=grouped(self.per_layer() if groups is None else groups),
            values=values,
            **rest,
        )


def drops(context: Context, method: str, layers: Sequence[int], counts: Sequence[int]) -> Drops:
    """Return the schedule that leaves `counts` tokens per request from `layers` on.

    Raises
    ------
    InputError
        If the layers do not ascend within the model, or counts grow.
    """
    check_layers(f"compress {method} layers", layers, context)
    before = context.features
    for more, fewer in zip((before, *counts), counts, strict=False):
        if fewer > more:
            raise InputError(
                f"compress {method} tokens", fewer,
                f"at most the {more} visual tokens that are left",
            )  # fmt: skip
    every = (before, *counts)
    return Drops(
        layers=tuple(layers),
        counts=every,
        symbols=tuple(indexed("vl", index, len(every)) for index in range(len(every))),
        markers=context.markers,
        depth=context.model.text.layers,
    )


def check_layers(name: str, layers: Sequence[int], context: Context) -> None:
    """Refuse layers that do not ascend, or that the model does not have.

    Raises
    ------
    InputError
        If they do not.
    """
    depth = context.model.text.layers
    ascending = list(layers) == sorted(set(layers))
    if not layers or not ascending or layers[0] < 1 or layers[-1] >= depth:
        raise InputError(
            name, "+".join(map(str, layers)),
            f"ascending layers from 1 to {depth - 1} of the {depth} of {context.model.name}",
        )  # fmt: skip


def grouped(layers: Iterable[DecoderGroup]) -> tuple[DecoderGroup, ...]:
    """Join neighbouring layers that are alike.

    Examples
    --------
    >>> [g.layers for g in grouped([DecoderGroup(1, 9), DecoderGroup(1, 9), DecoderGroup(1, 3)])]
    [2, 1]
    """
    return tuple(
        replace(alike, layers=sum(1 for _ in run)) for alike, run in groupby(layers)
    )  # fmt: skip


def later_tokens(context: Context, method: str, kept_per_image: int, layer: int) -> int:
    r"""Return the tokens per request from `layer` on whose mean over all layers is wanted.

    .. math:: k = \frac{L N - l V}{L - l}

    Parameters
    ----------
    context : Context
        Model and images.
    method : str
        Name of the method.
    kept_per_image : int
        Wanted mean over the layers, per image.
    layer : int
        First layer with fewer tokens.

    Returns
    -------
    int
        Tokens per request.

    Raises
    ------
    InputError
        If full layers alone are more, or the images have fewer.
    """
    images = sum(group.units for group in context.images)
    depth, before = context.model.text.layers, context.features
    left = round((depth * kept_per_image * images - layer * before) / (depth - layer))
    if not 1 <= left <= before:
        least = (layer * before + depth - layer) / depth / images
        raise InputError(
            "visual-tokens-kept", kept_per_image,
            f"{least:.0f} to {before / images:.0f} tokens of each image as the mean over layers, "
            f"which {method} can reach with layer={layer}",
        )  # fmt: skip
    return left


def numbers(text: str, field: str) -> tuple[int, ...]:
    """Read whole numbers with plus signs between them.

    Raises
    ------
    ValueError
        If it is something else, for a validator of a spec.

    Examples
    --------
    >>> numbers("8+16+24", "layers")
    (8, 16, 24)
    """
    parts = [part.strip() for part in str(text).split("+")]
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"{field} are whole numbers with + between them, such as 8+16+24")
    return tuple(int(part) for part in parts)
