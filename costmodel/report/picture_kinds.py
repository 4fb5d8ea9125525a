"""The registry of figures: what each shows, and what it is drawn from."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.case import Case, prepare
from costmodel.charts import Picture
from costmodel.errors import CostModelError, InputError, UnknownNameError
from costmodel.report import pictures

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Asked",
    "Drawn",
    "Kind",
    "case_for",
    "list_kinds",
    "load_kind",
    "picture_of_case",
]


@dataclass(frozen=True)
class Asked:
    """What a figure of a case is asked for.

    Attributes
    ----------
    case : Case, optional
        Model, GPU and request; None for figures of timing files alone.
    methods : tuple of str
        Methods to show, ``METHOD[:key=value,...]``; empty for the kind's own choice.
    measured : tuple of str
        Timing files whose points are shown.
    gpu : str, optional
        GPU, for figures without a case.
    """

    case: Case | None = None
    methods: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    gpu: str | None = None

    @property
    def plain(self) -> Case:
        """The case.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.case is None:
            raise InputError("model", None, "a model and a GPU: this figure is drawn from a case")
        return self.case


@dataclass(frozen=True)
class Drawn:
    """How a figure is drawn from a table of results.

    Attributes
    ----------
    needs : tuple of str
        Columns of values that the table must have.
    shows : tuple of str
        Columns of settings that the figure spreads out; all others are held at one value.
    describe : callable
        Takes the rows, a note, and returns the picture.
    """

    needs: tuple[str, ...]
    shows: tuple[str, ...]
    describe: Callable[[pd.DataFrame, str], Picture]


@dataclass(frozen=True)
class Kind:
    """One kind of figure; a module of `costmodel.report.pictures` has it by the name ``KIND``.

    Attributes
    ----------
    summary : str
        What it shows, in a line.
    of_case : callable, optional
        Describes it for a case; None where only a table of results has it.
    of_results : Drawn, optional
        How it is drawn from a table of results; None where that has no such numbers.
    needs_case : bool
        Whether it is about one model on one GPU rather than about timing files.
    """

    summary: str
    of_case: Callable[[Asked], Picture] | None = None
    of_results: Drawn | None = None
    needs_case: bool = True


def list_kinds(source: str = "") -> dict[str, Kind]:
    """Return all figures by name.

    Parameters
    ----------
    source : {"", "case", "results"}
        Only those drawn from it.

    Examples
    --------
    >>> "stages" in list_kinds("case"), "overhead-heatmap" in list_kinds("results")
    (True, False)
    """
    names = sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(pictures.__path__))
    found = {name: _load(name) for name in names}
    if source:
        found = {name: kind for name, kind in found.items() if getattr(kind, f"of_{source}")}
    return found


def load_kind(name: str, source: str) -> Kind:
    """Return the figure of a name.

    Raises
    ------
    UnknownNameError
        If there is none that is drawn from this source.
    """
    known = list_kinds(source)
    if name not in known:
        raise UnknownNameError("figure" if source == "case" else "kind", name, list(known))
    return known[name]


def _load(name: str) -> Kind:
    module: Any = importlib.import_module(f"{pictures.__name__}.{name.replace('-', '_')}")
    kind: Kind = module.KIND
    return kind


def case_for(
    name: str, model: str | None, gpu: str | None, options: Mapping[str, Any]
) -> Case | None:
    """Return the case of a figure, or None for figures of timing files alone.

    Parameters
    ----------
    name : str
        A key of ``list_kinds("case")``.
    model, gpu : str, optional
        Names or files.
    options : mapping
        Of `costmodel.prepare`.

    Raises
    ------
    InputError
        If the figure needs a model or a GPU that was not given, or takes no model.
    """
    kind = load_kind(name, "case")
    if not kind.needs_case:
        if model is not None:
            raise InputError("model", model, f"no model: {name} is drawn from timing files alone")
        return None
    for field, value in (("model", model), ("gpu", gpu)):
        if value is None:
            raise CostModelError(f"{name} is drawn for a {field}: give its name or a file")
    return prepare(str(model), str(gpu), **options)


def picture_of_case(
    name: str,
    case: Case | None = None,
    *,
    methods: Sequence[str] = (),
    measured: Sequence[str] = (),
    gpu: str | None = None,
) -> Picture:
    """Return the picture of a name for a case.

    Parameters
    ----------
    name : str
        A key of ``list_kinds("case")``.
    case : Case, optional
        From `costmodel.prepare`; figures of timing files alone need none.
    methods : sequence of str
        Methods to show, instead of the figure's own choice.
    measured : sequence of str
        Timing files.
    gpu : str, optional
        GPU of the timing files.

    Returns
    -------
    Picture
        For `costmodel.report.chart_drawing.draw`.

    Raises
    ------
    CostModelError
        If the name is not known or the case has no such figure.
    """
    describe = load_kind(name, "case").of_case
    if describe is None:
        raise UnknownNameError("figure", name, list(list_kinds("case")))
    return describe(Asked(case, tuple(methods), tuple(measured), gpu))
