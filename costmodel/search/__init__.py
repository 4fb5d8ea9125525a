"""Questions asked of the model: where a method stops paying, what a result hangs on, what is best.

>>> from costmodel.search import break_even
>>> found = break_even("llava-1.5-7b", "a100-80gb-sxm", "cluster:iterations=10", "k",
...                    text_tokens=64, metric="flops", span=(560, 576))
>>> found.pays
((560, 573),)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.search.breakeven import BreakEven, break_even
    from costmodel.search.constraints import Constraint
    from costmodel.search.floor import WeightFloor, weight_floor
    from costmodel.search.one_at_a_time import Sensitivity, sensitivity
    from costmodel.search.pareto import pareto_mask
    from costmodel.search.published import join_scores
    from costmodel.search.results import Found, Objective, read_batches, search_results
    from costmodel.search.scaled_device import what_if
    from costmodel.search.variance import Indices, sobol

__all__ = [
    "BreakEven",
    "Constraint",
    "Found",
    "Indices",
    "Objective",
    "Sensitivity",
    "WeightFloor",
    "break_even",
    "join_scores",
    "pareto_mask",
    "read_batches",
    "search_results",
    "sensitivity",
    "sobol",
    "weight_floor",
    "what_if",
]

_HOMES = {
    "BreakEven": "breakeven",
    "Constraint": "constraints",
    "Found": "results",
    "Indices": "variance",
    "Objective": "results",
    "Sensitivity": "one_at_a_time",
    "WeightFloor": "floor",
    "break_even": "breakeven",
    "join_scores": "published",
    "pareto_mask": "pareto",
    "read_batches": "results",
    "search_results": "results",
    "sensitivity": "one_at_a_time",
    "sobol": "variance",
    "weight_floor": "floor",
    "what_if": "scaled_device",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use: pandas and scipy are needed by some only.
    if name not in _HOMES:
        raise AttributeError(f"module 'costmodel.search' has no attribute {name!r}")
    return getattr(importlib.import_module(f"costmodel.search.{_HOMES[name]}"), name)
