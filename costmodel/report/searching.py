"""What a search leaves of a table of results: JSON object, rows and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.report.records import SCHEMA_VERSION, plain
from costmodel.report.text import bullets, quantity, table
from costmodel.results import STAGES
from costmodel.search.results import Found

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["found_record", "found_rows", "found_tables"]

_MOST_ROWS = 20
_UNITS = (("_bytes", "B"), ("_flop", "FLOP"), ("_flops", "FLOP"), ("_s", "s"))
# In the files for machines; of the sources there is a note.
_DETAILS = ("score_sources", "host_overhead_s", *(f"{stage}_s" for stage in STAGES))
_FIRST = ("model", "gpu", "method")
_NAMED = 6


def found_rows(found: Found) -> list[dict[str, Any]]:
    """Return one row per point, missing values as None."""
    records = found.frame.to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in records]


def found_record(found: Found, question: dict[str, Any]) -> dict[str, Any]:
    """Return what was found as the JSON object of ``costmodel search``.

    Parameters
    ----------
    found : Found
        The rows.
    question : dict
        What was asked.

    Returns
    -------
    dict
        Keys ``schema_version``, ``inputs``, ``read``, ``met``, ``on_front``, ``without_value``,
        ``unscored`` and ``rows``.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": question,
        "read": found.read,
        "met": found.met,
        "on_front": found.on_front,
        "without_value": found.without_value,
        "unscored": [
            {"model": model, "method": method, "points": count}
            for (model, method), count in found.unscored.items()
        ],
        "rows": found_rows(found),
    }


def found_tables(found: Found, asked: Sequence[str] = ()) -> list[RenderableType]:
    """Return the first rows as a table for people, what all of them share above it.

    Parameters
    ----------
    found : Found
        The rows.
    asked : sequence of str
        Columns that the question names; they are shown even where all rows agree.
    """
    from rich.text import Text

    rows = found_rows(found)
    names = list(rows[0]) if rows else []
    # The same number in all rows is no column but a fact.
    same = [
        name for name in names
        if len(rows) > 1 and name not in asked and len({str(row[name]) for row in rows}) == 1
    ]  # fmt: skip
    hidden = {*same, *(name for name in _DETAILS if name not in asked)}
    shown = [name for name in names if name not in hidden and not name.startswith("__")]
    text = [name for name in shown if any(isinstance(row[name], str) for row in rows)]
    first = [*(name for name in _FIRST if name in text), *(n for n in text if n not in _FIRST)]
    shown = [*first, *(name for name in shown if name not in first)]
    kept = "" if found.on_front is None else f", {found.on_front:,} on the Pareto front"
    title = f"{found.met:,} of {found.read:,} points meet the constraints{kept}"
    shared = ", ".join(
        f"{name} {_cell(name, rows[0][name])}" for name in same if name not in _DETAILS
    )
    parts: list[RenderableType] = [Text(title, style="bold")]
    if shared:
        parts.append(Text(f"all: {shared}"))
    if rows:
        cells = ([_cell(name, row[name]) for name in shown] for row in rows[:_MOST_ROWS])
        heads = [name.replace("_", "\n") for name in shown]
        parts += ["", table(heads, cells, left=len(first), gap=1)]
    return [*parts, *bullets("Notes", _notes(found, len(rows)))]


def _notes(found: Found, count: int) -> list[str]:
    notes = []
    if count > _MOST_ROWS:
        notes.append(f"{count - _MOST_ROWS:,} more rows: --format csv or json holds all")
    if found.without_value:
        notes.append(f"{found.without_value:,} points without a value of an objective left out")
    if "score_low_pct" in found.frame:
        notes.append(
            "scores: percent of the vanilla score of the same source at exactly that number of "
            "tokens, lowest and highest source; parameters beside the number kept are not looked at"
        )
        sources = found.frame["score_sources"].dropna().unique()
        labels = dict.fromkeys(label for text in sources for label in str(text).split("; "))
        notes += [f"sources: {', '.join(labels)}"] if labels else []
    if found.unscored:
        names = [f"{method} on {model} ({count:,})" for (model, method), count
                 in sorted(found.unscored.items(), key=lambda item: -item[1])]  # fmt: skip
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        notes.append(
            f"{sum(found.unscored.values()):,} points without a published score: "
            f"{', '.join(names[:_NAMED])}{more}"
        )
    return notes


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, (str, bool, int, float)) else str(value)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    unit = next((unit for end, unit in _UNITS if name.endswith(end)), None)
    if unit is not None:
        return quantity(float(value), unit)
    number = plain(value)
    return f"{number:,}" if isinstance(number, int) else f"{number:,.3g}"
