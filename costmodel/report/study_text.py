"""Findings of studies as text, JSON objects and CSV tables."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError
from costmodel.report.records import SCHEMA_VERSION, plain, to_csv
from costmodel.report.text import WIDTH, facts, table
from costmodel.studies.running import Outcome
from costmodel.studies.study import Finding, StudyTable, load_study

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "cell",
    "heading",
    "nth_table",
    "study_csv",
    "study_listing",
    "study_record",
    "study_tables",
    "versions",
]

_UNITS = {
    "ms": "ms", "us": "us", "s": "s", "h": "h", "pct": "%", "gb": "GB", "mb": "MB", "gib": "GiB",
    "mib": "MiB", "tflop": "TFLOP", "gflop": "GFLOP", "tmac": "TMAC", "gmac": "GMAC", "w": "W",
    "j": "J", "kwh": "kWh",
}  # fmt: skip

_HEADING = 7
"""Columns that a heading of the terminal may have, unless a word is longer."""


def heading(column: str) -> str:
    """Return the name of a column for people, its unit in brackets.

    Examples
    --------
    >>> heading("overhead_low_ms"), heading("peak_tflop_per_s"), heading("kept_tokens")
    ('overhead low [ms]', 'peak [TFLOP/s]', 'kept tokens')
    """
    words = column.split("_")
    for length in (3, 1):
        name, unit = words[:-length], _unit(words[-length:])
        if name and unit:
            return f"{' '.join(name)} [{unit}]"
    return " ".join(words)


def _unit(words: list[str]) -> str:
    """Return the unit that the last words of a column name spell, or nothing."""
    match words:
        case [one]:
            return _UNITS.get(one, "")
        case [first, "per", last] if first in _UNITS and last in _UNITS:
            return f"{_UNITS[first]}/{_UNITS[last]}"
    return ""


def cell(value: object) -> str:
    """Return a cell for people: three digits, or all before the point.

    Examples
    --------
    >>> cell(12345.678), cell(0.012345), cell(576), cell(None), cell(True), cell("a")
    ('12,346', '0.0123', '576', '-', 'yes', 'a')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:,.0f}" if 100 <= abs(value) < 1e12 else f"{value:.3g}"
    return str(value)


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    import platform
    from importlib.metadata import version

    names = ("costmodel", "numpy", "sympy")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}


def study_listing() -> list[dict[str, str]]:
    """Return name, title and question of every study."""
    from costmodel.studies.study import list_studies

    return [
        {"name": name, "title": study.title, "question": study.question}
        for name, study in ((name, load_study(name)) for name in list_studies())
    ]


def study_record(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the JSON object of ``costmodel study NAME``.

    Returns
    -------
    dict
        Keys ``schema_version``, ``name``, ``title``, ``question``, ``method``, ``answer``,
        ``uncertainty``, ``settings``, ``tables`` (title, columns, rows as objects), ``sources``,
        ``versions``, ``wall_s`` and ``problem``.  A number that is not finite is null.
    """
    finding = outcome.finding or Finding("", "", (), ())
    return {
        "schema_version": SCHEMA_VERSION,
        "name": outcome.name,
        "title": outcome.study.title,
        "question": outcome.study.question,
        "method": outcome.study.method,
        "answer": finding.answer,
        "uncertainty": finding.uncertainty,
        "settings": finding.settings,
        "tables": [
            {"title": one.title, "columns": list(one.columns), "rows": _objects(one)}
            for one in finding.tables
        ],
        "sources": list(outcome.study.sources),
        "versions": versions(),
        "wall_s": outcome.wall_s,
        "problem": outcome.problem,
    }


def _objects(found: StudyTable) -> list[dict[str, Any]]:
    return [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else plain(value)
            for name, value in zip(found.columns, row, strict=True)
        }
        for row in found.rows
    ]


def study_csv(found: StudyTable) -> str:
    """Return a table as CSV, with the columns as they are called in code."""
    rows = _objects(found)
    return to_csv(rows) if rows else ",".join(found.columns) + "\n"


def nth_table(outcome: Outcome, number: int) -> StudyTable:
    """Return a table of a study by its number from 1.

    Raises
    ------
    InputError
        If there are fewer.
    """
    found = outcome.finding.tables if outcome.finding is not None else ()
    if not 1 <= number <= len(found):
        titles = "; ".join(f"{i} {one.title}" for i, one in enumerate(found, start=1))
        raise InputError("table", number, f"a number of a table of {outcome.name}: {titles}")
    return found[number - 1]


def study_tables(outcome: Outcome) -> list[RenderableType]:
    """Return a study for the terminal: question, method, tables, answer, uncertainty."""
    from rich.text import Text

    study, finding = outcome.study, outcome.finding
    parts: list[RenderableType] = [
        Text(f"{study.title} ({outcome.name})", style="bold"), _paragraph(study.question), "",
        Text("Method", style="bold"), _paragraph(study.method),
    ]  # fmt: skip
    if finding is None:
        return [*parts, "", Text("Failed", style="bold"), _paragraph(outcome.problem)]
    parts += ["", facts(finding.settings.items())]
    for found in finding.tables:
        parts += ["", Text(found.title, style="bold"), _table(found)]
    parts += ["", Text("Answer", style="bold"), _paragraph(finding.answer)]
    parts += ["", Text("Uncertainty", style="bold"), _paragraph(finding.uncertainty)]
    if study.sources:
        parts += ["", facts([("Sources", ", ".join(study.sources))])]
    return parts


def _table(found: StudyTable) -> RenderableType:
    texts = [[cell(value) for value in row] for row in found.rows]
    words = _leading_words(found.rows)
    return table(_broken([heading(name) for name in found.columns]), texts, left=max(words, 1))


def _leading_words(rows: Sequence[Sequence[object]]) -> int:
    """How many columns from the left hold texts."""
    count = 0
    for column in zip(*rows, strict=True):
        if not all(isinstance(value, str) for value in column):
            break
        count += 1
    return count


def _broken(texts: Sequence[str]) -> list[str]:
    """Break headings into lines of the same number, so that columns of numbers stay narrow."""
    lines = [textwrap.wrap(text, _HEADING, break_long_words=False) or [""] for text in texts]
    most = max(map(len, lines), default=1)
    return ["\n".join([""] * (most - len(found)) + found) for found in lines]


def _paragraph(text: str) -> RenderableType:
    """Return a text in lines that are not as wide as a wide table."""
    from rich.text import Text

    return Text(textwrap.fill(text, WIDTH, break_on_hyphens=False))
