"""What a paper's module says: which convention, which tokens and which request."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import costmodel.reproduction.papers as _papers
from costmodel.errors import UnknownNameError
from costmodel.reproduction.published import Published

__all__ = ["Formula", "Paper", "list_papers", "load_paper"]


@dataclass(frozen=True)
class Formula:
    """Our value of a computed figure.

    Attributes
    ----------
    value : float or None
        In the printed unit; None where the source does not say what it was computed for.
    how : str
        Convention and tokens.
    because : str
        Why the figure differs, in one line, where it does.
    """

    value: float | None
    how: str
    because: str = ""


def _no_formula(row: Published) -> Formula:
    return Formula(None, "", f"no formula is known for {row.metric}")


@dataclass(frozen=True)
class Paper:
    """One paper or page and the rule that its figures follow.

    Attributes
    ----------
    name, title, url : str
        Module name, title and address.
    rule : str
        How its computed figures come about, for all rows alike.
    formula : callable
        (Published) -> Formula of a computed figure, by that rule.
    """

    name: str
    title: str
    url: str
    rule: str = ""
    formula: Callable[[Published], Formula] = _no_formula


def list_papers() -> tuple[str, ...]:
    """Return the names of all papers.

    Examples
    --------
    >>> "m3" in list_papers()
    True
    """
    return tuple(sorted(info.name for info in pkgutil.iter_modules(_papers.__path__)))


def load_paper(name: str) -> Paper:
    """Return the paper called `name`.

    Raises
    ------
    UnknownNameError
        If there is none.

    Examples
    --------
    >>> load_paper("fastv").url
    'https://arxiv.org/abs/2403.06764'
    """
    known = list_papers()
    if name not in known:
        raise UnknownNameError("paper", name, (*known, "all"))
    paper: Paper = importlib.import_module(f"{_papers.__name__}.{name}").PAPER
    return paper
