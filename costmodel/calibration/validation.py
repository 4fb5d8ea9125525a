"""From a reader's columns to valid tidy rows; what is not valid is counted with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costmodel.calibration.dtypes import DTYPES, dtype_name
from costmodel.calibration.gpus import Gpus
from costmodel.calibration.reading import Hints, Part
from costmodel.calibration.report import Problem, Tally
from costmodel.calibration.schema import KINDS, Column
from costmodel.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["validate"]

Mask = npt.NDArray[np.bool_]

_EXACT = 2.0**53
"""Largest whole number that every double below is exact to."""

_FLAGS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}

_ATTENTION_RELATIONS: tuple[tuple[str, Callable[[pd.DataFrame], Any]], ...] = (
    ("heads: not a multiple of kv_heads", lambda f: f["heads"] % f["kv_heads"] != 0),
    ("kv_len: below q_len, but it counts the new tokens too", lambda f: f["kv_len"] < f["q_len"]),
)
_RELATIONS: Mapping[str, tuple[tuple[str, Callable[[pd.DataFrame], Any]], ...]] = {
    "attention_prefill": _ATTENTION_RELATIONS,
    # Encoder rows may be cross attention, whose keys are fewer or more than its queries.
    "attention_encoder": _ATTENTION_RELATIONS[:1],
    "attention_decode": _ATTENTION_RELATIONS,
    "collective": (
        ("gpus_per_node: more than n_gpus", lambda f: f["gpus_per_node"] > f["n_gpus"]),
    ),
}


def validate(
    part: Part, path: Path, hints: Hints, gpus: Gpus
) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the valid rows of a part and what was wrong with the others.

    Parameters
    ----------
    part : Part
        A reader's rows.
    path : Path
        The file, for messages.
    hints : Hints
        Values of columns that the file lacks.
    gpus : Gpus
        Known devices.

    Returns
    -------
    frame : pandas.DataFrame
        The columns of the kind with their types; the index is the row in the file.
    problems : list of Problem
        Dropped rows, each under its first reason, and rows that only need notice.

    Raises
    ------
    SpecError
        If a needed column is missing, or a hint is not known.
    """
    check = _Check(part, path, hints)
    for column in KINDS[part.kind].columns:
        check.take(column)
    check.names("dtype", dtype_name, _dtype_problem)
    # What only compares needs no profile, so any device will do.
    problem = _gpu_problem(gpus) if KINDS[part.kind].fit else lambda name: None
    check.names("gpu", lambda name: _profile_name(gpus, name), problem)
    check.relations()
    return check.result()


def _profile_name(gpus: Gpus, name: str) -> str:
    profile = gpus.find(name) if name else None
    return profile.name if profile else name


def _gpu_problem(gpus: Gpus) -> Callable[[str], str | None]:
    return lambda name: gpus.problem(name) if name and gpus.find(name) is None else None


def _dtype_problem(name: str) -> str | None:
    if not name or name in DTYPES:
        return None
    close = did_you_mean(name, DTYPES)
    guess = f"; did you mean {close}?" if close else ""
    return f"dtype: unknown format {name!r}{guess}; known: {', '.join(DTYPES)}"


def _words(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return text without blanks around it, "" where missing; few distinct values are cheap."""
    import pandas as pd

    codes, distinct = pd.factorize(values)
    words = np.array([*(str(value).strip() for value in distinct), ""], dtype=object)
    return pd.Series(words[codes], index=values.index, dtype="str")


class _Check:
    """The rows of one part while columns are checked one after the other."""

    def __init__(self, part: Part, path: Path, hints: Hints) -> None:
        self._kind, self._raw, self._path, self._hints = part.kind, part.frame, path, hints
        self._published = set(part.published) - set(KINDS[part.kind].names)
        self._keep: Mask = np.ones(len(part.frame), dtype=bool)
        self._done: dict[str, Any] = {}
        self._tally = Tally(path)

    def drop(self, bad: Any, reason: str) -> None:
        """Leave out rows; each counts under its first reason."""
        now = np.asarray(bad, dtype=bool) & self._keep
        self._tally.add(reason, self._raw.index.to_numpy()[now])
        self._keep &= ~now

    def take(self, column: Column) -> None:
        """Check one column by its type."""
        values = self._column(column)
        self._done[column.name] = _TAKERS[column.type](self, column, values)

    def _column(self, column: Column) -> pd.Series[Any]:
        import pandas as pd

        if column.name in self._raw:
            return self._raw[column.name]
        value = getattr(self._hints, column.name, None) or column.default
        if value is None:
            close = did_you_mean(column.name, self._published)
            guess = f"; did you mean {close!r} for it?" if close else ""
            hint = f"; the file does not say: pass {column.name}=..."
            raise SpecError(
                f"{self._path}: column {column.name!r} of {self._kind} timings is missing"
                f"{guess if close else hint if hasattr(self._hints, column.name) else ''}"
            )
        return pd.Series([value] * len(self._raw), index=self._raw.index)

    def text(self, column: Column, values: pd.Series[Any]) -> Any:
        """Text without blanks around it; a hint fills gaps of what it stands for."""
        cleaned = _words(values)
        filler = getattr(self._hints, column.name, None) or column.default
        if filler is not None:
            return cleaned.where(cleaned != "", str(filler))
        self.drop(cleaned == "", f"{column.name}: missing")
        return cleaned

    def number(self, column: Column, values: pd.Series[Any]) -> npt.NDArray[np.float64]:
        """Floats; the default, or nothing but a reason to drop, where a value is missing."""
        import pandas as pd

        blank = (values.isna() | (values.astype(str).str.strip() == "")).to_numpy(dtype=bool)
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
        if column.default is None:
            self.drop(blank, f"{column.name}: missing")
        else:
            numbers = np.where(blank, float(column.default), numbers)
        return numbers

    def time(self, column: Column, values: pd.Series[Any]) -> Any:
        """Positive, finite numbers; optional ones become NaN where they are not."""
        numbers = self.number(column, values)
        with np.errstate(invalid="ignore"):
            valid = numbers >= 0 if column.name.endswith("_std") else numbers > 0
        if column.default is not None:
            return np.where(valid & np.isfinite(numbers), numbers, np.nan)
        self.drop(np.isnan(numbers), f"{column.name}: not a number")
        self.drop(~valid, f"{column.name}: zero or negative")
        self.drop(~np.isfinite(numbers), f"{column.name}: infinite")
        return numbers

    def size(self, column: Column, values: pd.Series[Any]) -> Any:
        """Whole numbers not below the smallest valid one."""
        numbers = self.number(column, values)
        self.drop(np.isnan(numbers), f"{column.name}: not a number")
        with np.errstate(invalid="ignore"):
            whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < _EXACT)
        self.drop(~whole, f"{column.name}: not a whole number")
        self.drop(~(numbers >= column.low), f"{column.name}: below {column.low}")
        return np.where(self._keep, numbers, column.low).astype(np.int64)

    def flag(self, column: Column, values: pd.Series[Any]) -> Any:
        """True or false, as a word or as 0 and 1."""
        words = _words(values).str.lower()
        if column.default is not None:
            words = words.where(words != "", str(column.default).lower())
        self.drop(words == "", f"{column.name}: missing")
        self.drop(~words.isin(list(_FLAGS)), f"{column.name}: neither true nor false")
        return words.map(_FLAGS).where(words.isin(list(_FLAGS)), False).astype(bool)

    def names(
        self, name: str, tidy: Callable[[str], str], problem: Callable[[str], str | None]
    ) -> None:
        """Replace published names by tidy ones; drop unknown ones."""
        if name not in self._done:
            return
        values = self._done[name]
        known = {published: tidy(published) for published in values.unique()}
        for published, wanted in known.items():
            reason = problem(wanted)
            if reason:
                self.drop(values == published, reason)
        self._done[name] = values.map(known)

    def relations(self) -> None:
        """Drop rows whose columns contradict each other."""
        for reason, is_bad in _RELATIONS.get(self._kind, ()):
            self.drop(is_bad(self._frame()), reason)
        frame = self._frame()
        if {"time_us_min", "time_us_max"} <= set(frame):
            # Rounding of published milliseconds moves a median past an equal bound.
            low, high = frame["time_us_min"] * 0.999, frame["time_us_max"] * 1.001
            outside = (frame["time_us"] < low) | (frame["time_us"] > high)
            self.drop(outside, "time_us: outside time_us_min to time_us_max")

    def _frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self._done, index=self._raw.index)

    def result(self) -> tuple[pd.DataFrame, list[Problem]]:
        """Return the kept rows and all problems."""
        frame = self._frame()[self._keep].rename_axis("row")
        kind = KINDS[self._kind]
        repeated = frame.duplicated(list(kind.key)).to_numpy()
        reason = "the key of an earlier row again (a fit takes the median)"
        if kind.fit:
            self._tally.add(reason, frame.index.to_numpy()[repeated], dropped=False)
        return frame, self._tally.problems()


_TAKERS: Mapping[str, Callable[[_Check, Column, Any], Any]] = {
    "text": _Check.text,
    "int": _Check.size,
    "float": _Check.time,
    "flag": _Check.flag,
}
