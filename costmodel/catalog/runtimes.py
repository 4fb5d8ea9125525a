"""Find the host costs of a runtime by name or in a user's own file."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.errors import UnknownNameError
from costmodel.specs.runtime import RuntimeProfile

__all__ = ["list_runtimes", "load_runtime"]


def list_runtimes() -> tuple[str, ...]:
    """Return the names of the runtimes that ship with the package.

    Examples
    --------
    >>> list_runtimes()
    ('compiled', 'cuda-graph', 'eager')
    """
    entries = (files("costmodel.hardware_profiles") / "runtimes").iterdir()
    names = (entry.name for entry in entries)
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_runtime(name_or_path: str | os.PathLike[str]) -> RuntimeProfile:
    """Return a runtime by name or file.

    Parameters
    ----------
    name_or_path : str or path
        A name of `list_runtimes`, or a YAML file (``.yaml`` or ``.yml``).

    Returns
    -------
    RuntimeProfile

    Raises
    ------
    UnknownNameError
        If no runtime has that name.
    SpecError
        If the file cannot be read or does not describe a runtime.

    Examples
    --------
    >>> load_runtime("cuda-graph").start.si < load_runtime("compiled").start.si
    True
    """
    text = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or text.lower().endswith((".yaml", ".yml")):
        return RuntimeProfile.parse(read_yaml_mapping(Path(text), text), text)
    if text not in list_runtimes():
        hint = "A path to a YAML file is accepted too."
        raise UnknownNameError("runtime", text, list_runtimes(), hint)
    return _shipped(text)


@lru_cache
def _shipped(name: str) -> RuntimeProfile:
    file = f"{name}.yaml"
    folder = files("costmodel.hardware_profiles") / "runtimes"
    return RuntimeProfile.parse(read_yaml_mapping(folder / file, file), file)
