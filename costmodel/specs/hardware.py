"""A GPU as its datasheet describes it; every number names its source."""

from __future__ import annotations

from datetime import date as Date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from costmodel.specs.base import Spec
from costmodel.units import UNIT_FACTORS, to_si

__all__ = [
    "ComputeDtype",
    "HardwareProfile",
    "HostProfile",
    "Interconnect",
    "Memory",
    "PeakRate",
    "Quantity",
    "Source",
]

ComputeDtype = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4", "fp4"]
"""Number formats a device can multiply in."""


class Source(Spec):
    """Where a number comes from."""

    title: str
    url: str = Field(pattern=r"^(https?://|doi:)")
    date: Date
    note: str = ""


class Quantity(Spec):
    """A number with its unit and the key of its source."""

    value: Annotated[float, Field(gt=0)]
    unit: str
    source: str = "user"

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit not in UNIT_FACTORS:
            raise ValueError(f"unknown unit; known: {', '.join(UNIT_FACTORS)}")
        return unit

    @property
    def si(self) -> float:
        """The value in bytes, bytes/s, FLOP/s, Hz, W or s."""
        return to_si(self.value, self.unit)


class PeakRate(Quantity):
    """A dense peak rate for one number format, accumulator and engine."""

    dtype: ComputeDtype
    accumulate: Literal["fp16", "fp32", "fp64", "int32"]
    engine: Literal["tensor", "vector"]


class Memory(Spec):
    """Device memory."""

    kind: str
    capacity: Quantity
    bandwidth: Quantity


class Interconnect(Spec):
    """Links out of the device; bandwidths are per GPU and per direction."""

    nvlink_per_direction: Quantity | None = None
    pcie_per_direction: Quantity


class HostProfile(Spec):
    """The processor that feeds the device, for work a method does on the host."""

    name: str
    title: str
    peak_fp32: Quantity
    memory_bandwidth: Quantity
    sources: dict[str, Source] = Field(default_factory=dict)


class HardwareProfile(Spec):
    """One GPU.

    Peak rates are dense (no structured sparsity).  ``fp16`` and ``bf16``
    products accumulate in fp32 unless `PeakRate.accumulate` says otherwise.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    vendor: str = "NVIDIA"
    architecture: str
    chip: str
    compute_capability: str
    multiprocessors: int = Field(gt=0)
    base_clock: Quantity | None = None
    boost_clock: Quantity
    memory: Memory
    l2_cache: Quantity
    peaks: tuple[PeakRate, ...] = Field(min_length=1)
    interconnect: Interconnect
    tdp: Quantity
    notes: str = ""
    sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sources_exist(self) -> HardwareProfile:
        for quantity in self.quantities():
            if quantity.source != "user" and quantity.source not in self.sources:
                raise ValueError(
                    f"source {quantity.source!r} is not listed under 'sources' "
                    f"({', '.join(self.sources) or 'empty'})"
                )
        return self

    @model_validator(mode="after")
    def _peaks_are_unique(self) -> HardwareProfile:
        keys = [(peak.dtype, peak.accumulate, peak.engine) for peak in self.peaks]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"peak rate {key} is given twice")
        return self

    def quantities(self) -> list[Quantity]:
        """Return every number that carries a source."""
        found: list[Quantity | None] = [
            self.base_clock,
            self.boost_clock,
            self.memory.capacity,
            self.memory.bandwidth,
            self.l2_cache,
            *self.peaks,
            self.interconnect.nvlink_per_direction,
            self.interconnect.pcie_per_direction,
            self.tdp,
        ]
        return [quantity for quantity in found if quantity is not None]
