"""Finds a kernel time model by the name that calibration files use."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from costmodel.errors import UnknownNameError
from costmodel.timing import kernels as _kernels
from costmodel.timing.kernels.base import KernelModel

__all__ = ["kernel_model", "list_kernel_models"]


@lru_cache(maxsize=1)
def _models() -> dict[str, KernelModel]:
    found: dict[str, KernelModel] = {}
    for item in pkgutil.iter_modules(_kernels.__path__):
        module = importlib.import_module(f"{_kernels.__name__}.{item.name}")
        # One kernel per module, or several variants that share their code.
        single = (module.MODEL,) if hasattr(module, "MODEL") else ()
        models: tuple[KernelModel, ...] = getattr(module, "MODELS", single)
        found |= {model.name: model for model in models}
    return found


def list_kernel_models() -> tuple[str, ...]:
    """Return the names of all kernel time models.

    Examples
    --------
    >>> "tile_wave" in list_kernel_models()
    True
    """
    return tuple(sorted(_models()))


def kernel_model(name: str) -> KernelModel:
    """Return the kernel time model called `name`.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    models = _models()
    if name not in models:
        raise UnknownNameError("kernel model", name, models)
    return models[name]
