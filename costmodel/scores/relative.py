"""Scores as percent of the vanilla model: one figure per source, never one over sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from costmodel.scores.published import Score

__all__ = ["ScoreRange", "SourceScore", "by_source", "score_range"]


@dataclass(frozen=True)
class SourceScore:
    """What one source says about a method, over its benchmarks.

    Attributes
    ----------
    source, label, url, seen : str
        As in `Score`.
    published_method, published_model, variant : str
        As in `Score`.
    tokens : int or None
        Visual tokens, as published.
    relative_pct : float or None
        Mean over the benchmarks of the score in percent of the source's vanilla model; None
        where the source has neither a vanilla model nor a printed average.
    basis : {"computed", "printed", "none"}
        Computed here from scores and vanilla scores, or the average that the source prints.
    printed_pct : float or None
        The average that the source prints, beside a computed one too.
    benchmarks : tuple of str
        The benchmarks of the mean, or those that the source lists.
    """

    source: str
    label: str
    url: str
    seen: str
    published_method: str
    published_model: str
    variant: str
    tokens: int | None
    relative_pct: float | None
    basis: Literal["computed", "printed", "none"]
    printed_pct: float | None
    benchmarks: tuple[str, ...]


@dataclass(frozen=True)
class ScoreRange:
    """The lowest and the highest figure over sources.

    Attributes
    ----------
    low_pct, high_pct : float
        Percent of the vanilla score, of two sources, or of one.
    sources : int
        How many have a figure.
    """

    low_pct: float
    high_pct: float
    sources: int

    @property
    def span(self) -> str:
        """The range without its sources, in percent."""
        low, high = f"{self.low_pct:.1f}", f"{self.high_pct:.1f}"
        return low if low == high else f"{low}-{high}"

    def __str__(self) -> str:
        """Return the range for people.

        Examples
        --------
        >>> print(ScoreRange(96.13, 98.27, 3))
        96.1-98.3 % (3 sources)
        >>> print(ScoreRange(97.0, 97.0, 1))
        97.0 % (1 source)
        """
        return f"{self.span} % ({self.sources} source{'s' * (self.sources != 1)})"


def by_source(rows: Iterable[Score]) -> list[SourceScore]:
    r"""Return one figure per source, published name and number of tokens.

    .. math:: s = \frac{100}{B} \sum_{b=1}^{B} \frac{x_b}{x_b^\mathrm{vanilla}}

    Parameters
    ----------
    rows : iterable of Score
        Scores of any methods.

    Returns
    -------
    list of SourceScore
        In the order of `rows`, the plain method before its variants.
    """
    groups: dict[tuple[str, str, str, int | None], list[Score]] = {}
    for row in rows:
        key = (row.source, row.published_method, row.published_model, row.tokens)
        groups.setdefault(key, []).append(row)
    return sorted((_joined(group) for group in groups.values()), key=lambda one: one.variant != "")


def score_range(scores: Iterable[SourceScore]) -> ScoreRange | None:
    """Return the range over sources; None where no source has a figure.

    Parameters
    ----------
    scores : iterable of SourceScore
        Of one variant of one method: variants are no conflict between sources.

    Examples
    --------
    >>> from costmodel.scores import scores_for
    >>> plain = [row for row in scores_for("divprune", "llava-1.5-7b", 64) if not row.variant]
    >>> print(score_range(by_source(plain)))
    94.8 % (1 source)
    """
    found = [one.relative_pct for one in scores if one.relative_pct is not None]
    return ScoreRange(min(found), max(found), len(found)) if found else None


def _joined(rows: list[Score]) -> SourceScore:
    first = rows[0]
    single = [row for row in rows if not row.is_average]
    relative = {row.benchmark: row.relative_pct for row in single if row.relative_pct is not None}
    averages = [row.relative_pct for row in rows if row.is_average]
    printed = next((value for value in averages if value is not None), None)
    basis: Literal["computed", "printed", "none"] = (
        "computed" if relative else "none" if printed is None else "printed"
    )
    return SourceScore(
        source=first.source,
        label=first.label,
        url=first.url,
        seen=first.seen,
        published_method=first.published_method,
        published_model=first.published_model,
        variant=first.variant,
        tokens=first.tokens,
        relative_pct=fmean(relative.values()) if relative else printed,
        basis=basis,
        printed_pct=printed,
        benchmarks=tuple(relative) or tuple(row.benchmark for row in single),
    )
