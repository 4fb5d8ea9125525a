"""Constraints on the columns of a table of results, read from text without evaluating any."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costmodel.errors import InputError, UnknownNameError
from costmodel.units import UNIT_FACTORS, split_quantity

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALIASES", "Constraint", "column_named", "parse_constraint"]

ALIASES = {"score": "score_low_pct"}
"""Short names of columns; of a score the lowest source counts."""

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_PATTERN = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*(.*?)\s*", re.DOTALL)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# Endings of columns, the longest first, with the base of their unit.
_ENDINGS = (
    ("_bytes_per_s", "B/s"), ("_flop_per_s", "FLOP/s"), ("_flops_per_s", "FLOP/s"),
    ("_bytes", "B"), ("_flops", "FLOP"), ("_flop", "FLOP"), ("_pct", "%"), ("_s", "s"),
)  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A column, how it is compared, and with what.

    Attributes
    ----------
    column : str
        Name of the column.
    sign : {"<=", ">=", "==", "!=", "<", ">"}
        Comparison.
    operand : str
        What it is compared with, as it was written.
    """

    column: str
    sign: str
    operand: str

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.operand}"

    def holds(self, frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return for which rows it holds; never for a missing value.

        Raises
        ------
        UnknownNameError
            If the table has no such column.
        InputError
            If the operand is none that the column can be compared with.
        """
        column = frame[column_named(self.column, list(frame.columns))]
        compare = _OPERATORS[self.sign]
        present = column.notna().to_numpy()
        if column.dtype == bool:
            value: Any = _BOOLEANS.get(self.operand.lower())
            if value is None or self.sign not in ("==", "!="):
                raise self._error("== or != true or false")
        elif _is_number(column):
            value = self._number()
        else:
            value = self.operand
            if self.sign not in ("==", "!="):
                raise self._error(f"== or != a name: {self.column} holds text")
            column = column.astype(str)
        met: npt.NDArray[np.bool_] = compare(column.to_numpy(), value) & present
        return met

    def _number(self) -> float:
        found = split_quantity(self.operand)
        if found is None:
            raise self._error("a number, with a unit if you like, such as 100ms, 48GB or 1e-3")
        value, unit = found
        return value * self._factor(unit) if unit else value

    def _factor(self, unit: str) -> float:
        base = next((base for end, base in _ENDINGS if self.column.endswith(end)), None)
        known = _units(base)
        if unit not in known:
            accepted = ", ".join(known) if known else f"no unit: {self.column} has none"
            raise self._error(f"a number in {accepted}" if known else f"a number with {accepted}")
        return known[unit]

    def _error(self, expected: str) -> InputError:
        return InputError("where", str(self), expected)


def _is_number(column: pd.Series[Any]) -> bool:
    kind = getattr(column.dtype, "kind", "O")
    return kind in "iuf"


def _units(base: str | None) -> dict[str, float]:
    """Return the units that a column with this base may be compared in."""
    if base is None:
        return {}
    if base == "%":
        return {"%": 1.0}
    if base == "s":
        return {unit: UNIT_FACTORS[unit] for unit in ("s", "ms", "us")}
    if base == "FLOP":
        rates = {unit: factor for unit, factor in UNIT_FACTORS.items() if unit.endswith("FLOP/s")}
        return {unit.removesuffix("/s"): factor for unit, factor in rates.items()}
    ends = {unit: factor for unit, factor in UNIT_FACTORS.items() if unit.endswith(base)}
    return {unit: factor for unit, factor in ends.items() if not unit.endswith("FLOP/s")} or ends


def parse_constraint(text: str) -> Constraint:
    """Read ``COLUMN OPERATOR VALUE``.

    Parameters
    ----------
    text : str
        Such as ``ttft_s <= 100ms`` or ``method == cluster``.

    Returns
    -------
    Constraint

    Raises
    ------
    InputError
        If it does not have this form.

    Examples
    --------
    >>> parse_constraint("kv_cache_bytes<=48GB")
    Constraint(column='kv_cache_bytes', sign='<=', operand='48GB')
    """
    match = _PATTERN.fullmatch(text)
    if match is None or not match[3] or match[3][0] in "<>=!":
        raise InputError(
            "where", text,
            f"COLUMN OPERATOR VALUE with {' '.join(_OPERATORS)}, such as 'ttft_s <= 100ms'",
        )  # fmt: skip
    operand = match[3]
    if len(operand) > 1 and operand[0] == operand[-1] and operand[0] in "'\"":
        operand = operand[1:-1]
    return Constraint(ALIASES.get(match[1], match[1]), match[2], operand)


def column_named(name: str, columns: Sequence[str]) -> str:
    """Return the column of that name or alias.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    found = ALIASES.get(name, name)
    if found not in columns:
        raise UnknownNameError("column", name, columns)
    return found
