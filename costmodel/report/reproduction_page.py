"""Published figures beside ours as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from costmodel.report.reproduction import LEGEND, figure, headline, verdict_text
from costmodel.reproduction import Reproduction, load_paper

__all__ = ["reproduction_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0; max-width: 62rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-top: .6rem; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
  vertical-align: top; }
th { border-bottom: 2px solid #888; }
td.text, th.text { text-align: left; }
td.why { text-align: left; min-width: 18rem; color: #444; }
.reproduced td.verdict { color: #00694d; } .differs td.verdict { color: #b03a00; font-weight: 600; }
.measured td.verdict { color: #005b94; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #16181b; } td.why { color: #bbb; }
  th, td { border-color: #3a3d42; } a { color: #7cc0ff; }
  .reproduced td.verdict { color: #4cc9a0; } .differs td.verdict { color: #ff9a6b; }
  .measured td.verdict { color: #7cc0ff; } }
"""

_COLUMNS = (
    ("method", True), ("model", True), ("tokens", False), ("metric", True), ("theirs", False),
    ("ours (band)", False), ("ratio", False), ("verdict", True), ("how, and why", True),
)  # fmt: skip


def reproduction_page(rows: Sequence[Reproduction]) -> str:
    """Return the page: counts, then one table per source.

    Parameters
    ----------
    rows : sequence of Reproduction
        In the order of the sources.

    Returns
    -------
    str
        HTML without scripts or anything fetched.
    """
    body = [
        "<h1>Published cost figures, computed again</h1>",
        f"<p><strong>{escape(headline(rows))}</strong></p>",
        f"<p>{escape(LEGEND)}</p>",
    ]
    for _, group in groupby(rows, key=lambda row: row.published.source):
        body += _section(list(group))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Published cost figures, computed again</title>\n<style>{_STYLE}</style>\n"
        "</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _section(rows: Sequence[Reproduction]) -> Iterable[str]:
    paper = load_paper(rows[0].published.paper)
    yield f"<h2>{escape(rows[0].published.source)}</h2>"
    url = escape(rows[0].published.url)
    yield f'<p>{escape(paper.title)}, <a href="{url}">{url}</a></p>'
    if paper.rule and any(row.published.kind == "formula" for row in rows):
        yield f"<p>Rule: {escape(paper.rule)}</p>"
    heads = "".join(f"<th{_text(left)}>{escape(name)}</th>" for name, left in _COLUMNS)
    yield f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>'
    yield from (_row(row) for row in rows)
    yield "</tbody></table></div>"


def _row(row: Reproduction) -> str:
    theirs = row.published
    why = ". ".join(part for part in (row.how, row.reason) if part)
    cells = (
        (theirs.method, "text"),
        (theirs.model, "text"),
        ("" if theirs.tokens is None else f"{theirs.tokens:,}", ""),
        (f"{theirs.metric} [{theirs.unit}]", "text"),
        (theirs.printed, ""),
        (figure(row), ""),
        ("-" if row.ratio is None else f"{row.ratio:.3f}", ""),
        (verdict_text(row), "text verdict"),
        (why, "why"),
    )
    made = "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in cells)
    return f'<tr class="{row.verdict.partition(" ")[0]}">{made}</tr>'


def _text(left: bool) -> str:
    return ' class="text"' if left else ""
