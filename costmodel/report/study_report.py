"""All studies as a folder: one page, and every table as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from costmodel.errors import InputError
from costmodel.files import write_text
from costmodel.report.study_page import study_page
from costmodel.report.study_text import study_csv
from costmodel.studies.running import Outcome

__all__ = ["check_folder", "write_report"]


def check_folder(path: str | os.PathLike[str] | None) -> Path:
    """Return a folder that can be written, made if it is missing.

    Raises
    ------
    InputError
        If there is no path, it is a file, or the system refuses.
    """
    expected = "a folder for index.html and the tables, for example report/"
    if path is None or not os.fspath(path):
        raise InputError("output", path, expected)
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise InputError("output", os.fspath(path), f"{expected} ({reason})") from None
    if not os.access(folder, os.W_OK):
        raise InputError("output", os.fspath(path), "a folder that may be written")
    return folder


def write_report(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Write ``index.html`` and ``NAME.csv``, ``NAME-2.csv`` ... of every study.

    Parameters
    ----------
    outcomes : sequence of Outcome
        In the order of the page.
    folder : Path
        From `check_folder`.

    Returns
    -------
    Path
        Of the page.
    """
    for outcome in outcomes:
        tables = outcome.finding.tables if outcome.finding is not None else ()
        for index, found in enumerate(tables, start=1):
            number = f"-{index}" if index > 1 else ""
            write_text(folder / f"{outcome.name}{number}.csv", study_csv(found))
    page = folder / "index.html"
    write_text(page, study_page(outcomes, "Studies of visual-token compression"))
    return page
