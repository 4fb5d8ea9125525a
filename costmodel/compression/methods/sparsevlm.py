"""SparseVLM: visual tokens dropped by the text that rates them, and partly recycled."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from sympy import Integer, Symbol

from costmodel.compression.dropping import Drops, check_layers, drops, numbers
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.ranking import map_bytes
from costmodel.compression.rating import choose, raters, weights_beside
from costmodel.compression.recycling import recycle, recycled
from costmodel.errors import InputError
from costmodel.ops import Op, copy
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_OF = 576
"""Visual tokens that the released lists are for."""

LISTS: dict[str, dict[int, tuple[int, int, int]]] = {
    "v1": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "v2": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
"""Tokens chosen at each stage, by release and nominal budget."""


class SparseVlmParams(Spec):
    """A released list, or another one."""

    budget: Literal[192, 128, 96, 64] = Field(
        default=192, description="released list of tokens, by the number it is published under"
    )
    tokens: str | None = Field(
        default=None, description="tokens chosen at each stage instead, such as 300+200+110"
    )
    layers: str = Field(default="2+6+15", description="layers after which tokens are dropped")
    variant: Literal["v1", "v2"] = Field(
        default="v1", description="release; v2 recycles nothing and averages 14 heads"
    )
    weights: Literal["eager", "beside"] = Field(
        default="eager",
        description="attention map of the stages' layers: of eager attention, or computed a second "
        "time beside flash attention",
    )
    system_tokens: Annotated[int, Field(ge=0)] = Field(
        default=35, description="text tokens before the image, which rate nothing"
    )

    @field_validator("budget", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.strip().isdigit() else value

    @field_validator("tokens", "layers")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            numbers(text, "numbers")
        return text


class SparseVlm(Method):
    r"""After layers 2, 6 and 15, tokens that the rating text attends to stay; some are recycled.

    Text tokens whose mean softmax similarity to the image is above average rate (one product of
    the embeddings, before the first layer).  At each stage the attention map of the layer, mean
    over the heads, rows of the raters, ranks the n visual tokens; k of the released list stay.
    Of the p dropped ones the best ``N = int(0.3 p) + 1`` are clustered (density peaks over
    k nearest neighbours) into ``int(N / 10) + 1`` further tokens, through a difference of
    N x N x d.  Tokens of later layers are k plus clusters; with the list for 192: 309, 204, 113.

    Read: ``score.py``, ``utils.py`` and ``modelling_sparse_llama.py`` of Gumpest/SparseVLMs
    (commits 14cb5a9, 8435974).  Its choice works on one request at a time.  Its own average of
    tokens counts the three layers that rank as pruned already, which gives the nominal 192, 128,
    96 and 64; the layers run on 206, 145, 114 and 82.
    """

    name = "sparsevlm"
    title = "SparseVLM"
    summary = "Drops visual tokens in three layers by text that rates them, recycles some."
    where = "inside the language model, after three layers"
    reference = "Y. Zhang et al., SparseVLM, ICML 2025"
    url = "https://arxiv.org/abs/2410.04417"
    unknown = (
        "The rank-based choice of the paper has no fixed numbers, the released lists replace it; "
        "v2 is known at second hand only; how many text tokens rate depends on the question, all "
        "behind the image are counted."
    )

    Params = SparseVlmParams

    def plan(self, params: SparseVlmParams, context: Context) -> CompressionPlan:
        """Return a plan with the layers that are read apart from the others."""
        after = numbers(params.layers, "layers")
        check_layers(f"compress {self.name} layers", [layer + 1 for layer in after], context)
        chosen = _chosen(params, context, len(after))
        merges, left = _with_clusters(context.features, chosen, params.variant == "v1")
        found = drops(context, self.name, [layer + 1 for layer in after], left)
        layers = found.per_layer()
        if params.weights == "eager":
            for layer in after:
                layers[layer] = replace(layers[layer], attention="eager")
        values: dict[Symbol, float] = {}
        ops = list(raters(self.name, found, params.system_tokens))
        for index, (dropped, clusters) in enumerate(merges):
            label = f"{self.name}_{index}"
            ops += _stage(label, context, found, index, params)
            if clusters:
                made, sizes = recycle(label, index, len(merges), dropped, clusters)
                ops += made
                values |= sizes
        return found.plan(
            self.name,
            layers,
            ops=tuple(replace(op, graph_safe=False) for op in ops),
            values=values,
            needs_attention_weights=True,
            graph_safe=False,
            notes=(
                f"visual tokens left: {', '.join(map(str, found.counts))}",
                "tokens are picked by masks whose counts the host waits for",
            ),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return the released list published for the number, or a list scaled to reach it.

        Of other numbers of tokens the nearest list is scaled until the mean over the layers,
        clusters included, is the number.
        """
        images = sum(group.units for group in context.images)
        if context.features == _OF and images == 1 and kept_per_image in LISTS["v1"]:
            return {"budget": kept_per_image}
        tokens = _scaled(kept_per_image * images, context, kept_per_image)
        return {"tokens": "+".join(map(str, tokens))}


def _chosen(params: SparseVlmParams, context: Context, stages: int) -> list[int]:
    if params.tokens is not None:
        found = list(numbers(params.tokens, "tokens"))
    else:
        share = context.features / _OF
        found = [max(1, round(n * share)) for n in LISTS[params.variant][params.budget]]
    if len(found) != stages:
        raise InputError(
            "compress sparsevlm tokens", "+".join(map(str, found)),
            f"{stages} numbers, one for each of layers={params.layers}",
        )  # fmt: skip
    return found


def _with_clusters(
    features: int, chosen: list[int], merging: bool
) -> tuple[list[tuple[int, int]], list[int]]:
    """Tokens recycled and clusters of each stage, and the tokens left after it."""
    merges, left, now = [], [], features
    for wanted in chosen:
        number = min(wanted, now)
        pair = recycled(now - number) if merging else (0, 0)
        merges.append(pair)
        now = number + pair[1]
        left.append(now)
    return merges, left


def _mean(features: int, left: list[int], after: tuple[int, ...], depth: int) -> float:
    counts = (features, *left)
    bounds = (0, *(layer + 1 for layer in after), depth)
    return sum(n * (b - a) for n, a, b in zip(counts, bounds, bounds[1:], strict=False)) / depth


def _scaled(wanted: int, context: Context, asked: int) -> list[int]:
    """The list nearest in share, scaled until the mean over the layers is `wanted`."""
    after = numbers(SparseVlmParams().layers, "layers")
    depth, features = context.model.text.layers, context.features
    if wanted == features:
        # One dropped token comes back as the cluster of itself: the mean alone cannot tell.
        return [features] * len(after)
    share = wanted / features
    nearest = min(LISTS["v1"], key=lambda budget: abs(budget / _OF - share))

    def made(scale: float) -> list[int]:
        base = [n / _OF * features * scale for n in LISTS["v1"][nearest]]
        return [min(max(1, round(n)), features) for n in base]

    def mean(scale: float) -> float:
        return _mean(features, _with_clusters(features, made(scale), True)[1], after, depth)

    low, high = 0.0, float(_OF)
    if not mean(low) <= wanted <= mean(high):
        raise InputError(
            "visual-tokens-kept", asked,
            f"a mean over the layers of {mean(low):.0f} to {mean(high):.0f} tokens of a request",
        )  # fmt: skip
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < wanted else (low, middle)
    return made(high)


def _stage(
    label: str, context: Context, found: Drops, index: int, params: SparseVlmParams
) -> list[Op]:
    before, after = found.tokens(index), found.tokens(index + 1)
    b, d = sym("b"), sym("d")
    heads = Integer(14) if params.variant == "v2" else sym("H")
    ops: list[Op] = []
    if params.weights == "beside":
        ops += weights_beside(label, context, before)
    held = map_bytes(context, before) + b * before * d * sym("ba")
    ops += choose(label, found, index, heads, params.system_tokens, held)
    ops.append(
        copy(f"{label}.gather", "compression", rows=after, cols=d, passes=Integer(2),
             launches=Integer(2), repeat=b, gather=True, note="tokens that stay, concatenated")
    )  # fmt: skip
    return ops


METHOD = SparseVlm()
