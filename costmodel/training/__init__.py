"""What it costs to train a model in stages: FLOPs, hours, GPU-hours and energy.

>>> from costmodel.training import train_cost
>>> cost = train_cost("llava-1.5-7b", "a100-80gb-sxm", recipe="llava-1.5")
>>> [stage.name for stage in cost.stages]
['alignment', 'instruction tuning']
"""

from __future__ import annotations

from costmodel.training.costing import train_cost
from costmodel.training.recipe import Recipe, list_recipes, load_recipe
from costmodel.training.results import StageCost, TrainingCost
from costmodel.training.rules import Passes, passes

__all__ = [
    "Passes",
    "Recipe",
    "StageCost",
    "TrainingCost",
    "list_recipes",
    "load_recipe",
    "passes",
    "train_cost",
]
