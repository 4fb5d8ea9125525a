"""One module per model family, found by the ``model_type`` of a ``config.json``.

A family module declares ``MODEL_TYPES`` and ``read``; nothing registers it.  A
type that is also the name of a module is imported directly, so that reading one
configuration does not import the others.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from costmodel.errors import ConfigError, did_you_mean
from costmodel.specs.model import ModelSpec

__all__ = ["find_family", "model_types", "parts_of", "read_config"]


@cache
def _module_names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def model_types() -> tuple[str, ...]:
    """Return every ``model_type`` that can be read; imports all families.

    Examples
    --------
    >>> "llava" in model_types() and "qwen2_vl" in model_types()
    True
    """
    return tuple(sorted(kind for name in _module_names() for kind in _load(name).MODEL_TYPES))


@cache
def find_family(model_type: str) -> ModuleType | None:
    """Return the module that reads `model_type`, or None.

    Examples
    --------
    >>> find_family("llava_next").__name__.rpartition(".")[2]
    'llava_next'
    """
    names = _module_names()
    first = [model_type] if model_type in names else []
    for name in [*first, *(other for other in names if other != model_type)]:
        module = _load(name)
        if model_type in module.MODEL_TYPES:
            return module
    return None


def _family_of(config: Mapping[str, Any], where: str) -> ModuleType:
    model_type = config.get("model_type")
    if model_type is None:
        raise ConfigError(
            f"{where}: missing key 'model_type' (supported: {', '.join(model_types())})"
        )
    if not isinstance(model_type, str) or not model_type.strip():
        raise ConfigError(f"{where}: model_type: expected a string, got {model_type!r}")
    family = find_family(model_type)
    if family is None:
        close = did_you_mean(model_type, model_types())
        guess = f", did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"{where}: model_type: {model_type!r} is not supported{guess} "
            f"(supported: {', '.join(model_types())})"
        )
    return family


def parts_of(config: Mapping[str, Any], where: str) -> Mapping[str, str]:
    """Return the keys whose objects the family may keep in files of their own.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    where : str
        File name for error messages.

    Returns
    -------
    mapping
        Key to relative path, for example ``{"llm_cfg": "llm/config.json"}``.

    Examples
    --------
    >>> parts_of({"model_type": "llava"}, "config.json")
    {}
    """
    parts: Mapping[str, str] = getattr(_family_of(config, where), "PARTS", {})
    return parts


def read_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a configuration with the family that its ``model_type`` names.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``; class defaults hold without it.
    where : str
        File name for error messages.

    Returns
    -------
    ModelSpec
        Shapes of the model.

    Raises
    ------
    ConfigError
        If the type is missing or not supported, or a key is missing, malformed
        or contradicts another.

    Examples
    --------
    >>> read_config({"model_type": "llama", "vocab_size": 32000}, None, "f").text.layers
    32
    """
    read = _family_of(config, where).read
    try:
        spec: ModelSpec = read(config, preprocessor, where)
    except ValidationError as error:
        problems = "; ".join(str(problem["msg"]) for problem in error.errors())
        raise ConfigError(f"{where}: {problems.removeprefix('Value error, ')}") from None
    return spec
