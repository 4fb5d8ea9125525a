"""Points of a table of results that meet constraints, or that no other point beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costmodel.errors import InputError, SpecError
from costmodel.search.constraints import ALIASES, Constraint, column_named, parse_constraint
from costmodel.search.pareto import pareto_mask
from costmodel.search.published import COLUMNS, join_scores

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Found", "Objective", "parse_objective", "read_batches", "search_results"]

_BATCH = 1 << 18


@dataclass(frozen=True)
class Objective:
    """A column and whether less or more of it is better."""

    column: str
    maximise: bool = False

    def __str__(self) -> str:
        return f"{self.column}:{'max' if self.maximise else 'min'}"


@dataclass(frozen=True, eq=False)
class Found:
    """What a search leaves of a table.

    Attributes
    ----------
    frame : pandas.DataFrame
        Rows, with the columns of scores where these were joined.
    read : int
        Rows of the table.
    met : int
        Rows that meet all constraints.
    on_front : int, optional
        Rows on the Pareto front, before the limit; None without objectives.
    without_value : int
        Rows that meet the constraints but lack a value of an objective.
    unscored : dict of (str, str) to int
        Rows without a published score by model and method; empty where none were joined.
    """

    frame: pd.DataFrame
    read: int
    met: int
    on_front: int | None
    without_value: int
    unscored: dict[tuple[str, str], int]


def parse_objective(text: str) -> Objective:
    """Read ``COLUMN``, ``COLUMN:min`` or ``COLUMN:max``.

    Raises
    ------
    InputError
        If it does not have this form.

    Examples
    --------
    >>> str(parse_objective("ttft_s")), str(parse_objective("score:max"))
    ('ttft_s:min', 'score_low_pct:max')
    """
    name, _, sense = text.strip().partition(":")
    if not name or sense not in ("", "min", "max"):
        raise InputError("pareto", text, "COLUMN, COLUMN:min or COLUMN:max")
    return Objective(ALIASES.get(name, name), sense == "max")


def search_results(
    frames: pd.DataFrame | Iterable[pd.DataFrame],
    *,
    where: Sequence[str | Constraint] = (),
    pareto: Sequence[str | Objective] = (),
    sort: str | None = None,
    limit: int | None = None,
    scores: bool = False,
) -> Found:
    """Return the rows that meet all constraints, or of these the Pareto front.

    Parameters
    ----------
    frames : DataFrame or iterable of DataFrame
        The table, at once or in parts; parts are searched one after the other, so that only
        what is left of them is held.
    where : sequence of str
        Such as ``ttft_s <= 100ms``; all have to hold.
    pareto : sequence of str
        Objectives such as ``ttft_s`` or ``score:max``; of equal rows all stay.
    sort : str, optional
        ``COLUMN`` or ``COLUMN:max`` for descending order; by default the first objective.
    limit : int, optional
        Rows at most.
    scores : bool
        Whether published scores are joined; they also are where a column of scores is named.

    Returns
    -------
    Found

    Raises
    ------
    UnknownNameError, InputError, SpecError
        If a column, constraint or objective is not valid.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"ttft_s": [0.1, 0.2, 0.3], "kv_cache_bytes": [3e9, 2e9, 2e9]})
    >>> search_results(table, pareto=["ttft_s", "kv_cache_bytes"]).frame["ttft_s"].tolist()
    [0.1, 0.2]
    >>> search_results(table, where=["ttft_s <= 250ms", "kv_cache_bytes < 3GB"]).met
    1
    """
    import pandas as pd

    constraints = [parse_constraint(one) if isinstance(one, str) else one for one in where]
    objectives = [parse_objective(one) if isinstance(one, str) else one for one in pareto]
    order = parse_objective(sort) if sort is not None else None
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError("limit", limit, "a whole number of at least 1")
    named = {one.column for one in constraints} | {one.column for one in objectives}
    if order is not None:
        named.add(order.column)
    order = order or next(iter(objectives), None)
    parts = [frames] if isinstance(frames, pd.DataFrame) else frames
    read = met = without_value = 0
    unscored: Counter[tuple[str, str]] = Counter()
    kept: list[pd.DataFrame] = []
    for part in parts:
        read += len(part)
        rows = part
        if scores or named & set(COLUMNS):
            rows = join_scores(rows)
            unscored.update(_unscored(rows))
        for one in constraints:
            rows = rows[one.holds(rows)]
        met += len(rows)
        columns = list(rows.columns)
        for objective in (*objectives, *([order] if order else [])):
            column_named(objective.column, columns)
        if objectives:
            costs = _costs(rows, objectives)
            without_value += int(np.isnan(costs).any(axis=1).sum())
            rows = rows[pareto_mask(costs)]
        kept.append(rows)
        if objectives and len(kept) > 1:
            both = pd.concat(kept, ignore_index=True)
            kept = [both[pareto_mask(_costs(both, objectives))]]
        elif limit is not None and order is not None:
            kept = [_ordered(pd.concat(kept, ignore_index=True), order).head(limit)]
    if not kept:
        raise SpecError("the table of results has no rows")
    frame = pd.concat(kept, ignore_index=True)
    on_front = len(frame) if objectives else None
    if order is not None:
        frame = _ordered(frame, order)
    frame = frame.head(limit) if limit is not None else frame
    return Found(
        frame.reset_index(drop=True), read, met, on_front, without_value, dict(unscored)
    )  # fmt: skip


def _costs(rows: pd.DataFrame, objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    columns = []
    for one in objectives:
        column = rows[one.column]
        if getattr(column.dtype, "kind", "O") not in "iufb":
            raise InputError("pareto", str(one), "a column of numbers")
        values = column.to_numpy(dtype=np.float64)
        columns.append(-values if one.maximise else values)
    return np.stack(columns, axis=1)


def _ordered(frame: pd.DataFrame, order: Objective) -> pd.DataFrame:
    return frame.sort_values(
        order.column, ascending=not order.maximise, kind="stable", na_position="last"
    )


def _unscored(rows: pd.DataFrame) -> dict[tuple[str, str], int]:
    missing = rows[rows[COLUMNS[0]].isna()]
    pairs = zip(missing["model"].astype(str), missing["method"].astype(str), strict=True)
    return dict(Counter(pairs))


def read_batches(path: str) -> Iterator[pd.DataFrame]:
    """Yield a parquet or CSV file in parts of bounded size.

    Lines of a CSV file that begin with # before the header are skipped.

    Raises
    ------
    InputError, SpecError
        If the file has another ending, is missing, damaged or empty.
    """
    target = Path(path)
    if target.suffix.lower() not in (".parquet", ".csv"):
        raise InputError("results", path, "a file that ends in .parquet or .csv")
    if not target.is_file():
        raise SpecError(f"{path}: there is no such file")
    try:
        yield from _csv(target) if target.suffix.lower() == ".csv" else _parquet(target)
    except ImportError:
        raise SpecError(
            f"{path}: reading parquet needs pyarrow: pip install 'costmodel[fit]'"
        ) from None
    except (OSError, ValueError) as error:
        # pandas and pyarrow derive what they raise of damaged files from these.
        raise SpecError(
            f"{path}: no table that can be read ({' '.join(str(error).split())[:200]})"
        ) from None


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        if not file.metadata.num_rows:
            yield _plain(file.schema_arrow.empty_table().to_pandas())
        for batch in file.iter_batches(batch_size=_BATCH):
            yield _plain(batch.to_pandas())


def _csv(path: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd

    comments = 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                break
            comments += 1
    with pd.read_csv(path, chunksize=_BATCH, skiprows=comments, low_memory=False) as parts:
        yield from parts


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Text in place of categories, which differ between parts."""
    names: list[Any] = [name for name in frame if str(frame[name].dtype) == "category"]
    return frame.astype(dict.fromkeys(names, object))
