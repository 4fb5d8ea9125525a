"""What a study is: a question, how it was answered, tables, pictures, and the answer."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.charts import Picture
from costmodel.errors import UnknownNameError

__all__ = ["Finding", "Study", "StudyTable", "list_studies", "load_study"]

Cell = str | int | float | bool | None
Progress = Callable[[str, int, int], None]
"""Called with what is being computed, its number from 0, and how many there are."""


@dataclass(frozen=True)
class StudyTable:
    """A table of results.

    Attributes
    ----------
    title : str
    columns : tuple of str
        Names with units, for example ``ttft_ms``.
    rows : tuple of tuple
        Texts and numbers; None where there is no value.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, title: str, records: Sequence[Mapping[str, Cell]]) -> StudyTable:
        """Return a table of records that have the same keys.

        Examples
        --------
        >>> StudyTable.of("t", [{"gpu": "a40", "ttft_ms": 1.5}]).rows
        (('a40', 1.5),)
        """
        columns = tuple(records[0]) if records else ()
        return cls(title, columns, tuple(tuple(row[name] for name in columns) for row in records))


@dataclass(frozen=True)
class Finding:
    """What a study found.

    Attributes
    ----------
    answer : str
        One paragraph that answers the question, with its figures taken from the tables.
    uncertainty : str
        How sure that is: bands, assumptions, what was not measured.
    tables : tuple of StudyTable
    pictures : tuple of Picture
    settings : dict of str to str
        What was asked: model, GPUs, workload, runtime.
    """

    answer: str
    uncertainty: str
    tables: tuple[StudyTable, ...]
    pictures: tuple[Picture, ...]
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One study; a module of `costmodel.studies.named` has one by the name ``STUDY``.

    Attributes
    ----------
    title : str
        A few words.
    question : str
        One sentence with a question mark.
    method : str
        How it is answered, in a paragraph: which model, formula or data, what is held fixed.
    run : callable
        Takes keyword arguments, all with defaults, and returns a `Finding`.
    sources : tuple of str
        Papers and pages the question or its data come from.
    """

    title: str
    question: str
    method: str
    run: Callable[..., Finding]
    sources: tuple[str, ...] = ()


def list_studies() -> list[str]:
    """Return the names of all studies, sorted.

    Examples
    --------
    >>> all(load_study(name).question.endswith("?") for name in list_studies())
    True
    """
    from costmodel.studies import named

    return sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(named.__path__)
        if not module.name.startswith("_")
    )


def load_study(name: str) -> Study:
    """Return the study of a name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    known = list_studies()
    if name not in known:
        raise UnknownNameError("study", name, known)
    module: Any = importlib.import_module(f"costmodel.studies.named.{name.replace('-', '_')}")
    study: Study = module.STUDY
    return study
