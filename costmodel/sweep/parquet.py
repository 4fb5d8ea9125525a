"""Parts as encoded row groups, and the one parquet file they become without decoding.

Every part is encoded by whoever computes it.  Its bytes are appended to the file as they are;
at the end, one footer is made of those of the parts, with all positions moved.

References
----------
Apache Parquet, "File Format" and parquet.thrift, https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.errors import SpecError
from costmodel.sweep.encoding import Encoded, Texts
from costmodel.sweep.thrift import BINARY, I64, STRUCT, Struct, read_struct, write_struct

__all__ = ["MAGIC", "ParquetFormat"]

MAGIC = b"PAR1"

# Fields of parquet.thrift that hold a position in the file.
_GROUP_POSITIONS = (5,)
_CHUNK_POSITIONS = (2, 4, 6)
_COLUMN_POSITIONS = (9, 10, 11, 14)
_NUM_ROWS, _ROW_GROUPS, _KEY_VALUES = 3, 4, 5
_COLUMNS, _META, _ORDINAL = 1, 3, 7


class ParquetFormat:
    """Encodes parts as row groups.

    Parameters
    ----------
    numbers : mapping of str to dtype
        Columns of numbers, in order.
    texts : mapping of str to tuple
        All values of every other column.
    repeating : set of str
        Columns of numbers whose values repeat: encoded through a dictionary.
    """

    def __init__(self, numbers: Mapping[str, Any], texts: Texts, repeating: set[str]) -> None:
        self._numbers, self._texts, self._repeating = numbers, texts, repeating

    def encode(self, columns: Mapping[str, Any], labels: Sequence[tuple[int, ...]]) -> Encoded:
        """Encode a part.

        Parameters
        ----------
        columns : mapping of str to ndarray
            Of numbers.
        labels : sequence of tuple
            For every stretch its points, then the place of its value in each text column.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        sizes = [label[0] for label in labels]
        arrays, fields = [], []
        for place, (name, values) in enumerate(self._texts.items(), start=1):
            kind = np.int32 if isinstance(values[0], int) else np.int16
            where = np.repeat(np.array([label[place] for label in labels], dtype=kind), sizes)
            if isinstance(values[0], int):
                arrays.append(pa.array(np.array(values, dtype=np.int32)[where]))
            else:
                arrays.append(pa.DictionaryArray.from_arrays(where, pa.array(values)))
            fields.append(pa.field(name, arrays[-1].type, nullable=False))
        for name in self._numbers:
            arrays.append(pa.array(columns[name]))
            fields.append(pa.field(name, arrays[-1].type, nullable=False))
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        sink = io.BytesIO()
        repeats = [*self._texts, *self._repeating]
        pq.write_table(
            table, sink, row_group_size=len(table), compression="snappy",
            use_dictionary=repeats, write_statistics=list(self._repeating),
        )  # fmt: skip
        whole = sink.getbuffer()
        size = int.from_bytes(whole[-8:-4], "little")
        return Encoded(bytes(whole[4 : -8 - size]), bytes(whole[-8 - size : -8]), len(table))

    def start(self) -> bytes:
        """Return what the file begins with."""
        return MAGIC

    def finish(
        self, footers: Sequence[bytes], positions: Sequence[int], metadata: Mapping[str, str]
    ) -> bytes:
        """Return what the file ends with.

        Parameters
        ----------
        footers : sequence of bytes
            Of the parts, in order.
        positions : sequence of int
            Where each part begins in the file.
        metadata : mapping of str to str
            What is stored beside the data.
        """
        whole = read_struct(footers[0])
        groups: list[Struct] = []
        rows = 0
        for footer, position in zip(footers, positions, strict=True):
            part = read_struct(footer)
            rows += part[_NUM_ROWS][1]
            for group in part[_ROW_GROUPS][1][1]:
                _move(group, position - len(MAGIC))
                if _ORDINAL in group:
                    group[_ORDINAL] = (group[_ORDINAL][0], len(groups) & 0x7FFF)
                groups.append(group)
        if len(groups) > 0x7FFF:
            for group in groups:
                group.pop(_ORDINAL, None)
        whole[_NUM_ROWS] = (I64, rows)
        whole[_ROW_GROUPS] = (whole[_ROW_GROUPS][0], (STRUCT, groups))
        kind, (item, pairs) = whole.get(_KEY_VALUES, (9, (STRUCT, [])))
        more = [
            {1: (BINARY, key.encode()), 2: (BINARY, value.encode())}
            for key, value in metadata.items()
        ]
        whole[_KEY_VALUES] = (kind, (item, [*pairs, *more]))
        footer = write_struct(whole)
        return footer + len(footer).to_bytes(4, "little") + MAGIC


def _move(group: Struct, by: int) -> None:
    _move_fields(group, _GROUP_POSITIONS, by)
    for chunk in group[_COLUMNS][1][1]:
        _move_fields(chunk, _CHUNK_POSITIONS, by)
        if 8 in chunk:
            raise SpecError("parquet: encrypted columns cannot be moved")
        _move_fields(chunk[_META][1], _COLUMN_POSITIONS, by)


def _move_fields(struct: Struct, numbers: Sequence[int], by: int) -> None:
    for number in numbers:
        # Zero stands for no position.
        if number in struct and struct[number][1]:
            kind, value = struct[number]
            struct[number] = (kind, value + by)
