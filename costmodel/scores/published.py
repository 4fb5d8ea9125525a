"""The published benchmark scores, as printed, with their sources."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from costmodel.scores.names import Names, load_names

__all__ = ["AVERAGES", "Metric", "Score", "published_scores"]

Metric = Literal["score", "rel_pct"]

AVERAGES = {"avg": False, "avg11": True, "avg_pct": True, "avg_retention_pct": False}
"""Columns that are averages of a source, and whether they are percent of its vanilla model.

``avg`` means points of raw scores, or percent where the metric is ``rel_pct``.
``avg_retention_pct`` counts from the score without an image, so it is no percentage of the
vanilla score and is never shown as one.
"""


@dataclass(frozen=True)
class Score:
    """One figure of a published table.

    Attributes
    ----------
    source : str
        Table or page; of which paper or repository.
    label : str
        The same in short.
    url : str
        Where the source is.
    seen : str
        What was read instead of the source; empty where it was the source.
    published_method, published_model : str
        As the source calls them.
    method, model : str or None
        As this library calls them; None for what it does not model.
    variant : str
        Another training or other parameters than the plain method; empty for the plain one.
    tokens : int or None
        Visual tokens, as published; the mean over the layers for methods that drop tokens
        inside the language model.  None where the source states none.
    retention : float or None
        The share of the vanilla model's visual tokens, as published.
    benchmark : str
        Data set, or a name in `AVERAGES`.
    metric : {"score", "rel_pct"}
        Points of the benchmark, or percent of the vanilla model.
    printed : str
        The figure as it is printed.
    vanilla : float or None
        Points of the vanilla model on this benchmark in the same source.
    """

    source: str
    label: str
    url: str
    seen: str
    published_method: str
    published_model: str
    method: str | None
    model: str | None
    variant: str
    tokens: int | None
    retention: float | None
    benchmark: str
    metric: Metric
    printed: str
    vanilla: float | None = None

    @property
    def value(self) -> float | None:
        """The figure as a number; None where the source gives a range only."""
        return _number(self.printed)

    @property
    def is_average(self) -> bool:
        """Whether it is a source's average and no benchmark."""
        return self.benchmark in AVERAGES

    @property
    def relative_pct(self) -> float | None:
        """Percent of the vanilla model's score in the same source; None without one.

        An average that is printed as percent of the vanilla model is itself.
        """
        if self.metric == "rel_pct" or AVERAGES.get(self.benchmark):
            return self.value
        if self.is_average or self.value is None or not self.vanilla:
            return None
        return 100 * self.value / self.vanilla


@cache
def published_scores() -> tuple[Score, ...]:
    """Return every published score, in the order of the sources.

    Examples
    --------
    >>> first = published_scores()[0]
    >>> first.benchmark, first.printed, first.method, first.relative_pct
    ('VQAv2', '78.5', 'none', 100.0)
    """
    path = files("costmodel.scores") / "data" / "published_scores.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    names = load_names()
    vanilla = {
        _place(row): _number(row["printed"])
        for row in rows
        if names.method(row["source"], row["method"]) == ("none", "")
    }
    return tuple(_score(row, names, vanilla.get(_place(row))) for row in rows)


def _place(row: dict[str, str]) -> tuple[str, str, str]:
    return row["source"], row["model"], row["benchmark"]


def _score(row: dict[str, str], names: Names, vanilla: float | None) -> Score:
    method, variant = names.method(row["source"], row["method"])
    source = names.sources[row["source"]]
    metric: Metric = "rel_pct" if row["metric"] == "rel_pct" else "score"
    return Score(
        source=row["source"],
        label=source.label,
        url=source.url,
        seen=source.seen,
        published_method=row["method"],
        published_model=row["model"],
        method=method,
        model=names.models.get(row["model"]),
        variant=variant,
        tokens=int(row["tokens"]) if row["tokens"] else None,
        retention=_number(row["retention"]),
        benchmark=row["benchmark"],
        metric=metric,
        printed=row["printed"],
        vanilla=vanilla,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
