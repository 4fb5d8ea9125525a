"""``costmodel search``: points of a table of results that meet constraints."""

from __future__ import annotations

from typing import Any

import rich_click as click

from .options import OUTPUT, WHOLE, format_option, split
from .output import check, emit, table_text

__all__ = ["command"]


@click.command("search")
@click.argument("results", metavar="RESULTS")
@click.option(
    "--where", metavar="CONSTRAINT", multiple=True,
    help="COLUMN, one of <= >= < > == != and a number, with a unit if you like, or a name: "
    "'ttft_s <= 100ms', 'method == cluster'; repeat for several, which all have to hold.",
)  # fmt: skip
@click.option(
    "--pareto", metavar="COLUMN[:max],...", multiple=True,
    help="Points that no other beats in all of these; less is better unless :max.",
)  # fmt: skip
@click.option(
    "--sort", metavar="COLUMN[:max]", help="Order of the points. Default: the first objective.",
)  # fmt: skip
@click.option("--limit", type=WHOLE, metavar="N", help="Points at most.")
@click.option(
    "--scores", is_flag=True,
    help="Join published scores, as where score is named in a constraint or objective.",
)  # fmt: skip
@format_option("table", "json", "csv")
@OUTPUT
def command(
    results: str,
    where: tuple[str, ...],
    pareto: tuple[str, ...],
    sort: str | None,
    limit: Any,
    scores: bool,
    form: str,
    output: str | None,
) -> None:
    """Find the points of a table of results that meet constraints, or that nothing beats.

    RESULTS is a parquet or CSV file of costmodel sweep; it is read in parts.  The column score is
    the lowest of the published scores of a method at that number of tokens, in percent of the
    vanilla model; a point without one meets no constraint on it.

    Example: costmodel search results.parquet --where "ttft_s <= 100ms"
    --where "memory_total_bytes <= 48GB" --pareto ttft_s,kv_cache_bytes,score:max
    """
    check(output)
    from costmodel.report import searching as report
    from costmodel.report.records import to_csv, to_json
    from costmodel.search.constraints import ALIASES
    from costmodel.search.results import read_batches, search_results

    objectives = split(pareto)
    found = search_results(
        read_batches(results), where=where, pareto=objectives, sort=sort, limit=limit,
        scores=scores,
    )  # fmt: skip
    if form == "json":
        question = {
            "results": results, "where": list(where), "pareto": objectives, "sort": sort,
            "limit": limit,
        }  # fmt: skip
        emit(to_json(report.found_record(found, question)), output)
    elif form == "csv":
        emit(to_csv(report.found_rows(found)), output)
    else:
        named = [text.partition(":")[0] for text in (*objectives, *([sort] if sort else []))]
        shown = [ALIASES.get(name, name) for name in named]
        emit(table_text(report.found_tables(found, shown), output), output)
