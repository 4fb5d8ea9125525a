"""Visual-token compression methods that run: one module per method, each with its ``METHOD``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from .method import MethodCase, Prepared, ReferenceMethod

__all__ = ["MethodCase", "Prepared", "ReferenceMethod", "load_method", "method_names"]


@cache
def _methods() -> dict[str, ReferenceMethod]:
    modules = [
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    ]
    made: list[ReferenceMethod] = [m.METHOD for m in modules if hasattr(m, "METHOD")]
    return {method.name: method for method in sorted(made, key=lambda one: one.name)}


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, in alphabetical order."""
    return tuple(_methods())


def load_method(name: str) -> ReferenceMethod:
    """Return the method of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in _methods():
        raise ValueError(f"method: there is no {name!r}, only {', '.join(_methods())}")
    return _methods()[name]
