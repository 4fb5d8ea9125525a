"""How kinds are fitted on a processor that runs its own work, instead of on a GPU."""

from __future__ import annotations

from dataclasses import replace

from costmodel.calibration.setups import SETUPS, Setup
from costmodel.specs.hardware import HardwareProfile

__all__ = ["setup_of"]

_MODELS = {"gemm": "processor_gemm", "memory_bound": "processor_loop"}
# What only some operators have: softmax rows shorter than a vector and large new results, top-k a
# sort.  Others are timed on results that are there already or too small to show either.
_FIXED = {"softmax": {"lg": 0.0}, "topk": {"ts": 0.0, "tf": 0.0}}
_PLAIN = {"ts": 0.0, "tf": 0.0, "lg": 0.0}
_EDGES = (50e-6, 1e-3)


def setup_of(kind: str, profile: HardwareProfile) -> Setup:
    """Return how a kind is fitted on a device.

    Parameters
    ----------
    kind : str
        A key of `SETUPS`.
    profile : HardwareProfile
        The device.

    Returns
    -------
    Setup
        That of `SETUPS`; on a processor with the models of
        `costmodel.timing.kernels.processor` and bands over time.  Nothing is fixed but what
        only softmax or top-k have rows to tell: the cost of rows under a vector, of large new
        results, and of a sort.

    Examples
    --------
    >>> from costmodel.catalog.hardware import load_gpu
    >>> setup_of("gemm", load_gpu("a40")).model
    'tile_wave'
    """
    setup = SETUPS[kind]
    if not profile.is_processor or setup.timings == "collective":
        return setup
    return replace(
        setup,
        model=_MODELS.get(setup.timings, f"processor_{setup.timings}"),
        band_size="time_s",
        band_edges=_EDGES,
        residual=None,
        fixed=_FIXED.get(kind, _PLAIN) if setup.timings == "memory_bound" else {},
        starts=3,
        least_fitted_s=0.0,
        min_time_s=0.0,
    )
