"""A calibration: fitted parameters of kernel time models, with what they rest on."""

from __future__ import annotations

from datetime import date as Date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from costmodel.specs.base import Spec

__all__ = ["BandTable", "Calibration", "FitError", "KindFit", "ResidualTable", "SeenShapes"]

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


class ResidualTable(Spec):
    """Log corrections at points in log size space, fading to zero between and beyond them.

    Attributes
    ----------
    features : tuple of str
        Sizes whose logarithms span the space.
    points : tuple of tuple of float
        Logarithms, one row per point.
    weights : tuple of float
        Weight of each point's kernel.
    scales : tuple of float
        Length scale of each feature.
    """

    features: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    scales: tuple[Ratio, ...]


class SeenShapes(Spec):
    """Shapes that were measured, compactly: groups times runs of one size.

    Attributes
    ----------
    group : tuple of str
        Sizes that name a group, for example n and k.
    run : str
        The size that runs within a group, for example m.
    groups : tuple of (sizes, index)
        Each group with the index of its entry in `runs`.
    runs : tuple of runs
        Each a list of (first, last, step).
    """

    group: tuple[str, ...]
    run: str
    groups: tuple[tuple[tuple[int, ...], int], ...]
    runs: tuple[tuple[tuple[int, int, int], ...], ...]


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
    """

    schema_version: Literal["1"] = "1"
    name: str
    device: str
    title: str
    date: Date
    lab_spread: dict[str, Ratio] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kinds: tuple[KindFit, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Calibration:
        names = [fit.kind for fit in self.kinds]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"kinds given twice: {', '.join(twice)}")
        return self

    def find(self, kind: str) -> KindFit | None:
        """Return the fit of a kind, or None."""
        return next((fit for fit in self.kinds if fit.kind == kind), None)
