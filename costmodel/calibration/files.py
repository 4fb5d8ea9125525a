"""Opening timing files: the checks that come before any format is known."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.calibration.reading import Head
from costmodel.errors import CostModelError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_parquet", "read_head", "read_text_lines", "sha256_of"]

_HEAD_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_SQLITE = b"SQLite format 3\0"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LFS = b"version https://git-lfs.github.com/spec/"


def read_head(path: Path) -> Head:
    """Return the beginning of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Head

    Raises
    ------
    SpecError
        If there is no such file, or it is a folder, empty, a Git LFS pointer, damaged, or
        text in another encoding than UTF-8.
    """
    if not path.exists():
        raise SpecError(f"{path}: no such file")
    if path.is_dir():
        raise SpecError(f"{path}: is a folder; name the files in it")
    try:
        data = _first_bytes(path)
    except (OSError, EOFError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    if not data:
        raise SpecError(f"{path}: is empty")
    if data.startswith(_LFS):
        raise SpecError(f"{path}: is a Git LFS pointer, not the data; run `git lfs pull` there")
    if data.startswith(_PARQUET):
        return Head(data, columns=tuple(open_parquet(path).schema_arrow.names))
    if data.startswith(_SQLITE):
        return Head(data)
    if data.startswith(_UTF16):
        raise SpecError(f"{path}: is UTF-16 text; save it as UTF-8")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    columns = next(csv.reader([first]), []) if "\0" not in first else []
    return Head(data, text, tuple(column.strip() for column in columns))


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
    if data.startswith(_GZIP):
        with gzip.open(path) as unpacked:
            return unpacked.read(_HEAD_BYTES)
    return data


def open_parquet(path: Path) -> Any:
    """Return the ``pyarrow.parquet.ParquetFile`` of a path.

    Raises
    ------
    SpecError
        If the file is truncated or damaged.
    CostModelError
        If pyarrow is missing.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise CostModelError(
            f"{path}: reading parquet needs pyarrow: pip install 'costmodel[fit]'"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SpecError(f"{path}: parquet is truncated or damaged: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def read_text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, line ends kept.

    Raises
    ------
    SpecError
        If a later part is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
