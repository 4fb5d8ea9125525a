"""A GPU as its datasheet describes it; every number names its source."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from costmodel.specs.base import Spec
from costmodel.specs.quantity import (
    Bytes,
    BytesPerSecond,
    FlopsPerSecond,
    Frequency,
    Power,
    Quantity,
    Source,
    check_sources,
    measured_in,
)
from costmodel.specs.runtime import Duration

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

_ACCUMULATE_ORDER = ("fp32", "int32", "fp64", "fp16")


class PeakRate(Quantity):
    """A dense peak rate for one number format, accumulator and engine."""

    dtype: ComputeDtype
    accumulate: Literal["fp16", "fp32", "fp64", "int32"]
    engine: Literal["tensor", "vector"]


class Memory(Spec):
    """Device memory."""

    kind: str
    capacity: Bytes
    bandwidth: BytesPerSecond


class Interconnect(Spec):
    """Links out of the device; bandwidths are per GPU and per direction."""

    nvlink_per_direction: BytesPerSecond | None = None
    pcie_per_direction: BytesPerSecond


class HostProfile(Spec):
    """The processor that feeds the device, for work a method does on the host.

    ``call`` is what one step of a Python loop over array functions takes beside its
    arithmetic.
    """

    name: str
    title: str
    cores: int = Field(default=1, gt=0, strict=True)
    peak_fp32: FlopsPerSecond
    memory_bandwidth: BytesPerSecond
    call: Duration | None = None
    sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sources_exist(self) -> HostProfile:
        given = (self.peak_fp32, self.memory_bandwidth, self.call)
        check_sources([quantity for quantity in given if quantity is not None], self.sources)
        return self


class HardwareProfile(Spec):
    """One GPU.

    Peak rates are dense (no structured sparsity).  ``fp16`` and ``bf16``
    products accumulate in fp32 unless `PeakRate.accumulate` says otherwise.
    ``tensor_boost_clock`` is the clock of the tensor peaks, where the vendor
    quotes them below ``boost_clock``.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    vendor: str = "NVIDIA"
    architecture: str
    chip: str
    compute_capability: str
    multiprocessors: int = Field(gt=0, strict=True)
    base_clock: Frequency | None = None
    boost_clock: Frequency
    tensor_boost_clock: Frequency | None = None
    memory: Memory
    l2_cache: Bytes
    peaks: tuple[Annotated[PeakRate, measured_in("FLOP/s")], ...] = Field(min_length=1)
    interconnect: Interconnect
    tdp: Power
    notes: str = ""
    default_calibration: str | None = None
    sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sources_exist(self) -> HardwareProfile:
        check_sources(self.quantities(), self.sources)
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
            self.tensor_boost_clock,
            self.memory.capacity,
            self.memory.bandwidth,
            self.l2_cache,
            *self.peaks,
            self.interconnect.nvlink_per_direction,
            self.interconnect.pcie_per_direction,
            self.tdp,
        ]
        return [quantity for quantity in found if quantity is not None]

    def peak_flops_per_s(
        self, dtype: ComputeDtype, engine: Literal["tensor", "vector"] = "tensor"
    ) -> float | None:
        """Return the dense peak rate of one number format.

        Of several accumulators for the format the one that libraries use by
        default counts: fp32 or int32, else fp64, else fp16.

        Parameters
        ----------
        dtype : str
            Number format of the operands, a `ComputeDtype`.
        engine : {"tensor", "vector"}
            Matrix units or ordinary cores.

        Returns
        -------
        float or None
            Peak rate [FLOP/s]; None when the engine lacks the format.

        Examples
        --------
        >>> from costmodel.catalog.hardware import load_gpu
        >>> load_gpu("a100-80gb-sxm").peak_flops_per_s("bf16") / 1e12
        312.0
        >>> load_gpu("v100-sxm").peak_flops_per_s("bf16") is None
        True
        """
        found = {
            peak.accumulate: peak.si
            for peak in self.peaks
            if peak.dtype == dtype and peak.engine == engine
        }
        return next((found[kind] for kind in _ACCUMULATE_ORDER if kind in found), None)

    def dtypes(self) -> tuple[ComputeDtype, ...]:
        """Return the number formats that either engine can compute in, widest first.

        Examples
        --------
        >>> from costmodel.catalog.hardware import load_gpu
        >>> load_gpu("v100-sxm").dtypes()
        ('fp64', 'fp32', 'fp16')
        """
        have = {peak.dtype for peak in self.peaks}
        return tuple(dtype for dtype in get_args(ComputeDtype) if dtype in have)

    @property
    def is_processor(self) -> bool:
        """Whether it runs its own kernels: no queue, no launches from elsewhere."""
        return self.compute_capability == "none"

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Peak bandwidth of device memory [bytes/s]."""
        return self.memory.bandwidth.si

    @property
    def capacity_bytes(self) -> float:
        """Device memory that the driver reports [bytes]."""
        return self.memory.capacity.si

    @property
    def link_bytes_per_s(self) -> float:
        """Peak rate to another GPU, one direction [bytes/s]: NVLink if present, else PCIe."""
        return (self.interconnect.nvlink_per_direction or self.interconnect.pcie_per_direction).si
