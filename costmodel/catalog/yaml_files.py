"""Read a YAML file that somebody else wrote: safely, and with one readable line per problem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.errors import SpecError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["MAX_BYTES", "MAX_DEPTH", "read_yaml_mapping"]

MAX_BYTES = 1_000_000
"""Largest file that is read [bytes]."""

MAX_DEPTH = 20
"""Deepest nesting that is read; libyaml overruns the C stack far below `MAX_BYTES`."""


def read_yaml_mapping(source: Path | Traversable, where: str) -> dict[Any, Any]:
    """Read a YAML file whose document is a mapping.

    Parameters
    ----------
    source : Path or Traversable
        The file.
    where : str
        How messages name the file.

    Returns
    -------
    dict
        The document, of plain Python objects only.

    Raises
    ------
    SpecError
        If the file is missing, unreadable, larger than `MAX_BYTES`, not UTF-8, not valid
        YAML, uses tags, anchors or aliases, is nested deeper than `MAX_DEPTH`, or holds
        something other than one mapping.

    Examples
    --------
    >>> from importlib.resources import files
    >>> data = read_yaml_mapping(files("costmodel.hardware_profiles") / "a40.yaml", "a40.yaml")
    >>> data["multiprocessors"]
    84
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = _read_text(source, where)
    try:
        _check_structure(yaml, yaml.parse(text, Loader=loader), where)
        data = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(f"{where}{place}: {' '.join(problem.split())}") from None
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise SpecError(f"{where}: expected a mapping of keys, got {kind}")
    return data


def _read_text(source: Path | Traversable, where: str) -> str:
    try:
        if source.is_dir():
            raise SpecError(f"{where}: is a directory, expected a YAML file")
        if not source.is_file():
            exists = isinstance(source, Path) and source.exists()
            raise SpecError(f"{where}: {'not a regular file' if exists else 'no such file'}")
        with source.open("rb") as file:
            content: bytes = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{where}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"{where}: larger than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{where}: not UTF-8 text (byte {error.start})") from None


def _check_structure(yaml: Any, events: Any, where: str) -> None:
    depth = 0
    for event in events:
        # An alias can stand for a tree that is exponentially larger than the file.
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise SpecError(f"{where}, line {line}: anchors and aliases (&, *) are not supported")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1
            raise SpecError(f"{where}, line {line}: nested deeper than {MAX_DEPTH} levels")
