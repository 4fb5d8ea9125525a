"""What the cost of training rests on beside the estimate of a forward pass; data with sources."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Annotated

from pydantic import Field

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.specs.base import Spec

__all__ = ["Assumption", "Assumptions", "load_assumptions"]

_FILE = "assumptions.yaml"


class Assumption(Spec):
    """A number, why it is so, and where it comes from."""

    value: Annotated[float, Field(gt=0)]
    why: str
    source: str


class Assumptions(Spec):
    """Assumptions about the backward pass, the optimizer and power."""

    backward: Assumption
    optimizer_bytes_per_parameter: Assumption
    power_share: Assumption
    power_usage_effectiveness: Assumption


@lru_cache
def load_assumptions() -> Assumptions:
    """Return the assumptions.

    Examples
    --------
    >>> load_assumptions().power_usage_effectiveness.value
    1.1
    """
    return Assumptions.parse(read_yaml_mapping(files("costmodel.training") / _FILE, _FILE), _FILE)
