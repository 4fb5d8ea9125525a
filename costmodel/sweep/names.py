"""Axes of names: each value checked where it is written, not where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from costmodel.catalog.hardware import load_gpu
from costmodel.catalog.models_io import load_model
from costmodel.compression.method import split
from costmodel.errors import InputError, UnknownNameError
from costmodel.specs.workload import (
    ACTIVATION_DTYPES,
    DTYPE_BYTES,
    MAX_TOKENS,
    AttentionName,
    Runtime,
    check_count,
    check_dtype,
)
from costmodel.timing.model import load_time_model
from costmodel.vision_tokens import parse_image

__all__ = ["SEPARATOR", "known_names", "method_parts", "options_of"]

SEPARATOR = " then "

_CHOICES = {
    "dtype": ACTIVATION_DTYPES, "weights_dtype": tuple(DTYPE_BYTES), "kv_dtype": ACTIVATION_DTYPES,
    "runtime": get_args(Runtime), "attention": get_args(AttentionName),
}  # fmt: skip
_COUNTS = {"visual_tokens": (0, MAX_TOKENS), "output_tokens": (0, MAX_TOKENS), "tp": (1, 1024)}


def options_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the axes that are no ranges, as tuples of plain values, each once.

    Raises
    ------
    InputError
        If one is empty or holds what it may not.
    """
    found: dict[str, Any] = {}
    for name in (
        "model",
        "gpu",
        "method",
        "image",
        *_CHOICES,
        *_COUNTS,
        "time_model",
        "calibration",
    ):
        if name not in fields:
            continue
        values = fields[name]
        items = list(values) if isinstance(values, list | tuple) else [values]
        if not items:
            raise InputError(name, values, "at least one value")
        read: list[Any]
        if name == "image":
            read = [_images(item) for item in items]
        elif name == "method":
            read = [_method(item) for item in items]
        elif name in _COUNTS:
            low, high = _COUNTS[name]
            read = [check_count(name, item, low=low, high=high) for item in items]
        else:
            for item in items:
                if not isinstance(item, str):
                    raise InputError(name, item, "a name")
            read = items
        found[name] = tuple(dict.fromkeys(read))
    return found


def known_names(fields: Mapping[str, Any]) -> None:
    """Look every name up.

    Raises
    ------
    CostModelError
        If one is not known, or the parameters of a method are not valid.
    """
    for model in fields["model"]:
        load_model(model)
    for gpu in fields["gpu"]:
        load_gpu(gpu)
    for name, choices in _CHOICES.items():
        for value in fields.get(name, ()):
            check_dtype(name, value, choices)
    for name in fields.get("time_model", ()):
        load_time_model(name)
    for text in fields.get("method", ()):
        for part in method_parts(text):
            method, given = split(part)
            # Values are checked where the count is known, which may be part of them.
            for key in given:
                if key not in method.Params.model_fields:
                    raise UnknownNameError(
                        f"parameter of {method.name}", key, method.Params.model_fields
                    )


def method_parts(text: str) -> list[str]:
    """Return the methods of a chain.

    Examples
    --------
    >>> method_parts("random:k=192 then cluster")
    ['random:k=192', 'cluster']
    """
    return [part.strip() for part in text.split(SEPARATOR)]


def _images(item: Any) -> tuple[str, ...]:
    sizes = list(item) if isinstance(item, list | tuple) else [item]
    if not sizes:
        raise InputError("image", item, "WIDTHxHEIGHT, or a list of them for several in a request")
    for size in sizes:
        if not isinstance(size, str):
            raise InputError("image", size, "WIDTHxHEIGHT in pixels, for example 336x336")
        parse_image(size)
    return tuple(sizes)


def _method(item: Any) -> str:
    expected = "METHOD, METHOD:key=value,..., {METHOD: {key: value}}, or a list of them for a chain"
    if isinstance(item, str):
        return SEPARATOR.join(method_parts(item))
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, params),) = item.items()
        if isinstance(params, Mapping):
            return f"{name}:" + ",".join(f"{key}={value}" for key, value in params.items())
    if isinstance(item, list | tuple) and item:
        return SEPARATOR.join(_method(part) for part in item)
    raise InputError("method", item, expected)
