"""The registry of timing formats: each is one module of `costmodel.calibration.sources`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import cast

from costmodel.calibration import sources as _sources
from costmodel.calibration.reading import Head, Source
from costmodel.calibration.schema import KINDS
from costmodel.errors import SpecError, UnknownNameError, did_you_mean

__all__ = ["find_source", "list_sources", "load_source"]


@lru_cache
def list_sources() -> tuple[str, ...]:
    """Return the names of all formats that are read.

    Examples
    --------
    >>> "vidur" in list_sources()
    True
    """
    return tuple(sorted(module.name for module in pkgutil.iter_modules(_sources.__path__)))


def load_source(name: str) -> Source:
    """Return one format's reader.

    Raises
    ------
    UnknownNameError
        If there is no such format.
    """
    if name not in list_sources():
        raise UnknownNameError("timing format", name, list_sources())
    return cast(Source, importlib.import_module(f"{_sources.__name__}.{name}"))


def find_source(path: Path, head: Head) -> Source:
    """Return the reader that recognises a file.

    Parameters
    ----------
    path : Path
        The file; its ending and, for some formats, its name and folders count.
    head : Head
        Its beginning.

    Returns
    -------
    Source

    Raises
    ------
    SpecError
        If no format recognises it; names all formats and the nearest tidy kind.
    """
    name = path.name.lower()
    for source in map(load_source, list_sources()):
        if name.endswith(source.SUFFIXES) and source.matches(path, head):
            return source
    known = "; ".join(f"{name} ({load_source(name).TITLE})" for name in list_sources())
    raise SpecError(f"{path}: not a format that is read.{_nearest(head)} Known: {known}.")


def _nearest(head: Head) -> str:
    """Say what a table lacks to be of the tidy kind it is nearest to."""
    have = set(head.columns)
    needed = {
        kind.name: [column.name for column in kind.columns if column.needed]
        for kind in KINDS.values()
        if kind.tell
    }
    share = {kind: len(have.intersection(names)) / len(names) for kind, names in needed.items()}
    best = max(share, key=lambda kind: share[kind])
    if share[best] < 0.5:
        return ""
    others = have.difference(KINDS[best].names)
    missing = []
    for name in needed[best]:
        if name not in have:
            close = did_you_mean(name, others)
            missing.append(f"{name!r}" + (f" (did you mean {close!r} for it?)" if close else ""))
    return f" It lacks of tidy {best} timings: {', '.join(missing)}."
