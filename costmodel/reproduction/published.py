"""The published cost figures, as printed, with their sources."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

__all__ = ["Kind", "Published", "published_costs"]

Kind = Literal["formula", "measured", "other"]


@dataclass(frozen=True)
class Published:
    """One figure of a published table.

    Attributes
    ----------
    paper : str
        Name of the paper's module.
    source : str
        Table or page.
    method, model : str
        As published.
    tokens : int or None
        Visual tokens, as published; the mean over the layers for methods that drop tokens
        inside the language model.
    benchmark : str
        Data set of a measurement; empty for none.
    metric, unit : str
        What is printed.
    printed : str
        The figure as it is printed; its digits say how it was rounded.
    kind : {"formula", "measured", "other"}
        Computed, measured on hardware, or no cost.
    url : str
        Where the source is.
    """

    paper: str
    source: str
    method: str
    model: str
    tokens: int | None
    benchmark: str
    metric: str
    unit: str
    printed: str
    kind: Kind
    url: str = ""

    @property
    def value(self) -> float:
        """The figure as a number; ``min:s`` in seconds.

        Examples
        --------
        >>> Published("", "", "", "", None, "", "total time", "min:s", "6:34", "measured").value
        394.0
        """
        if self.unit == "min:s":
            minutes, _, seconds = self.printed.partition(":")
            return 60 * float(minutes) + float(seconds)
        return float(self.printed)

    @property
    def decimals(self) -> int:
        """Digits printed after the point."""
        return len(self.printed.partition(".")[2])


@cache
def published_costs() -> tuple[Published, ...]:
    """Return every published figure, in the order of the sources.

    Examples
    --------
    >>> published_costs()[0].printed
    '4.62'
    """
    path = files("costmodel.reproduction") / "data" / "published_costs.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(_row(row) for row in csv.DictReader(lines))


def _row(fields: dict[str, str]) -> Published:
    tokens = int(fields["tokens"]) if fields["tokens"] else None
    values: dict[str, Any] = {**fields, "tokens": tokens}
    return Published(**values)
