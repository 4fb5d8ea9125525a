"""Each published figure beside ours, with a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from costmodel.reproduction.hardware import measured
from costmodel.reproduction.paper import list_papers, load_paper
from costmodel.reproduction.published import Published, published_costs

__all__ = ["TOLERANCE", "Reproduction", "Summary", "Verdict", "reproduce", "rounds_to", "summary"]

Verdict = Literal["reproduced", "differs", "measured", "not a cost quantity"]

TOLERANCE = 0.01
"""Relative difference up to which a computed figure counts as reproduced without rounding to it."""


@dataclass(frozen=True)
class Reproduction:
    """A published figure and ours.

    Attributes
    ----------
    published : Published
        The figure.
    ours : float or None
        In its unit.
    band : tuple of float, optional
        90 % band of a predicted measurement.
    rounds : bool
        Whether ours, rounded as theirs is printed, is theirs.
    verdict : Verdict
        ``reproduced`` (rounds to the printed figure or is within `TOLERANCE`), ``differs``,
        ``measured``, ``not a cost quantity``.
    reason : str
        Why, in one line; empty where there is nothing to say.
    how : str
        Convention, tokens and request of ours.
    """

    published: Published
    ours: float | None
    band: tuple[float, float] | None
    rounds: bool
    verdict: Verdict
    reason: str
    how: str

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return None if self.ours is None else self.ours / self.published.value

    @property
    def inside(self) -> bool | None:
        """Whether a measured figure lies in our band; None without one."""
        if self.band is None:
            return None
        return self.band[0] <= self.published.value <= self.band[1]


@dataclass(frozen=True)
class Summary:
    """How many figures there are, by verdict.

    Attributes
    ----------
    formula, reproduced, rounds : int
        Computed figures, those reproduced, and those that round exactly.
    measured, predicted, inside : int
        Measured figures, those with a predicted band, and those inside it.
    other : int
        No cost quantities.
    """

    formula: int
    reproduced: int
    rounds: int
    measured: int
    predicted: int
    inside: int
    other: int


def rounds_to(value: float, printed: Published) -> bool:
    """Whether a value, rounded to the digits that are printed, is the printed figure.

    Half a digit either way counts, as nobody knows how halves were rounded.

    Examples
    --------
    >>> row = Published("", "", "", "", None, "", "FLOPs", "T", "2.2", "formula")
    >>> rounds_to(2.249, row), rounds_to(2.27, row)
    (True, False)
    """
    return abs(value - printed.value) <= 0.5 * 10.0**-printed.decimals * (1 + 1e-9)


def reproduce(paper: str = "all") -> tuple[Reproduction, ...]:
    """Compute the published figures of one paper, or of all.

    Parameters
    ----------
    paper : str
        A name of `list_papers`, or ``all``.

    Returns
    -------
    tuple of Reproduction
        In the order of the sources.

    Raises
    ------
    UnknownNameError
        If there is no such paper.

    Examples
    --------
    >>> row = reproduce("stf")[0]
    >>> row.verdict, f"{row.ours:.3f}", row.published.printed
    ('reproduced', '1.876', '1.9')
    """
    wanted = list_papers() if paper == "all" else (load_paper(paper).name,)
    return tuple(_judge(row) for row in published_costs() if row.paper in wanted)


def _judge(row: Published) -> Reproduction:
    if row.kind == "other":
        return Reproduction(
            row, None, None, False, "not a cost quantity", f"{row.metric} is no cost", ""
        )
    if row.kind == "measured":
        found = measured(row)
        reason = "measured on hardware"
        if found.band is not None:
            inside = found.band[0] <= row.value <= found.band[1]
            reason += f", {'inside' if inside else 'outside'} our band; timed: {found.timed}"
        elif found.value is not None:
            reason += "; memory has no band"
        else:
            reason += f"; {found.how}"
        return Reproduction(row, found.value, found.band, False, "measured", reason, found.how)
    ours = load_paper(row.paper).formula(row)
    if ours.value is None:
        return Reproduction(row, None, None, False, "differs", ours.because, ours.how)
    off = ours.value / row.value - 1
    rounds = rounds_to(ours.value, row)
    verdict: Verdict = "reproduced" if rounds or abs(off) <= TOLERANCE else "differs"
    reason = ""
    if not rounds:
        reason = f"{100 * abs(off):.1f} % {'above' if off > 0 else 'below'} the printed figure"
        reason += f"; {ours.because}" if ours.because else ""
    return Reproduction(row, ours.value, None, rounds, verdict, reason, ours.how)


def summary(rows: Iterable[Reproduction]) -> Summary:
    """Count the figures.

    Examples
    --------
    >>> summary(reproduce("m3"))
    Summary(formula=20, reproduced=18, rounds=17, measured=0, predicted=0, inside=0, other=0)
    """
    found = list(rows)
    formula = [row for row in found if row.published.kind == "formula"]
    timed = [row for row in found if row.verdict == "measured"]
    return Summary(
        formula=len(formula),
        reproduced=sum(row.verdict == "reproduced" for row in formula),
        rounds=sum(row.rounds for row in formula),
        measured=len(timed),
        predicted=sum(row.inside is not None for row in timed),
        inside=sum(row.inside is True for row in timed),
        other=len(found) - len(formula) - len(timed),
    )
