"""Files: checked before anything is computed, and complete or not there at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from costmodel.errors import InputError

__all__ = ["check_output", "write_bytes", "write_text"]


def check_output(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> Path:
    """Return the path if a file can be written there.

    Parameters
    ----------
    path : str or path
        Where the result should go.
    suffixes : tuple of str, optional
        Endings that are accepted, for example ``(".html",)``; any if empty.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If it is a folder, its folder is missing, it may not be written, or it ends otherwise.

    Examples
    --------
    >>> check_output("missing-folder/out.json")
    Traceback (most recent call last):
    ...
    costmodel.errors.InputError: output: 'missing-folder/out.json' is not valid; expected ...
    """
    target = Path(path)
    problem = _problem(target)
    if suffixes and target.suffix.lower() not in suffixes:
        problem = f"a file name that ends in {', '.join(suffixes)}"
    if problem:
        raise InputError("output", os.fspath(path), problem)
    return target


def _problem(target: Path) -> str:
    try:
        if not target.name or target.is_dir():
            return "the name of a file, not of a folder"
        if not target.parent.is_dir():
            return f"a file in a folder that exists; there is no folder {str(target.parent)!r}"
        place = target if target.exists() else target.parent
    except (OSError, ValueError) as error:
        return f"a path the system accepts ({getattr(error, 'strerror', None) or error})"
    return "" if os.access(place, os.W_OK) else f"a path that may be written; {place} may not"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Parameters
    ----------
    path : str or path
        The file; what is no regular file, such as ``/dev/stdout``, is written directly.
    data : bytes
        Its content.

    Raises
    ------
    InputError
        If the system refuses.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            _replace(target.resolve(), data)
    except OSError as error:
        raise InputError("output", os.fspath(path), f"a writable path ({error.strerror})") from None


def _replace(target: Path, data: bytes) -> None:
    # In the same folder, because a rename is atomic only within one file system.
    temporary = target.with_name(f".costmodel-{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
