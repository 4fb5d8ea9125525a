"""Operator-level cost of vision-language models.

Name a model, a GPU, a workload and a way to compress the visual tokens; get
every operator's FLOPs, bytes and time, the KV cache, memory, TTFT and TPOT.

>>> import costmodel
>>> result = costmodel.estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64,
...                             compress="cluster:k=64")
>>> result.tokens["visual_kept"], result.baseline.tokens["visual_kept"]
(64, 576)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.case import prepare
    from costmodel.catalog.hardware import list_gpus, load_gpu
    from costmodel.catalog.models_io import list_models, load_model
    from costmodel.compression.method import list_methods
    from costmodel.errors import CostModelError
    from costmodel.estimation import compare, estimate
    from costmodel.evaluation import evaluate
    from costmodel.memory import largest_batch
    from costmodel.points import evaluate_grid
    from costmodel.program import build_program
    from costmodel.results import Estimate
    from costmodel.tables.table import tabulate

__all__ = [
    "CostModelError",
    "Estimate",
    "build_program",
    "compare",
    "estimate",
    "evaluate",
    "evaluate_grid",
    "largest_batch",
    "list_gpus",
    "list_methods",
    "list_models",
    "load_gpu",
    "load_model",
    "prepare",
    "tabulate",
]

_HOMES = {
    "CostModelError": "errors",
    "Estimate": "results",
    "build_program": "program",
    "compare": "estimation",
    "estimate": "estimation",
    "evaluate": "evaluation",
    "evaluate_grid": "points",
    "largest_batch": "memory",
    "list_gpus": "catalog.hardware",
    "list_methods": "compression.method",
    "list_models": "catalog.models_io",
    "load_gpu": "catalog.hardware",
    "load_model": "catalog.models_io",
    "prepare": "case",
    "tabulate": "tables.table",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use: sympy alone takes longer than `--help` may.
    if name not in _HOMES:
        raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
    return getattr(importlib.import_module(f"costmodel.{_HOMES[name]}"), name)
