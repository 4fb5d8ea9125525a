"""Write docs/studies.md from the studies themselves.

Run ``python docs/generate_studies.py`` after a change to a study or a calibration (a minute); a
test compares.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

from costmodel.studies.running import Outcome, run_study
from costmodel.studies.study import list_studies

__all__ = ["TARGET", "page", "section"]

TARGET = Path(__file__).with_name("studies.md")
_INTRODUCTION = """\
<!-- Written by docs/generate_studies.py; a test fails when it is stale. -->
# Studies

A study is a question with an answer that is computed: tables, pictures, a paragraph, and how sure
it is. All numbers are predictions with the default settings unless an answer says otherwise.

```bash
costmodel study list
costmodel study clustering-overhead
costmodel study end-to-end --gpu h100-sxm --runtime eager -o end-to-end.html
costmodel study all -o report/
```

The last command writes `report/index.html`, which opens without a network, and every table as
CSV. `--format json` has everything but the pictures. A new study is one module in
`costmodel/studies/named/` with a `STUDY`; it describes pictures with `costmodel.charts`.

"""


def page(outcomes: Iterable[Outcome]) -> str:
    """Return the page of studies that ran.

    Parameters
    ----------
    outcomes : iterable of Outcome
        In the order of the page.

    Returns
    -------
    str
        Markdown.
    """
    found = list(outcomes)
    rows = [f"| [`{one.name}`](#{one.name}) | {one.study.question} |" for one in found]
    listing = "\n".join(["| Study | Question |", "| --- | --- |", *rows])
    return _INTRODUCTION + listing + "\n" + "".join(map(section, found))


def section(outcome: Outcome) -> str:
    """Return the part of the page on one study."""
    if outcome.finding is None:
        raise ValueError(f"{outcome.name}: {outcome.problem}")
    study, finding = outcome.study, outcome.finding
    chosen = "; ".join(f"{name}: {value}" for name, value in finding.settings.items())
    parts = [
        f"## {outcome.name}",
        f"**{study.question}**",
        _wrapped(finding.answer),
        _wrapped(f"*How:* {study.method}"),
        _wrapped(f"*How sure:* {finding.uncertainty}"),
        _wrapped(f"Settings: {chosen}."),
    ]
    return "\n" + "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    # A hyphen at the end of a line would split names of studies and GPUs.
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False)


def main() -> None:
    """Run every study and write the page."""
    TARGET.write_text(page(run_study(name) for name in list_studies()), encoding="utf-8")


if __name__ == "__main__":
    main()
