"""Strict reading of JSON objects: what a hub file may hold, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from costmodel.errors import SpecError

__all__ = ["LARGEST_FILE_BYTES", "parse_object", "read_object"]

LARGEST_FILE_BYTES = 10_000_000
"""A configuration is a few kilobytes; anything larger is another kind of file."""


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in the file at `path`.

    Parameters
    ----------
    path : Path
        A regular file of at most `LARGEST_FILE_BYTES`.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    SpecError
        If the file is missing, too large, not UTF-8, not JSON, no object, or
        holds a duplicate key, NaN or infinity.
    """
    try:
        if not path.is_file():
            problem = "is no regular file" if path.exists() else "no such file"
            raise SpecError(f"{path}: {problem}")
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise SpecError(
                f"{path}: {size:,} bytes is too large for a configuration "
                f"(at most {LARGEST_FILE_BYTES:,})"
            )
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 (byte {error.start})") from None
    return parse_object(content, str(path))


def parse_object(content: str, where: str) -> dict[str, Any]:
    """Parse a JSON object, refusing duplicate keys and numbers that JSON does not have.

    Parameters
    ----------
    content : str
        JSON text.
    where : str
        File name for error messages.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    SpecError
        If the text is not JSON, no object, nested too deeply, or holds a
        duplicate key, NaN or infinity.

    Examples
    --------
    >>> parse_object('{"hidden_size": 64}', "config.json")
    {'hidden_size': 64}
    >>> parse_object('{"a": 1, "a": 2}', "config.json")
    Traceback (most recent call last):
        ...
    costmodel.errors.SpecError: config.json: key 'a' is given twice
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise SpecError(f"{where}: key {key!r} is given twice")
            found[key] = value
        return found

    def no_constant(name: str) -> NoReturn:
        raise SpecError(f"{where}: {name} is no JSON number")

    try:
        value = json.loads(content, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{where}: invalid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise SpecError(f"{where}: nested too deeply for a configuration") from None
    except ValueError as error:
        # Python refuses to convert integers of more than 4300 digits.
        raise SpecError(f"{where}: invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise SpecError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value
