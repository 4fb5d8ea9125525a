"""Published figures beside ours: the JSON object, rows and tables of ``reproduce``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from costmodel.report.records import SCHEMA_VERSION
from costmodel.report.text import bullets, facts, table
from costmodel.reproduction import Reproduction, load_paper, summary

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "LEGEND",
    "figure",
    "headline",
    "reproduction_record",
    "reproduction_rows",
    "reproduction_tables",
    "verdict_text",
]


def reproduction_record(rows: Sequence[Reproduction]) -> dict[str, Any]:
    """Return figures as the JSON object of ``costmodel reproduce``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``summary`` and ``rows``.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "summary": asdict(summary(rows)),
        "rows": reproduction_rows(rows),
    }


def reproduction_rows(rows: Iterable[Reproduction]) -> list[dict[str, Any]]:
    """Return one row per figure; ``theirs``, ``ours`` and the band in the unit ``unit``.

    A ``min:s`` counts in seconds.
    """
    found = []
    for row in rows:
        low, high = row.band or (None, None)
        theirs = row.published
        found.append(
            {
                "paper": theirs.paper,
                "source": theirs.source,
                "method": theirs.method,
                "model": theirs.model,
                "tokens": theirs.tokens,
                "benchmark": theirs.benchmark,
                "metric": theirs.metric,
                "unit": "s" if theirs.unit == "min:s" else theirs.unit,
                "kind": theirs.kind,
                "printed": theirs.printed,
                "theirs": theirs.value,
                "ours": row.ours,
                "low": low,
                "high": high,
                "ratio": row.ratio,
                "rounds": row.rounds,
                "verdict": row.verdict,
                "reason": row.reason,
                "how": row.how,
                "url": theirs.url,
            }
        )
    return found


def figure(row: Reproduction) -> str:
    """Return our figure with one digit more than the printed one, or with its band.

    Examples
    --------
    >>> from costmodel.reproduction import reproduce
    >>> figure(reproduce("pyramiddrop")[1])
    '20.83'
    """
    if row.ours is None:
        return "-"
    if row.band is not None:
        low, high = row.band
        return f"{row.ours:.3g} ({low:.3g} to {high:.3g})"
    return f"{row.ours:.{max(1, row.published.decimals + 1)}f}"


def verdict_text(row: Reproduction) -> str:
    """Return the verdict in a few words, for tables whose heads explain them."""
    if row.verdict == "reproduced":
        return "reproduced" if row.rounds else "within 1 %"
    if row.inside is not None:
        return "in band" if row.inside else "out of band"
    return row.verdict


def headline(rows: Sequence[Reproduction]) -> str:
    """Return the counts in a sentence.

    Examples
    --------
    >>> from costmodel.reproduction import reproduce
    >>> headline(reproduce("m3"))
    'Computed figures: 18 of 20 reproduced (90.0 %), 17 of them to the last printed digit.'
    """
    count = summary(rows)
    parts = []
    if count.formula:
        share = f"{100 * count.reproduced / count.formula:.1f} %"
        parts.append(
            f"Computed figures: {count.reproduced} of {count.formula} reproduced ({share}), "
            f"{count.rounds} of them to the last printed digit."
        )
    if count.measured:
        parts.append(
            f"Measured figures: {count.measured}; {count.inside} of {count.predicted} predicted "
            "times lie inside our 90 % band."
        )
    if count.other:
        parts.append(f"No cost quantities: {count.other}.")
    return " ".join(parts)


def reproduction_tables(rows: Sequence[Reproduction]) -> list[RenderableType]:
    """Return one table per source, with its rule and the reasons of what differs.

    Parameters
    ----------
    rows : sequence of Reproduction
        In the order of the sources.

    Returns
    -------
    list of rich renderables
    """
    from rich.text import Text

    parts: list[RenderableType] = [Text(headline(rows), style="bold"), "", Text(LEGEND)]
    for source, group in groupby(rows, key=lambda row: row.published.source):
        found = list(group)
        paper = load_paper(found[0].published.paper)
        parts += ["", Text(source, style="bold"), Text(found[0].published.url)]
        if paper.rule and any(row.published.kind == "formula" for row in found):
            parts.append(facts([("Rule", paper.rule)]))
        parts += ["", table(_HEADER, (_cells(row) for row in found), left=3, least=13)]
        parts += bullets("What differs or has no prediction, and why", _reasons(found))
    return parts


LEGEND = (
    "Reproduced: ours rounds to the printed figure; or it is within 1 %, which counts too. "
    "Measured: our prediction with the runtime eager, its 90 % band for any lab and software, and "
    "whether the measurement is in the band."
)
"""What the verdicts mean."""

_HEADER = ("method", "model", "metric", "tokens", "theirs", "ours (band)", "ratio", "verdict")


def _cells(row: Reproduction) -> tuple[str, ...]:
    theirs = row.published
    return (
        theirs.method,
        theirs.model,
        f"{theirs.metric} [{theirs.unit}]",
        "" if theirs.tokens is None else f"{theirs.tokens:,}",
        theirs.printed,
        figure(row),
        "-" if row.ratio is None else f"{row.ratio:.3f}",
        verdict_text(row),
    )


def _reasons(rows: Iterable[Reproduction]) -> list[str]:
    found: dict[str, list[str]] = {}
    for row in rows:
        theirs = row.published
        if theirs.kind == "formula" and not row.rounds:
            off, _, because = ("", "", row.reason)
            if row.ours is not None:
                off, _, because = row.reason.partition("; ")
            # What is within 1 % needs no line unless its paper has a word on it.
            if row.verdict == "differs" or because:
                name = f"{theirs.method} {theirs.tokens or ''} {theirs.metric} {theirs.printed}"
                name += f" ({off})" if off else ""
                found.setdefault(because, []).append(" ".join(name.split()))
        elif row.verdict == "measured" and row.ours is None:
            found.setdefault(row.reason, []).append(f"{theirs.method} {theirs.metric}")
    return [f"{', '.join(dict.fromkeys(names))}: {because}" for because, names in found.items()]
