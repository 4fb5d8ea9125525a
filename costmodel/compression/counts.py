"""Token counts that the image decides: their distribution, and the longest of a batch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from sympy import Expr, Float, Min, ceiling, log, sqrt

from costmodel.compression.plan import TokenCount
from costmodel.specs.base import Spec
from costmodel.symbols import sym

__all__ = ["AtParams", "evaluated_count", "longest_of_batch", "normal_count", "spread_note"]

_Z95 = 1.6448536269514722
"""95th percentile of a standard normal variable."""

_GROWTH = 0.94
"""Fitted to the expected largest of 1 to 1000 normal values, within 1.1 %."""


class AtParams(Spec):
    """Which count of the distribution FLOPs, bytes, times and memory are worked out for."""

    at: Literal["mean", "p50", "p95"] = Field(
        default="mean", description="count that costs are worked out for"
    )


def normal_count(mean: float, deviation: float, most: int) -> TokenCount:
    """Return a normal distribution of counts, cut at 1 and at `most`.

    Examples
    --------
    >>> normal_count(89, 27, 576)
    TokenCount(mean=89, p50=89, p95=133)
    """
    middle = min(max(round(mean), 1), most)
    return TokenCount(middle, middle, min(round(mean + _Z95 * deviation), most))


def evaluated_count(count: TokenCount, at: str) -> int:
    """Return the mean, median or 95th percentile of a count."""
    return int(getattr(count, at))


def longest_of_batch(count: Expr, most: Expr, deviation: Expr) -> Expr:
    r"""Return the expected longest of b requests whose lengths are normally distributed.

    .. math:: \min\left(m, k + \left\lceil \sigma
              \frac{a \ln b}{\sqrt{1 + a^2 \ln(b) / 2}} \right\rceil\right)

    The fraction approximates the expected largest of b standard normal values: zero
    for one, and the known limit :math:`\sqrt{2 \ln b}` for many.

    Parameters
    ----------
    count, most : Expr
        Mean length of a sequence, and its limit [tokens].
    deviation : Expr
        Standard deviation of the length [tokens].
    """
    growth = Float(_GROWTH)
    logarithm = log(sym("b"))
    largest = growth * logarithm / sqrt(1 + growth**2 * logarithm / 2)
    return Min(most, count + ceiling(deviation * largest))


def spread_note(count: TokenCount, at: str) -> str:
    """Return the note that says what the costs are for.

    Examples
    --------
    >>> spread_note(TokenCount(89, 89, 133), "mean")
    'the image decides how many tokens remain: mean 89, half of the images up to 89, 95 % up to \
133; FLOPs, bytes, times and memory are those of 89 (at=mean)'
    """
    return (
        f"the image decides how many tokens remain: mean {count.mean:g}, half of the images up to "
        f"{count.p50:g}, 95 % up to {count.p95:g}; FLOPs, bytes, times and memory are those of "
        f"{evaluated_count(count, at)} (at={at})"
    )
