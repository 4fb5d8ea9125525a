"""Pictures of a table of results: which rows are read, and which kind describes them."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.charts import Picture
from costmodel.errors import InputError
from costmodel.report.picture_kinds import load_kind
from costmodel.report.pictures.scatter import describe_columns
from costmodel.report.result_table import read_results

__all__ = ["picture_of_results"]

_SCATTER = {"x": "flops_total_flop", "y": "ttft_s", "colour": "method"}


def picture_of_results(
    path: str,
    kind: str | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    colour: str | None = None,
    where: Sequence[str] = (),
) -> Picture:
    """Return a picture of a table of results.

    Parameters
    ----------
    path : str
        Parquet or CSV file of ``costmodel sweep``.
    kind : str, optional
        A key of ``list_kinds("results")``; by default ``scatter`` where a column is named, else
        ``ttft-tokens``.
    x, y, colour : str, optional
        Columns of ``scatter``.
    where : sequence of str
        Conditions on rows, for example ``batch<=8``.

    Returns
    -------
    Picture

    Raises
    ------
    CostModelError
        If the table, a column, the kind or a condition is not valid.
    """
    named = {name: value for name, value in (("x", x), ("y", y), ("colour", colour)) if value}
    kind = kind or ("scatter" if named else "ttft-tokens")
    drawn = load_kind(kind, "results").of_results
    if kind != "scatter" and named:
        raise InputError("kind", kind, f"scatter, whose {' and '.join(named)} can be chosen")
    if kind == "scatter":
        columns = _SCATTER | named
        found = read_results(path, (columns["x"], columns["y"]), None, where, (columns["colour"],))
        return describe_columns(found.frame, found.note, **columns)
    if drawn is None:
        raise InputError("kind", kind, "a kind that is drawn from results")
    found = read_results(path, drawn.needs, drawn.shows, where)
    return drawn.describe(found.frame, found.note)
