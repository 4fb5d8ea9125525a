"""A known model's name, a ``config.json`` or a folder that holds one -> ModelSpec.

Nothing is downloaded and no code of a model is run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from costmodel.catalog.families import parts_of, read_config
from costmodel.catalog.json_files import parse_object, read_object
from costmodel.errors import SpecError, UnknownNameError
from costmodel.specs.base import Spec
from costmodel.specs.model import ModelSource, ModelSpec, Positive

__all__ = ["Preset", "list_models", "load_model", "load_preset"]

_SUFFIX = ".json"
_HINT = (
    "The path of a config.json, or of a folder that holds one, is accepted too; "
    "nothing is downloaded."
)


class Preset(Spec):
    """One file of `costmodel.catalog.models`: a known model and where it comes from."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    config: dict[str, Any]
    preprocessor: dict[str, Any] | None = None
    default_image: tuple[Positive, Positive] | None = None
    sources: tuple[ModelSource, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()


def list_models() -> tuple[str, ...]:
    """Return the names of the known models; only file names are looked at.

    Returns
    -------
    tuple of str
        Sorted names.

    Examples
    --------
    >>> "llava-1.5-7b" in list_models()
    True
    """
    files = resources.files("costmodel.catalog.models").iterdir()
    return tuple(
        sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))
    )


@cache
def load_preset(name: str) -> Preset:
    """Return the preset called `name` exactly as its file has it.

    Parameters
    ----------
    name : str
        One of `list_models`.

    Returns
    -------
    Preset
        Configuration, aliases, sources and notes.

    Raises
    ------
    UnknownNameError
        If there is no such preset.
    SpecError
        If the file is malformed.

    Examples
    --------
    >>> load_preset("llava-1.5-7b").aliases[0]
    'llava-hf/llava-1.5-7b-hf'
    """
    if name not in list_models():
        raise UnknownNameError("model", name, list_models(), _HINT)
    file = resources.files("costmodel.catalog.models") / f"{name}{_SUFFIX}"
    preset = Preset.parse(parse_object(file.read_text("utf-8"), file.name), file.name)
    if preset.name != name:
        raise SpecError(f"{file.name}: name: {preset.name!r} differs from the file's name")
    return preset


def load_model(name_or_path: str) -> ModelSpec:
    """Return the model with a known name or alias, or the one that a path describes.

    A known name wins over a folder of the same name; write ``./name`` for the
    folder.

    Parameters
    ----------
    name_or_path : str
        A name of `list_models` or an alias (hub id) in any case, the path of a
        ``config.json``, or of a folder that holds one.

    Returns
    -------
    ModelSpec
        Shapes of the model.

    Raises
    ------
    UnknownNameError
        If it is neither a known name nor looks like a path.
    SpecError
        If the file is missing, unreadable or no JSON object.
    ConfigError
        If the configuration lacks, contradicts or misspells a key.

    Examples
    --------
    >>> load_model("llava-1.5-7b").text.vocab_size
    32064
    >>> load_model("LLaVA-hf/llava-1.5-7b-HF").name
    'llava-1.5-7b'
    """
    wanted = name_or_path.strip()
    if not wanted:
        raise UnknownNameError("model", name_or_path, list_models(), _HINT)
    if wanted.lower() in list_models():
        return _from_preset(wanted.lower())
    path = Path(wanted).expanduser()
    if _exists(path):
        return _from_path(path)
    alias = _aliases().get(wanted.lower())
    if alias is not None:
        return _from_preset(alias)
    if wanted.endswith(_SUFFIX) or _has_separator(wanted):
        raise SpecError(
            f"{wanted}: no such file or folder, and no known model has this name "
            f"(known: {', '.join(list_models())}). Nothing is downloaded."
        )
    raise UnknownNameError("model", name_or_path, list_models(), _HINT)


@cache
def _aliases() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in list_models():
        for alias in load_preset(name).aliases:
            key = alias.lower()
            if key in found or key in list_models():
                raise SpecError(f"{name}{_SUFFIX}: alias {alias!r} already names another model")
            found[key] = name
    return found


@cache
def _from_preset(name: str) -> ModelSpec:
    preset = load_preset(name)
    spec = read_config(preset.config, preset.preprocessor, f"{name}{_SUFFIX}")
    return ModelSpec.parse(
        {
            **_fields(spec),
            "name": preset.name,
            "title": preset.title,
            "default_image": preset.default_image or spec.default_image,
            "sources": preset.sources,
            "notes": (*preset.notes, *spec.notes),
        },
        f"{name}{_SUFFIX}",
    )


def _from_path(path: Path) -> ModelSpec:
    file = path / "config.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise SpecError(f"{path}: this folder holds no config.json")
    config = read_object(file)
    folder = file.parent
    for key, relative in parts_of(config, str(file)).items():
        if not isinstance(config.get(key), Mapping) and (folder / relative).is_file():
            config[key] = read_object(folder / relative)
    spec = read_config(config, _image_processor(folder), str(file))
    name = folder.resolve().name if file.name == "config.json" else file.stem
    named = {"name": name or spec.name, "title": name or spec.title}
    return ModelSpec.parse({**_fields(spec), **named}, str(file))


def _image_processor(folder: Path) -> Mapping[str, Any] | None:
    """Settings beside the configuration; the nested ones win, as in transformers."""
    nested = folder / "processor_config.json"
    if nested.is_file():
        settings = read_object(nested).get("image_processor")
        if isinstance(settings, Mapping):
            return settings
    plain = folder / "preprocessor_config.json"
    return read_object(plain) if plain.is_file() else None


def _fields(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ModelSpec.model_fields}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _has_separator(text: str) -> bool:
    return any(mark in text for mark in (os.sep, os.altsep) if mark)
