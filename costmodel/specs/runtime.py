"""What the host costs when it starts kernels, by runtime; every number names its source."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from costmodel.specs.base import Spec
from costmodel.specs.quantity import Quantity, Source, check_sources

__all__ = ["Duration", "RuntimeProfile"]


def _is_time(quantity: Quantity) -> Quantity:
    if quantity.unit not in ("s", "ms", "us"):
        raise ValueError(f"unit {quantity.unit!r} does not fit here; use s, ms, us")
    return quantity


Duration = Annotated[Quantity, AfterValidator(_is_time)]


class RuntimeProfile(Spec):
    """Host costs of one runtime; a cost that is left out is nothing.

    Attributes
    ----------
    name, title : str
        Name of the deployment's runtime, and for people.
    launch : Duration
        Host time per kernel.
    launch_low, launch_high : Duration, optional
        Range of what sources say of it.
    start : Duration, optional
        Host time before the first kernel of a stage: guards of compiled code, replay of a graph.
    gap : Duration, optional
        Idle time of the GPU between two kernels that are both queued.
    sync : Duration
        From the end of the last kernel until the host goes on, when it waits for a result.
    notes : str
        How the numbers were chosen.
    sources : dict of str to Source
        By key.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    launch: Duration
    launch_low: Duration | None = None
    launch_high: Duration | None = None
    start: Duration | None = None
    gap: Duration | None = None
    sync: Duration
    notes: str = ""
    sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sources_exist(self) -> RuntimeProfile:
        check_sources(self.quantities(), self.sources)
        return self

    @model_validator(mode="after")
    def _range_holds_the_value(self) -> RuntimeProfile:
        low, high = self.launch_low or self.launch, self.launch_high or self.launch
        if not low.si <= self.launch.si <= high.si:
            raise ValueError("launch must lie from launch_low to launch_high")
        return self

    def quantities(self) -> list[Quantity]:
        """Return every number that carries a source."""
        found = (
            self.launch, self.launch_low, self.launch_high, self.start, self.gap, self.sync,
        )  # fmt: skip
        return [quantity for quantity in found if quantity is not None]
