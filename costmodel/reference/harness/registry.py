"""The suites there are."""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from .. import suites as _suites
from .case import Suite
from .errors import unknown_name

__all__ = ["load_suite", "suite_names"]


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites.

    Examples
    --------
    >>> "gemm" in suite_names()
    True
    """
    found = (module.name for module in pkgutil.iter_modules(_suites.__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load_suite(name: str) -> Suite:
    """Return a suite by name.

    Raises
    ------
    MeasureError
        If there is none.
    """
    if name not in suite_names():
        raise unknown_name("suite", name, suite_names())
    return cast(Suite, importlib.import_module(f"{_suites.__name__}.{name}").SUITE)
