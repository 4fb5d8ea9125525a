"""What methods share that keep a number of tokens per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.compression.method import Context, ImageGroup
from costmodel.compression.plan import CompressionPlan, Insertion, TokenCount
from costmodel.errors import InputError, UnsupportedError
from costmodel.ops import ONE, Op, copy, elementwise
from costmodel.specs.base import Spec
from costmodel.symbols import indexed, sym

__all__ = ["BudgetParams", "KeepParams", "SelectedImages", "Selection", "rank_and_gather", "select"]


_SCORE_BYTES = Integer(4)


class BudgetParams(Spec):
    """How many tokens of each image remain.

    Attributes
    ----------
    k : int, optional
        Tokens kept per image.
    retention : float, optional
        Share kept instead, in (0, 1]; ``k = round(retention * tokens)``, at least 1.
    """

    k: Annotated[int, Field(gt=0)] | None = Field(default=None, description="tokens kept per image")
    retention: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of each image's tokens kept, instead of k"
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.k is None) == (self.retention is None):
            raise ValueError("give exactly one of k and retention, for example k=64")
        return self


class KeepParams(BudgetParams):
    """How many tokens of each image remain, and where the method acts.

    Attributes
    ----------
    position : {"after_projector", "before_projector"}
        Before the projector vectors have the tower's width and the projector
        works on the kept tokens only.
    """

    position: Literal["after_projector", "before_projector"] = Field(
        default="after_projector", description="where the method acts"
    )


@dataclass(frozen=True)
class SelectedImages:
    """Images of one kind with the symbols of their sizes."""

    label: str
    units: Symbol
    tokens: Symbol
    kept: Symbol
    count: int
    kept_count: int


@dataclass(frozen=True)
class Selection:
    """Sizes of a selection over all images of a request.

    Attributes
    ----------
    images : tuple of SelectedImages
        One entry per kind of image.
    width : Symbol
        Width of the vectors (c).
    values : dict of Symbol to float
        Values of all symbols.
    kept : Expr
        Visual tokens kept per request, markers included.
    kept_count : int
        The same as a number.
    """

    images: tuple[SelectedImages, ...]
    width: Symbol
    values: dict[Symbol, float]
    kept: Expr
    kept_count: int
    before_projector: bool

    def plan(
        self,
        context: Context,
        method: str,
        *,
        values: Mapping[Symbol, float] | None = None,
        **rest: Any,
    ) -> CompressionPlan:
        """Return the plan of a static method that keeps these tokens in all layers.

        Parameters
        ----------
        context : Context
            Model and images.
        method : str
            Its name.
        values : mapping of Symbol to float, optional
            Values of further symbols of its operators.
        **rest
            Other fields of the plan.
        """
        return CompressionPlan(
            method=method,
            insertion=Insertion("after_encoder" if self.before_projector else "after_projector"),
            kept=TokenCount.static(self.kept_count),
            decoder_groups=context.uniform(self.kept),
            projector_rows=(self.kept - context.markers) if self.before_projector else None,
            values={**self.values, **(values or {})},
            **rest,
        )


def rank_and_gather(
    image: SelectedImages, width: Expr, *, loops: Expr = ONE, gather: bool = True
) -> list[Op]:
    """Operators that keep the tokens with the best scores: top-k, their order, a gather.

    Parameters
    ----------
    image : SelectedImages
        Images of one kind.
    width : Expr
        Width of a token.
    loops : Expr
        Times that the kernels are started, each for its share of the images.
    gather : bool
        Whether the tokens are copied, or only found.
    """
    problems = sym("b") * image.units
    ops = [
        elementwise(
            f"{image.label}.rank", "compression", rows=problems * image.tokens, cols=ONE,
            read=2 * _SCORE_BYTES, write=_SCORE_BYTES, flops_per_element=ONE,
            launches=2 * loops, primitive="topk", note="top-k, then in order of position",
        )
    ]  # fmt: skip
    if gather:
        ops.append(
            copy(f"{image.label}.gather", "compression", rows=problems * image.kept, cols=width,
                 launches=loops, gather=True)
        )  # fmt: skip
    return ops


def select(params: BudgetParams, context: Context, method: str) -> Selection:
    """Work out how many tokens of each image remain.

    Parameters without a position act after the projector.

    Raises
    ------
    InputError
        If `k` exceeds the tokens of an image.
    UnsupportedError
        If the projector merges tokens, so that nothing can be dropped before it.
    """
    before = isinstance(params, KeepParams) and params.position == "before_projector"
    if before and context.projector.merge > 1:
        raise UnsupportedError(
            "compress", f"{method}:position=before_projector",
            f"position=after_projector: the projector of {context.model.name} joins neighbours",
        )  # fmt: skip
    width = sym("c")
    values: dict[Symbol, float] = {
        width: context.projector.in_features if before else context.model.text.hidden_size
    }
    kept: Expr = Integer(context.markers)
    kept_count = context.markers
    images = []
    for index, group in enumerate(context.images):
        units, tokens, remaining = (indexed(x, index, len(context.images)) for x in "umk")
        available = group.layout.projected if before else group.layout.features
        number = _kept(params, available, group, method)
        values |= {units: group.units, tokens: available, remaining: number}
        label = method if len(context.images) == 1 else f"{method}_{index}"
        images.append(SelectedImages(label, units, tokens, remaining, group.units, number))
        kept += units * remaining
        kept_count += group.units * number
    return Selection(tuple(images), width, values, kept, kept_count, before)


def _kept(params: BudgetParams, available: int, group: ImageGroup, method: str) -> int:
    if params.retention is not None:
        return max(1, round(params.retention * available))
    number = params.k or 0
    if number > available:
        what = "visual tokens" if group.units == 1 else "visual tokens of each image"
        raise InputError(
            f"compress {method} k", number, f"at most the {available} {what} before compression"
        )
    return number
