"""PyramidDrop: visual tokens are dropped in stages, at every quarter of the language model."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from sympy import Integer

from costmodel.compression.dropping import Drops, drops, numbers
from costmodel.compression.method import Context, Method
from costmodel.compression.plan import CompressionPlan
from costmodel.compression.ranking import attention_row, projections, take, uncaptured
from costmodel.errors import InputError
from costmodel.ops import ONE, Op, Stage, copy, elementwise, gemm
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["METHOD"]

_STAGE: Stage = "compression"
_SCORE_BYTES = Integer(4)
_RATIO = 0.5
_LEAST_RATIO = 0.25


class PyramidDropParams(Spec):
    """Stages; the defaults are the paper's."""

    layers: str | None = Field(
        default=None,
        description="layers before which tokens are dropped, such as 8+16+24 (default: each "
        "quarter of the depth)",
    )
    ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        default=_RATIO, description="share of the tokens that stays at each stage"
    )
    variant: Literal["released", "lean"] = Field(
        default="released",
        description="the public code, which projects queries, keys and values of all tokens and "
        "loops over the batch; or keys and one query, the batch at once",
    )

    @field_validator("layers")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            numbers(text, "layers")
        return text


class PyramidDrop(Method):
    r"""Before layers 8, 16 and 24 of 32, the half of the visual tokens asked for least is dropped.

    The last token of the instruction asks: its attention to the visual tokens in the layer that
    follows, mean over the heads.  For that, ``released`` (``modeling_llama_pdrop.py``, commit
    3f89f94) computes the input norm and queries, keys and values of all n tokens, which the
    layer computes again for those that stay:

    .. math:: F = \sum_{stages} b\,(2 n d (H + 2G) D + 2 H n D)

    It then builds a mask of n x n, loops over the batch (twice waiting for the device for each
    request) and pads the results to one length.  ``lean`` needs keys of all tokens and one
    query: not in the public code.  All layers keep flash attention; each holds keys and values
    of the tokens it ran on.
    """

    name = "pyramiddrop"
    title = "PyramidDrop"
    summary = "Drops a share of the visual tokens before each quarter of the language model."
    where = "inside the language model, before three layers"
    reference = "L. Xing et al., PyramidDrop, CVPR 2025"
    url = "https://arxiv.org/abs/2410.17247"
    training = "none; or the same drops in instruction tuning, which shortens it"
    unknown = (
        "Layers and ratios of the rows that other papers print for a budget: params_for takes the "
        "latest equally spaced stages that reach it with a ratio of at least 0.25."
    )

    Params = PyramidDropParams

    def plan(self, params: PyramidDropParams, context: Context) -> CompressionPlan:
        """Return a plan with one decoder group for each stage."""
        layers = _layers(params.layers, context)
        counts = _counts(context.features, params.ratio, len(layers))
        found = drops(context, self.name, layers, counts)
        released = params.variant == "released"
        stage = _released if released else _lean
        ops = [
            op
            for index in range(len(layers))
            for op in stage(f"{self.name}_{index}", context, found, index)
        ]
        notes = [f"visual tokens left: {', '.join(map(str, found.counts))}"]
        if released:
            notes.append("a Python loop over the batch that waits for the device")
        return found.plan(
            self.name,
            ops=tuple(ops),
            needs_attention_weights=False,
            graph_safe=not released,
            notes=tuple(notes),
        )

    def params_for(self, kept_per_image: int, context: Context) -> dict[str, Any]:
        """Return ``layers`` and ``ratio`` whose mean over all layers is the number asked for."""
        depth = context.model.text.layers
        wanted = kept_per_image * sum(group.units for group in context.images) / context.features
        if wanted > 1:
            raise InputError("visual-tokens-kept", kept_per_image, "at most all visual tokens")
        for step in range(depth // 4, 0, -1):
            ratio = _ratio_for(wanted, step, depth)
            if ratio is not None and ratio >= _LEAST_RATIO:
                layers = "+".join(str(step * stage) for stage in (1, 2, 3))
                return {"layers": layers, "ratio": round(ratio, 4)}
        raise InputError(
            "visual-tokens-kept", kept_per_image,
            "more tokens: three stages that leave a quarter each do not reach it",
        )  # fmt: skip


def _layers(given: str | None, context: Context) -> tuple[int, ...]:
    if given is not None:
        return numbers(given, "layers")
    depth = context.model.text.layers
    return tuple(depth * part // 4 for part in (1, 2, 3))


def _counts(features: int, ratio: float, stages: int) -> list[int]:
    return [max(1, int(features * ratio ** (stage + 1))) for stage in range(stages)]


def _ratio_for(wanted: float, step: int, depth: int) -> float | None:
    """Ratio at which stages every `step` layers leave the share `wanted` on average."""

    def mean(ratio: float) -> float:
        last = depth - 3 * step
        return (step * (1 + ratio + ratio**2) + last * ratio**3) / depth

    low, high = 0.0, 1.0
    if mean(low) > wanted:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < wanted else (low, middle)
    return high


def _released(label: str, context: Context, found: Drops, index: int) -> list[Op]:
    b, d, ba = sym("b"), sym("d"), sym("ba")
    before, after = found.tokens(index), found.tokens(index + 1)
    ops = [
        copy(f"{label}.clone", _STAGE, rows=b * before, cols=d),
        *projections(label, context, before),
        # Two fields of ones, lower triangle, and; zeros, not, fill.
        elementwise(
            f"{label}.mask", _STAGE, rows=b * before, cols=before, read=5 + ba, write=4 + 2 * ba,
            flops_per_element=ONE, launches=Integer(7), live=2 + 2 * ba,
            note="mask of tokens x tokens",
        ),
        *attention_row(f"{label}.row", context, before, batch=ONE, repeat=b),
    ]  # fmt: skip
    ops += [
        elementwise(
            f"{label}.loop", _STAGE, rows=found.symbols[index], cols=ONE,
            read=_SCORE_BYTES + 8, write=_SCORE_BYTES + 8, flops_per_element=ONE,
            launches=Integer(6), repeat=b, primitive="reduction",
            note="bias, mean over queries, top-k, shift, sort, sum of the mask; for each request",
        ),
        copy(f"{label}.rows", _STAGE, rows=before + 3 * after, cols=d, launches=Integer(4),
             repeat=b, gather=True,
             note="rows that are no padding, rows chosen, concatenation, padding"),
        copy(f"{label}.stack", _STAGE, rows=b * after, cols=d),
    ]  # fmt: skip
    # Rows picked by a mask, and the length of the longest.
    waits = {f"{label}.rows": 1, f"{label}.loop": 1}
    return uncaptured([replace(op, host_syncs=Integer(waits.get(op.name, 0))) for op in ops])


def _lean(label: str, context: Context, found: Drops, index: int) -> list[Op]:
    before = found.tokens(index)
    made = projections(label, context, before, of=("q_proj", "k_proj"))
    return [
        *(_one_query(op) for op in made),
        *attention_row(f"{label}.row", context, before),
        *take(label, ranked=found.symbols[index], left=found.tokens(index + 1), positions=False),
    ]


def _one_query(op: Op) -> Op:
    """The query projection is of one token of each sequence."""
    if not op.name.endswith("q_proj"):
        return op
    shape = dict(op.shape)
    return gemm(op.name, _STAGE, m=sym("b"), n=shape["n"], k=shape["k"])


METHOD = PyramidDrop()
