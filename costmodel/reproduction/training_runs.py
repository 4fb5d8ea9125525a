"""Hours of training that others report, and ours for the run that stands for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.reproduction.published import Published
from costmodel.training import TrainingCost, train_cost

__all__ = ["TrainingRun", "training_run"]

_FILE = "training_runs.yaml"
_PER_HOUR = {"h": 1.0, "min": 60.0, "GPU h": 1.0}


@dataclass(frozen=True)
class TrainingRun:
    """Our figure of a published training run, in its unit.

    Attributes
    ----------
    value : float
    band : tuple of float, optional
        90 % band for any lab and software and over the assumed range of text tokens.
    how : str
        The run that was computed.
    timed : str
        What the published figure covers, as far as its source says.
    """

    value: float
    band: tuple[float, float] | None
    how: str
    timed: str


def training_run(row: Published) -> TrainingRun | None:
    """Return our figure of a published row; None if it is not of a known training run."""
    for known in _load():
        if all(getattr(row, key) == known[key] for key in ("paper", "metric", "method", "model")):
            return _computed(row, known)
    return None


def _computed(row: Published, known: dict[str, Any]) -> TrainingRun:
    cost = _cost(tuple(sorted(known["run"].items())))
    stage = known.get("stage")
    timed = next((one for one in cost.stages if one.name == stage), cost)
    scale = _PER_HOUR[row.unit] * (cost.gpus if row.unit == "GPU h" else 1)
    band = timed.band_hours
    parts = [
        f"{cost.model}, recipe {cost.recipe}, {stage or 'all stages'}, {cost.gpus} x {cost.gpu}",
        "no compression" if cost.compress == "none" else cost.compress,
        *([f"assumed: {known['assumed']}"] if known["assumed"] else []),
    ]
    return TrainingRun(
        value=scale * timed.hours,
        band=None if band is None else (scale * band[0], scale * band[1]),
        how="; ".join(parts),
        timed=known["timed"],
    )


@cache
def _cost(options: tuple[tuple[str, Any], ...]) -> TrainingCost:
    # Rows of two stages share a run.
    return train_cost(**dict(options))


@cache
def _load() -> tuple[dict[str, Any], ...]:
    data = read_yaml_mapping(files("costmodel.reproduction") / "data" / _FILE, _FILE)
    return tuple(data["runs"])
