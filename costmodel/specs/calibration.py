"""A calibration: fitted parameters of kernel time models, with what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as Date
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from costmodel.specs.base import Spec

__all__ = [
    "BandTable",
    "Calibration",
    "FitError",
    "HostFit",
    "KindFit",
    "ResidualTable",
    "SeenShapes",
]

Ratio = Annotated[float, Field(gt=0)]


class FitError(Spec):
    """Error on shapes that were not fitted.

    Attributes
    ----------
    rows : int
        Rows judged: at least 10 us, whole groups left out.
    mape_pct, p90_pct, bias_pct : float
        Mean and 90th percentile of the absolute error, and mean error [%].
    roofline_mape_pct : float
        The datasheet roofline on the same rows [%].
    """

    rows: int
    mape_pct: float
    p90_pct: float
    bias_pct: float
    roofline_mape_pct: float


class BandTable(Spec):
    """Bounds of measured over predicted time by size.

    Attributes
    ----------
    size : str
        Size variable the bins are over: a shape's name, or ``time_s``.
    edges : tuple of float
        Inner edges of the bins.
    low, high : tuple of float
        Ratios per bin; one more than edges.
    common_share : float
        Share of the error's variance that all shapes of a stack have in common.
    level : float
        Probability that a measured time lies between.
    """

    size: str
    edges: tuple[float, ...] = ()
    low: tuple[Ratio, ...]
    high: tuple[Ratio, ...]
    common_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9

    @model_validator(mode="after")
    def _lengths(self) -> BandTable:
        if not len(self.low) == len(self.high) == len(self.edges) + 1:
            raise ValueError("low and high need one more entry than edges")
        return self


def _numbers(value: object) -> object:
    """Read a list of numbers that a file holds as one string, which is short and fast to load."""
    return tuple(value.split()) if isinstance(value, str) else value


def _numbers_by_name(value: object) -> object:
    if isinstance(value, dict):
        return {name: _numbers(numbers) for name, numbers in value.items()}
    return value


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Integers = Annotated[tuple[int, ...], BeforeValidator(_numbers)]


class ResidualTable(Spec):
    """Log corrections near measured shapes, fading to zero away from them.

    Attributes
    ----------
    points : dict of str to tuple of float
        Places, one number per place for each size: its binary logarithm [octaves], or the
        size itself where there are features, which need it exactly.
    features : tuple of str
        What else must agree for places to be near: see
        `costmodel.timing.kernels.tile_features`.
    values : tuple of float
        Weight of each place.
    scales : tuple of float
        Correlation length along each size, then each feature [octaves].
    amplitude : float
        Largest absolute correction of log time.
    """

    points: Annotated[dict[str, tuple[float, ...]], BeforeValidator(_numbers_by_name)]
    features: tuple[str, ...] = ()
    values: Numbers
    scales: Numbers
    amplitude: Ratio = 0.5

    @model_validator(mode="after")
    def _shapes(self) -> ResidualTable:
        if len(self.scales) != len(self.points) + len(self.features):
            raise ValueError("scales: one number per size and feature is needed")
        if any(len(column) != len(self.values) for column in self.points.values()):
            raise ValueError("points and values must have the same length")
        return self


class SeenShapes(Spec):
    """Shapes that were measured, compactly: groups times runs of one size.

    Attributes
    ----------
    group : tuple of str
        Sizes that name a group, for example n and k.
    run : str
        The size that runs within a group, for example m.
    groups : tuple of tuple of int
        Sizes of each group and, last, the index of its entry in `runs`.
    runs : tuple of tuple of int
        Each a flat list of first, last, step, first, last, step ...
    """

    group: tuple[str, ...]
    run: str
    groups: tuple[Integers, ...]
    runs: tuple[Integers, ...]

    @model_validator(mode="after")
    def _shapes(self) -> SeenShapes:
        if any(len(entry) != len(self.group) + 1 for entry in self.groups):
            raise ValueError("groups: sizes and the index of a run are needed")
        if any(not 0 <= entry[-1] < len(self.runs) for entry in self.groups):
            raise ValueError("groups: an index is beyond the runs")
        if any(len(entry) % 3 for entry in self.runs):
            raise ValueError("runs: triples of first, last and step are needed")
        return self

    def holds(self, sizes: Mapping[str, float]) -> bool:
        """Return whether this very shape was measured.

        Examples
        --------
        >>> seen = SeenShapes(group=("n", "k"), run="m", groups=("4096 1024 0",),
        ...                   runs=("1 8 1 16 64 16",))
        >>> [seen.holds({"n": 4096, "k": 1024, "m": m}) for m in (8, 32, 33)]
        [True, True, False]
        """
        wanted = [sizes[name] for name in self.group]
        value = sizes[self.run]
        for *group, index in self.groups:
            if group == wanted:
                flat = self.runs[index]
                runs = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
                return any(a <= value <= b and (value - a) % step == 0 for a, b, step in runs)
        return False


class KindFit(Spec):
    """One kernel kind on one stack.

    Attributes
    ----------
    kind : str
        gemm, gemm_w8a16, attention_prefill, rmsnorm, all_reduce ...
    model : str
        Name of the kernel time model.
    origin : {"fitted", "transferred", "borrowed"}
        Fitted on this device, scaled from a sibling chip, or taken over by a rule.
    device : str
        Device the parameters were fitted on.
    rule : str
        For transferred and borrowed: how.
    time_scale : float
        Factor on the predicted time (transfer).
    values : dict of str to float
        Parameters of the kernel model.
    source, software, dtype : str
        Stack the data come from.
    rows : int
        Rows fitted.
    sha256 : str
        Hash of the data file.
    fitted : date
        When.
    valid : dict of str to (low, high)
        Range of each size in the data.
    error : FitError, optional
        Cross-validated; None where nothing was measured.
    bands : BandTable
        Same-stack bounds.
    """

    kind: str
    model: str
    origin: Literal["fitted", "transferred", "borrowed"] = "fitted"
    device: str
    rule: str = ""
    time_scale: Ratio = 1.0
    values: dict[str, float]
    source: str
    software: str
    dtype: str
    rows: Annotated[int, Field(ge=0)]
    sha256: str = ""
    fitted: Date
    valid: dict[str, tuple[float, float]] = Field(default_factory=dict)
    error: FitError | None = None
    bands: BandTable
    residual: ResidualTable | None = None
    seen: SeenShapes | None = None


_LIKE = dict.fromkeys(("argmin", "topk", "scatter"), "reduction")
"""Kinds that few have measured, and the one whose rate they have else."""

NotNegative = Annotated[float, Field(ge=0)]


class HostFit(Spec):
    """Host costs of one runtime as measured, in place of the runtime's defaults.

    Attributes
    ----------
    runtime : str
        eager, compiled or cuda-graph.
    launch_s, launch_low_s, launch_high_s : float
        Host time per kernel, and the range that runs scatter over [s].
    start_s, gap_s, sync_s : float
        As of `costmodel.specs.runtime.RuntimeProfile` [s].
    source, software : str
        Who measured, and with what.
    rows : int
        Measurements.
    fitted : date
        When.
    """

    runtime: str
    launch_s: NotNegative
    launch_low_s: NotNegative
    launch_high_s: NotNegative
    start_s: NotNegative = 0.0
    gap_s: NotNegative = 0.0
    sync_s: NotNegative = 0.0
    source: str
    software: str
    rows: Annotated[int, Field(ge=0)]
    fitted: Date

    @model_validator(mode="after")
    def _range(self) -> HostFit:
        if not self.launch_low_s <= self.launch_s <= self.launch_high_s:
            raise ValueError("launch_s must lie from launch_low_s to launch_high_s")
        return self


class Calibration(Spec):
    """All kinds of one device and stack.

    Attributes
    ----------
    name : str
        ``<device>.<stack>``, the file's name.
    device : str
        Profile it belongs to.
    title : str
        For people.
    lab_spread : dict of str to float
        By kind: ratio by which another lab or framework differs, 90th percentile.
    kinds : tuple of KindFit
        At most one of each kind.
    host : tuple of HostFit
        Measured host costs, at most one of each runtime.
    """

    schema_version: Literal["1"] = "1"
    name: str
    device: str
    title: str
    date: Date
    lab_spread: dict[str, Ratio] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kinds: tuple[KindFit, ...] = Field(min_length=1)
    host: tuple[HostFit, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Calibration:
        names = [fit.kind for fit in self.kinds] + [fit.runtime for fit in self.host]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"given twice: {', '.join(twice)}")
        return self

    def find(self, kind: str) -> KindFit | None:
        """Return the fit of a kind, or None."""
        return next((fit for fit in self.kinds if fit.kind == kind), None)

    def find_or_like(self, kind: str) -> KindFit | None:
        """Return the fit of a kind, or that of the kind it is most like, as transferred."""
        found = self.find(kind)
        like = _LIKE.get(kind)
        if found is not None or like is None:
            return found
        other = self.find(like)
        return other and other.model_copy(update={"origin": "transferred", "seen": None})

    def find_host(self, runtime: str) -> HostFit | None:
        """Return the measured host costs of a runtime, or None."""
        return next((fit for fit in self.host if fit.runtime == runtime), None)
