"""Tables in chunks: parquet and CSV files whose first line is a header."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.calibration.files import open_parquet, read_text_lines
from costmodel.calibration.report import Tally
from costmodel.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["chunks", "read_table"]

CHUNK_ROWS = 1 << 16
"""Rows converted at a time, about 10 MB of a wide table."""


def read_table(path: Path, columns: Collection[str], tally: Tally) -> pd.DataFrame:
    """Return the columns of a table that are wanted and there.

    Parameters
    ----------
    path : Path
        A parquet or CSV file.
    columns : collection of str
        Wanted columns; others are not even decoded from parquet.
    tally : Tally
        Counts rows that cannot be split into fields.

    Returns
    -------
    pandas.DataFrame
        CSV values as text; the index is the row's number, from 1.

    Raises
    ------
    SpecError
        If the file has a column twice or is damaged.
    """
    import pandas as pd

    return pd.concat(list(chunks(path, columns, tally)))


def chunks(path: Path, columns: Collection[str], tally: Tally) -> Iterator[pd.DataFrame]:
    """Yield a table in parts, the first of which may be empty; see `read_table`."""
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    return (_parquet if is_parquet else _csv)(path, columns, tally)


def _check_unique(path: Path, header: list[str], columns: Collection[str]) -> None:
    for name in columns:
        if header.count(name) > 1:
            raise SpecError(f"{path}: column {name!r} is there twice")


def _parquet(path: Path, columns: Collection[str], tally: Tally) -> Iterator[pd.DataFrame]:
    import pandas as pd
    import pyarrow as pa

    file = open_parquet(path)
    header = list(file.schema_arrow.names)
    _check_unique(path, header, columns)
    wanted = [name for name in header if name in columns]
    row = 1
    yield file.schema_arrow.empty_table().select(wanted).to_pandas()
    try:
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=wanted):
            frame = batch.to_pandas()
            frame.index = pd.RangeIndex(row, row + len(frame))
            row += len(frame)
            yield frame
    except (pa.ArrowException, OSError) as error:
        raise SpecError(f"{path}: parquet is damaged after row {row - 1}: {error}") from None


def _csv(path: Path, columns: Collection[str], tally: Tally) -> Iterator[pd.DataFrame]:
    reader = csv.reader(read_text_lines(path))
    try:
        header = [name.strip() for name in next(fields for fields in reader if any(fields))]
        _check_unique(path, header, columns)
        places = [(name, place) for place, name in enumerate(header) if name in columns]
        rows: list[list[str]] = []
        numbers: list[int] = []
        yield _text_frame(rows, numbers, places)
        for number, fields in enumerate((fields for fields in reader if fields), start=1):
            if len(fields) != len(header):
                tally.add(f"the header has {len(header)} fields, the row another number", [number])
                continue
            rows.append(fields)
            numbers.append(number)
            if len(rows) == CHUNK_ROWS:
                yield _text_frame(rows, numbers, places)
                rows, numbers = [], []
        yield _text_frame(rows, numbers, places)
    except csv.Error as error:
        raise SpecError(f"{path}: line {reader.line_num}: not CSV: {error}") from None


def _text_frame(
    rows: list[list[str]], numbers: list[int], places: list[tuple[str, int]]
) -> pd.DataFrame:
    import pandas as pd

    values = {name: [fields[place] for fields in rows] for name, place in places}
    return pd.DataFrame(values, index=pd.Index(numbers, dtype="int64"), dtype="str")
