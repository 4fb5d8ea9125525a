"""Studies as one HTML page that needs nothing else: texts, pictures and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from costmodel.charts import Picture
from costmodel.report.chart_drawing import draw
from costmodel.report.study_text import cell, heading, versions
from costmodel.studies.running import Outcome
from costmodel.studies.study import StudyTable

__all__ = ["study_page"]

_WORD = 32
_HEADLINE = 250
"""Characters of a cell that stays on one line, and of a sentence that is printed bold."""

_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
  padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.35rem; margin: 3.2rem 0 .3rem;
  border-top: 2px solid #ddd; padding-top: 1.2rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p { margin: .4rem 0; max-width: 54rem; }
.question { font-size: 1.12rem; font-style: italic; }
.answer { border-left: 4px solid #0072B2; padding: .2rem 1rem; margin: 1rem 0;
  background: #f2f7fb; }
.answer p { max-width: 60rem; }
.failed { border-left: 4px solid #D55E00; padding: .2rem 1rem; }
.note, .settings { color: #555; font-size: .9rem; }
figure { margin: 1.2rem 0; overflow-x: auto; }
.scroll { overflow: auto; max-height: 26rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #e2e2e2; text-align: right;
  vertical-align: top; }
th { border-bottom: 2px solid #888; position: sticky; top: 0; background: #fff;
  vertical-align: bottom; max-width: 8rem; }
td.text, th.text { text-align: left; }
td.text { max-width: 32rem; } td.word { white-space: nowrap; }
ol.contents li { margin: .25rem 0; }
@media print { .scroll { max-height: none; overflow: visible; } h2 { break-before: page; }
  th { position: static; } }
"""


def study_page(outcomes: Sequence[Outcome], title: str) -> str:
    """Return a page of one or several studies.

    Parameters
    ----------
    outcomes : sequence of Outcome
        In the order of the page; of several there is a list of contents.
    title : str
        Heading of the page; that of a single study is its own.

    Returns
    -------
    str
        HTML with the plotting library once, so that it opens without a network.
    """
    from plotly.offline import get_plotlyjs

    body: list[str] = [f"<h1>{escape(title)}</h1>"]
    if len(outcomes) > 1:
        body += _contents(outcomes)
    for outcome in outcomes:
        body += _section(outcome, alone=len(outcomes) == 1)
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    body.append(f'<p class="note">Computed with {escape(used)}.</p>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n"
        "</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _contents(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield '<ol class="contents">'
    for outcome in outcomes:
        failed = "" if outcome.finding is not None else " <strong>(failed)</strong>"
        yield (
            f'<li><a href="#{escape(outcome.name)}">{escape(outcome.study.title)}</a>: '
            f"{escape(outcome.study.question)}{failed}</li>"
        )
    yield "</ol>"


def _section(outcome: Outcome, *, alone: bool) -> Iterator[str]:
    study, finding = outcome.study, outcome.finding
    if not alone:
        yield f'<h2 id="{escape(outcome.name)}">{escape(study.title)}</h2>'
    yield f'<p class="question">{escape(study.question)}</p>'
    if finding is None:
        yield f'<div class="failed"><p>This study failed: {escape(outcome.problem)}</p></div>'
        return
    first, rest = _headline(finding.answer)
    bold = f"<strong>{escape(first)}</strong> " if first else ""
    yield f'<div class="answer"><p>{bold}{escape(rest)}</p></div>'
    yield f"<h3>Uncertainty</h3><p>{escape(finding.uncertainty)}</p>"
    yield f"<h3>Method</h3><p>{escape(study.method)}</p>"
    chosen = "; ".join(f"{name}: {value}" for name, value in finding.settings.items())
    yield f'<p class="settings">Settings: {escape(chosen)}. '
    yield f"Command: <code>costmodel study {escape(outcome.name)}</code>, "
    yield f"{outcome.wall_s:.1f} s.</p>"
    for index, picture in enumerate(finding.pictures):
        yield f"<figure>{_figure(picture, f'{outcome.name}-{index}')}</figure>"
    for found in finding.tables:
        yield f"<h3>{escape(found.title)}</h3>"
        yield from _table(found)
    if study.sources:
        links = ", ".join(_link(source) for source in study.sources)
        yield f'<p class="note">Sources: {links}</p>'


def _headline(answer: str) -> tuple[str, str]:
    """Split an answer after its first sentence, unless that is long; numbers have no blanks."""
    first, found, rest = answer.partition(". ")
    return (f"{first}.", rest) if found and len(first) <= _HEADLINE else ("", answer)


def _figure(picture: Picture, name: str) -> str:
    figure = draw(picture)
    # Without a height of its own a figure would take that of the window, which a page has not.
    if figure.layout.height is None:
        figure.update_layout(height=520)
    made: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name,
        config={"displaylogo": False, "responsive": True},
    )  # fmt: skip
    return made


def _table(found: StudyTable) -> Iterable[str]:
    texts = [
        all(isinstance(value, str | None) for value in column) and any(column)
        for column in zip(*found.rows, strict=True)
    ] or [True] * len(found.columns)
    heads = "".join(
        f"<th{_left(text)}>{escape(heading(name))}</th>"
        for name, text in zip(found.columns, texts, strict=True)
    )
    yield f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>'
    for row in found.rows:
        cells = "".join(
            f"<td{_kind(value) if text else ''}>{escape(cell(value))}</td>"
            for value, text in zip(row, texts, strict=True)
        )
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"


def _left(text: bool) -> str:
    return ' class="text"' if text else ""


def _kind(value: object) -> str:
    """Short texts are not broken."""
    return ' class="text word"' if len(cell(value)) <= _WORD else ' class="text"'


def _link(source: str) -> str:
    shown = escape(source)
    return f'<a href="{shown}">{shown}</a>' if source.startswith("http") else shown
