"""Finds a kernel time model by the name that calibration files use."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from costmodel.errors import UnknownNameError
from costmodel.timing import kernels as _kernels
from costmodel.timing.kernels.base import KernelModel

__all__ = ["kernel_model", "list_kernel_models"]


@lru_cache(maxsize=2)
def _models(benchmark: bool) -> dict[str, KernelModel]:
    found: dict[str, KernelModel] = {}
    for item in pkgutil.iter_modules(_kernels.__path__):
        module = importlib.import_module(f"{_kernels.__name__}.{item.name}")
        for value in (*vars(module).values(), *getattr(module, "MODELS", ())):
            if isinstance(value, type) or not isinstance(value, KernelModel):
                continue
            repeated = not getattr(value, "cold_weights", True)
            if value.name not in found or repeated == benchmark:
                found[value.name] = value
    return found


def list_kernel_models() -> tuple[str, ...]:
    """Return the names of all kernel time models.

    Examples
    --------
    >>> "tile_wave" in list_kernel_models()
    True
    """
    return tuple(sorted(_models(False)))


def kernel_model(name: str, *, benchmark: bool = False) -> KernelModel:
    """Return the kernel time model called `name`.

    Parameters
    ----------
    name : str
        Name in calibration files.
    benchmark : bool
        Whether the variant for rows of a benchmark is wanted, where repetitions leave
        operands in the cache; it shares the parameters.

    Returns
    -------
    KernelModel

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    models = _models(benchmark)
    if name not in models:
        raise UnknownNameError("kernel model", name, models)
    return models[name]
