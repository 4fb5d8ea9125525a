"""V2Drop: visual tokens that a layer changes least are dropped, in three steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator
from sympy import Integer

from costmodel.compression.dropping import Drops, drops, numbers
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.ranking import take
from costmodel.errors import InputError
from costmodel.ops import Op, copy, elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_RELEASED = (0.5, 0.5, 0.0)
"""Share that stays at each step in the public code; 0 leaves one token."""


class V2DropParams(Spec):
    """Steps; the defaults are those of the public code for LLaVA-1.5-7B."""

    layers: str = Field(default="3+17+22", description="layers before which tokens are dropped")
    tokens: str | None = Field(
        default=None,
        description="tokens per request left from each of them on (default: a half, a quarter, 1)",
    )

    @field_validator("layers", "tokens")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            numbers(text, "numbers")
        return text


class V2Drop(Method):
    r"""At each step the tokens with the largest change of hidden state in the last layer stay.

    .. math:: s_i = \lVert h_i^{(l)} - h_i^{(l-1)} \rVert_2

    No attention weights are read, flash attention stays; the hidden states that entered the
    layer before are kept beside those that leave it.  Tokens keep their positions.

    Read: ``llava/model/language_model/V2Drop.py``, commit 89eddbb (layers 3, 17, 22 with 576,
    288, 144 and 1 visual tokens), for one request at a time.
    """

    name = "v2drop"
    title = "V2Drop"
    summary = "Drops the visual tokens that change least between layers, in three steps."
    where = "inside the language model, before three layers"
    reference = "J. Chen et al., Variation-aware Vision Token Dropping, 2025"
    url = "https://arxiv.org/abs/2509.01552"
    unknown = "Schedules for other budgets: params_for changes the numbers of tokens only."

    Params = V2DropParams

    def plan(self, params: V2DropParams, context: Context) -> CompressionPlan:
        """Return a plan with one decoder group for each step."""
        layers = numbers(params.layers, "layers")
        counts = _counts(params, context, len(layers))
        found = drops(context, self.name, layers, counts)
        groups = found.per_layer()
        for layer in range(layers[-1]):
            stage = sum(first <= layer for first in layers)
            previous = sym("b") * found.tokens(stage) * sym("d") * sym("ba")
            groups[layer] = replace(groups[layer], held=previous)
        ops = [op for index in range(len(layers)) for op in _step(self.name, found, index)]
        return found.plan(
            self.name,
            groups,
            ops=tuple(ops),
            notes=(f"visual tokens left: {', '.join(map(str, found.counts))}",),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return tokens whose mean over the layers is the number asked for.

        The first step leaves what is needed, the second half of it, the third one token.
        """
        depth = context.model.text.layers
        first, second, third = numbers(V2DropParams().layers, "layers")
        wanted = kept_per_image * sum(group.units for group in context.images) * depth
        features = context.features
        left = round(
            (wanted - first * features - (depth - third))
            / ((second - first) + (third - second) / 2)
        )
        if not 2 <= left <= features:
            images = sum(group.units for group in context.images)
            least = (first * features + depth - first) / depth / images
            raise InputError(
                "visual-tokens-kept", kept_per_image,
                f"{least:.0f} tokens of each image or more as the mean over layers, and less than "
                "the schedule with all tokens at its first step",
            )  # fmt: skip
        return {"tokens": f"{left}+{max(1, left // 2)}+1"}


def _counts(params: V2DropParams, context: Context, steps: int) -> list[int]:
    if params.tokens is not None:
        found = list(numbers(params.tokens, "tokens"))
        if len(found) != steps or min(found) < 1:
            raise InputError(
                "compress v2drop tokens", params.tokens,
                f"{steps} numbers above 0, one for each of layers={params.layers}",
            )  # fmt: skip
        return found
    if steps != len(_RELEASED):
        raise InputError("compress v2drop layers", params.layers, "three layers, or tokens too")
    counts, now = [], context.features
    for share in _RELEASED:
        now = max(1, int(now * share))
        counts.append(now)
    return counts


def _step(name: str, found: Drops, index: int) -> list[Op]:
    b, d, ba = sym("b"), sym("d"), sym("ba")
    rows, label = b * found.symbols[index], f"{name}_{index}"
    held = b * found.tokens(index) * d * ba
    return [
        copy(f"{label}.states", "compression", rows=2 * rows, cols=d, launches=Integer(2),
             gather=True, held=held, note="visual tokens of this layer and the one before"),
        elementwise(f"{label}.change", "compression", rows=rows, cols=d, read=3 * ba, write=ba,
                    flops_per_element=Integer(3), launches=Integer(2), primitive="reduction",
                    live=3 * ba, held=held, note="difference and its norm"),
        *take(label, ranked=found.symbols[index], left=found.tokens(index + 1), positions=False,
              kernels=8),
    ]  # fmt: skip


METHOD = V2Drop()
