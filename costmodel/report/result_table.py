"""Tables of results, parquet or CSV, read in bounded memory as far as a figure shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, SpecError, UnknownNameError
from costmodel.report.result_columns import is_value

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "read_results"]

_FORMATS = {".parquet": "parquet", ".csv": "csv"}
_MOST_ROWS = 2_000_000
_BATCH = 262_144
_ALSO = ("ttft_low_s", "ttft_high_s", "visual_tokens_asked")
_CONDITION = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")


@dataclass(frozen=True, eq=False)
class Results:
    """Rows of a table that a figure shows.

    Attributes
    ----------
    frame : pandas.DataFrame
    note : str
        What is held fixed, and which rows were left out, for people.
    """

    frame: pd.DataFrame
    note: str


def read_results(
    path: str,
    needs: Sequence[str],
    shows: Sequence[str] | None,
    where: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Results:
    """Read the rows of a table that a figure shows.

    Settings that the figure does not spread out are held at those of the first row; the note
    says at which.  Beyond two million rows every n-th is read, and the note says so.

    Parameters
    ----------
    path : str
        A parquet or CSV file, as of ``costmodel sweep``.
    needs : sequence of str
        Columns of values that the figure needs; bounds of the time to the first token are read
        where they are there.
    shows : sequence of str, optional
        Columns of settings that it spreads out; None holds nothing fixed.
    where : sequence of str
        Conditions ``column=value``, ``=`` with several values separated by commas, and
        ``!= <= >= < >``.
    also : sequence of str
        Other columns to read, of any type.

    Returns
    -------
    Results

    Raises
    ------
    SpecError
        If the file is missing, damaged or no table of results.
    InputError, UnknownNameError
        If a condition or column is not valid, or no row is left.
    """
    table = _open(path)
    types = {field.name: field.type for field in table.schema}
    if absent := [name for name in (*needs, *(shows or ()), *also) if name not in types]:
        raise SpecError(
            f"{path}: no column {', '.join(map(repr, absent))}; it has {', '.join(types)}"
        )
    chosen = _filter(where, types)
    # Names with two underscores are an index that pandas wrote.
    settings = [name for name in types if not is_value(name) and not name.startswith("__")]
    held = [] if shows is None else [name for name in settings if name not in shows]
    first = _first(path, table, [*settings, *needs], chosen, where)
    several = [name for name in held if _differs(table, name, chosen)]
    for name in several:
        condition = _equals(name, first[name])
        chosen = condition if chosen is None else chosen & condition
    extra = [name for name in _ALSO if name in types]
    columns = list(dict.fromkeys([*settings, *needs, *extra, *also]))
    frame, total = _rows(path, table, columns, chosen)
    frame, dropped = _finite(path, frame, needs)
    notes = [", ".join(f"{name} = {first[name]}" for name in held if _said(first[name]))]
    if several:
        notes.append(f"first of several: {', '.join(several)} (--where chooses)")
    notes += [f"where {condition}" for condition in where]
    if len(frame) + dropped < total:
        step = -(-total // _MOST_ROWS)
        notes.append(f"every {step}th of {total:,} rows")
    if dropped:
        notes.append(f"{dropped:,} rows without numbers left out")
    return Results(frame, "; ".join(note for note in notes if note))


def _said(value: Any) -> bool:
    return value not in (None, "") and not (isinstance(value, float) and math.isnan(value))


def _open(path: str) -> Any:
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in _FORMATS:
        raise InputError("results", path, f"a file that ends in {' or '.join(_FORMATS)}")
    if not target.is_file():
        raise SpecError(f"{path}: there is no such file")
    try:
        import pyarrow
        from pyarrow import dataset
    except ImportError:
        raise SpecError(
            "tables of results are read by pyarrow: pip install 'costmodel[fit]'"
        ) from None
    try:
        return dataset.dataset(path, format=_FORMATS[suffix])
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> SpecError:
    return SpecError(f"{path}: no table that can be read ({' '.join(str(error).split())[:200]})")


def _filter(where: Sequence[str], types: dict[str, Any]) -> Any:
    from pyarrow import dataset

    found: Any = None
    for text in where:
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise InputError("where", text, "a condition such as gpu=l40s, batch=1,8 or batch<=8")
        name, sign, value = match.groups()
        if name not in types:
            raise UnknownNameError("where", name, list(types))
        field, values = dataset.field(name), _values(text, types[name], value)
        if sign in ("=", "!="):
            condition = field.isin(values) if sign == "=" else ~field.isin(values)
        elif len(values) == 1:
            compare = {"<=": "__le__", ">=": "__ge__", "<": "__lt__", ">": "__gt__"}[sign]
            condition = getattr(field, compare)(values[0])
        else:
            raise InputError("where", text, f"one value after {sign}")
        found = condition if found is None else found & condition
    return found


def _values(text: str, kind: Any, value: str) -> list[Any]:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    parts = [part.strip() for part in value.split(",")]
    if types.is_string(kind) or types.is_large_string(kind):
        # A method's own parameters are separated by commas too.
        return [value] if ":" in value else parts
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise InputError("where", text, "a number, as the column holds") from None
    if types.is_integer(kind) and all(number.is_integer() for number in numbers):
        return [int(number) for number in numbers]
    return numbers


def _equals(name: str, value: Any) -> Any:
    from pyarrow import dataset

    field = dataset.field(name)
    return field == value if _said(value) or value == "" else field.is_null()


def _batches(path: str, table: Any, columns: Sequence[str], chosen: Any) -> Iterator[Any]:
    import pyarrow

    try:
        yield from table.to_batches(columns=list(columns), filter=chosen, batch_size=_BATCH)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise _damaged(path, error) from None


def _first(
    path: str, table: Any, columns: Sequence[str], chosen: Any, where: Sequence[str]
) -> dict[str, Any]:
    for batch in _batches(path, table, columns, chosen):
        if batch.num_rows:
            row: dict[str, Any] = batch.slice(0, 1).to_pylist()[0]
            return row
    if where:
        raise InputError("where", "; ".join(where), "conditions that at least one row meets")
    raise SpecError(f"{path}: the table has no rows")


def _differs(table: Any, name: str, chosen: Any) -> bool:
    from pyarrow import compute

    known = None
    for batch in table.to_batches(columns=[name], filter=chosen, batch_size=_BATCH):
        column = batch.column(0)
        if not len(column):
            continue
        known = column[0] if known is None else known
        if column[0] != known or len(compute.unique(column)) > 1:
            return True
    return False


def _rows(path: str, table: Any, columns: Sequence[str], chosen: Any) -> tuple[pd.DataFrame, int]:
    import numpy as np
    import pandas as pd

    total = table.count_rows(filter=chosen)
    step = -(-total // _MOST_ROWS)
    frames, seen = [], 0
    for batch in _batches(path, table, columns, chosen):
        index = np.arange(-seen % step, batch.num_rows, step)
        seen += batch.num_rows
        if len(index):
            frames.append(batch.take(index).to_pandas())
    return pd.concat(frames, ignore_index=True), total


def _finite(path: str, frame: pd.DataFrame, needs: Sequence[str]) -> tuple[pd.DataFrame, int]:
    import numpy as np
    import pandas as pd

    for name in needs:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise SpecError(f"{path}: column {name!r} holds {frame[name].iloc[0]!r}, no numbers")
    good = np.isfinite(frame[list(needs)].to_numpy(dtype=float)).all(axis=1)
    if not good.any():
        raise SpecError(f"{path}: no row has numbers in {', '.join(needs)}")
    return frame[good], int((~good).sum())
