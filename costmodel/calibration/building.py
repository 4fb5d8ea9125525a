"""From valid timings of one stack to the fit of one kind, cross-validated and with bands."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costmodel.calibration.attention_stacks import settings_of
from costmodel.calibration.bands import Bands, bands_from_residuals
from costmodel.calibration.dtypes import DTYPES, dtype_name
from costmodel.calibration.elementwise_bytes import elementwise_sizes
from costmodel.calibration.fitting import Samples, fit, group_folds
from costmodel.calibration.processor_setups import setup_of
from costmodel.calibration.residuals import fit_residual
from costmodel.calibration.schema import Timings
from costmodel.calibration.setups import SETUPS, Setup
from costmodel.calibration.work import BYTES, FLOPS, column
from costmodel.errors import CostModelError
from costmodel.specs.calibration import BandTable, FitError, KindFit, ResidualTable, SeenShapes
from costmodel.specs.hardware import HardwareProfile
from costmodel.timing.kernels.base import Chip, FloatArray
from costmodel.timing.kernels.registry import kernel_model
from costmodel.timing.kernels.residual import Residual, coordinates

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Stack", "build_kind", "chip_of", "roofline_s", "rows_of"]

_LEVEL = 0.9
_WORTH = 0.03
_FOLDS = 4
_PRECISION = 6
_COUNTED_BYTES = 2.0
_WEIGHT_BYTES = {"gemm_w8a16": 1.0, "gemm_w4a16": 0.5}


@dataclass(frozen=True)
class Stack:
    """Which rows belong together: one device, one lab, one software.

    Attributes
    ----------
    device : str
        Hardware profile.
    source, software : str
        Beginnings of the columns of that name.
    dtypes, kernels : tuple of str
        Formats and kernels; empty for any.
    """

    device: str
    source: str = ""
    software: str = ""
    dtypes: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()

    def select(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of this stack."""
        keep = frame["gpu"] == self.device
        keep &= frame["source"].astype(str).str.startswith(self.source)
        keep &= frame["software"].astype(str).str.startswith(self.software)
        if self.dtypes and "dtype" in frame:
            keep &= frame["dtype"].isin(self.dtypes)
        if self.kernels and "kernel" in frame:
            keep &= frame["kernel"].isin(self.kernels)
        return frame[keep]


def _peak(profile: HardwareProfile, name: str) -> float | None:
    """Peak rate that products of a format are scaled with [FLOP/s]: fp16's for all of 16 bits."""
    vector = profile.peak_flops_per_s("fp32", "vector")
    if profile.is_processor:
        half = profile.peak_flops_per_s("bf16" if name == "bf16" else "fp16", "vector")
        return vector if half is None or name in ("fp32", "tf32") else half
    if name == "tf32":
        return profile.peak_flops_per_s("tf32")
    half = profile.peak_flops_per_s("fp16")
    return vector if name == "fp32" or half is None else half


def chip_of(profile: HardwareProfile, kind: str = "gemm", dtype: str = "fp16") -> Chip:
    """Return the datasheet figures that the kernel model of a kind scales with.

    Parameters
    ----------
    profile : HardwareProfile
        The device.
    kind : str
        A key of `SETUPS`.
    dtype : str
        Format of the rows; of several, joined by commas, the first counts.

    Returns
    -------
    Chip

    Raises
    ------
    CostModelError
        If the profile has no peak rate of the format.

    Examples
    --------
    >>> from costmodel.catalog.hardware import load_gpu
    >>> chip_of(load_gpu("a40")).multiprocessors
    84
    >>> chip_of(load_gpu("a40"), "gemm", "fp32").peak_flops_per_s / 1e12
    37.4
    """
    name = dtype_name(dtype.partition(",")[0]) if dtype else "fp16"
    peak = _peak(profile, name)
    if peak is None:
        raise CostModelError(f"{profile.name}: no peak rate of {name} to scale with")
    chip = Chip(
        peak_flops_per_s=peak,
        bandwidth_bytes_per_s=profile.bandwidth_bytes_per_s,
        l2_bytes=profile.l2_cache.si,
        multiprocessors=profile.multiprocessors,
        link_bytes_per_s=profile.link_bytes_per_s,
    )
    counts_elements = SETUPS[kind].timings not in ("memory_bound", "collective")
    return chip.for_elements(_element_bytes(name)) if counts_elements else chip


def _element_bytes(dtype: str) -> float:
    """Size of an activation; models of narrower ones than 16 bits do not exist."""
    known = DTYPES.get(dtype)
    return max(known.activation_bytes, _COUNTED_BYTES) if known else _COUNTED_BYTES


def rows_of(
    kind: str, timings: Sequence[Timings], stack: Stack, setup: Setup | None = None
) -> pd.DataFrame:
    """Return one row per measured shape of a kind: its sizes, group and median seconds.

    Parameters
    ----------
    kind : str
        A key of `SETUPS`.
    timings : sequence of Timings
        Valid rows of files.
    stack : Stack
        Which rows.
    setup : Setup, optional
        How the kind is fitted, if not as `SETUPS` says.

    Returns
    -------
    pandas.DataFrame
        Columns: the setup's sizes, its group columns, ``time_s``, and ``measurements``
        (how many the median is of).  Empty if there are none.  Attributes: ``kernel``, the
        implementation of attention, and ``too_short``, how many rows the setup's
        `least_fitted_s` left out.
    """
    import pandas as pd

    setup = setup or SETUPS[kind]
    frames = [stack.select(item.frame) for item in timings if item.kind == setup.timings]
    frame = pd.concat(frames) if frames else pd.DataFrame()
    if frame.empty:
        return frame
    kernel = ""
    if setup.timings == "memory_bound":
        moved = elementwise_sizes(frame)
        chosen = (moved["kind"] == kind).to_numpy()
        labels = {name: frame[name].to_numpy()[chosen] for name in ("model", "tp")}
        frame = moved[chosen].assign(**labels)
    else:
        frame = setup.rows(kind, frame).assign(time_s=lambda f: f["time_us"] * 1e-6)
        if "kernel" in frame and len(frame):
            kernel = str(frame["kernel"].mode()[0])
            frame = frame[frame["kernel"] == kernel]
        if setup.timings == "collective":
            frame = frame[frame["n_gpus"] == frame["gpus_per_node"]]
            frame = frame.assign(octave=(2 * np.log2(frame["bytes"])).round())
        frame = frame.rename(columns=dict(setup.rename))
    long = frame["time_s"] >= setup.least_fitted_s
    frame = frame[long]
    keys = list(dict.fromkeys([*setup.sizes, *setup.group]))
    grouped = frame.groupby(keys, dropna=False, sort=True)["time_s"]
    result = grouped.agg(time_s="median", measurements="size").reset_index()
    result.attrs.update(kernel=kernel, too_short=int((~long).sum()))
    return result


def roofline_s(kind: str, frame: pd.DataFrame, chip: Chip) -> FloatArray:
    """Return the datasheet roofline time of each row [s], for comparison."""
    setup = SETUPS[kind]
    if setup.timings == "collective":
        return np.asarray(column(frame, "bytes") / chip.link_bytes_per_s, dtype=np.float64)
    if setup.timings == "memory_bound":
        moved = column(frame, "read_bytes") + column(frame, "write_bytes")
        return np.asarray(moved / chip.bandwidth_bytes_per_s, dtype=np.float64)
    whole = frame.assign(causal=kind == "attention_prefill")
    # A product of weights has one operand of each, a decode step one query.
    whole = whole.assign(**{name: 1 for name in ("batch", "q_len") if name not in whole})
    flops = FLOPS[setup.timings](whole)
    moved = BYTES[setup.timings](whole, _COUNTED_BYTES, _WEIGHT_BYTES.get(kind, _COUNTED_BYTES))
    return np.maximum(flops / chip.peak_flops_per_s, moved / chip.bandwidth_bytes_per_s)


def samples_of(setup: Setup, frame: pd.DataFrame) -> Samples:
    """Return the rows of a frame of `rows_of` as samples."""
    groups = (
        frame.groupby(list(setup.group), sort=True)
        .ngroup()
        .to_numpy(dtype=np.int64)
        .astype(np.int64)
    )
    shapes = {name: frame[name].to_numpy(dtype=np.float64) for name in setup.sizes}
    return Samples(shapes, frame["time_s"].to_numpy(dtype=np.float64), groups)


def build_kind(
    kind: str,
    frame: pd.DataFrame,
    profile: HardwareProfile,
    *,
    source: str,
    software: str,
    dtype: str,
    sha256: str,
    fitted: datetime.date,
    fixed: Mapping[str, float] | None = None,
) -> KindFit:
    """Fit one kind, cross-validate it on whole groups and derive its bands.

    Parameters
    ----------
    kind : str
        A key of `SETUPS`.
    frame : pandas.DataFrame
        From `rows_of`.
    profile : HardwareProfile
        The device.
    source, software, dtype, sha256, fitted
        Recorded with the fit.
    fixed : mapping of str to float, optional
        Parameters that are not fitted, beside the setup's.

    Returns
    -------
    KindFit

    Raises
    ------
    CostModelError
        If there are too few rows.
    """
    setup = setup_of(kind, profile)
    chip = chip_of(profile, kind, dtype)
    samples = samples_of(setup, frame)
    tiled = frame.attrs.get("kernel") and not profile.is_processor
    known = settings_of(kind, frame.attrs["kernel"], samples) if tiled else {}
    setup = replace(setup, fixed={**setup.fixed, **known, **(fixed or {})})
    model = kernel_model(setup.model, benchmark=True)
    predicted, corrected = _out_of_fold(setup, samples, chip)
    wide = setup.residual is not None and _earns_its_keep(predicted, corrected, samples.time_s)
    if wide:
        predicted = corrected
    log_ratio = np.log(samples.time_s / predicted)
    judged = samples.time_s >= setup.min_time_s
    if not judged.any():
        judged = np.ones(len(samples), dtype=bool)
    found = fit(
        model, samples, chip, fixed=setup.fixed, max_rows=setup.max_rows, starts=setup.starts
    )
    plain = model.time_s(found.values, samples.shapes, chip)
    residual = _residual(setup, wide, samples, np.log(samples.time_s / plain), chip)
    size = predicted if setup.band_size == "time_s" else samples.shapes[setup.band_size]
    bands = bands_from_residuals(
        log_ratio, size, samples.groups, _LEVEL, _useful_edges(setup.band_edges, size)
    )
    return KindFit(
        kind=kind,
        model=setup.model,
        device=profile.name,
        values={name: _short(value) for name, value in found.values.items()},
        source=source,
        software=software,
        dtype=dtype,
        rows=int(frame["measurements"].sum()),
        sha256=sha256,
        fitted=fitted,
        valid={name: (float(x.min()), float(x.max())) for name, x in samples.shapes.items()},
        error=_error(samples.time_s, predicted, roofline_s(kind, frame, chip), judged),
        bands=BandTable(
            size=setup.band_size,
            edges=tuple(map(_short, bands.edges)),
            low=tuple(_short(float(np.exp(value))) for value in bands.low),
            high=tuple(_short(float(np.exp(value))) for value in bands.high),
            common_share=_common_share(profile, bands),
            level=_LEVEL,
        ),
        residual=_table(setup, wide, residual),
        seen=_seen(setup, frame),
    )


def _out_of_fold(setup: Setup, samples: Samples, chip: Chip) -> tuple[FloatArray, FloatArray]:
    """Seconds from fits that did not see a row's group, without and with the correction."""
    model = kernel_model(setup.model, benchmark=True)
    folds = min(_FOLDS, len(np.unique(samples.groups)))
    # One group only: nothing can be left out, so rows are dealt out instead.
    fold = np.arange(len(samples)) % _FOLDS if folds < 2 else group_folds(samples.groups, folds)
    plain = np.empty(len(samples))
    corrected = np.empty(len(samples))
    for index in np.unique(fold):
        inside, outside = np.flatnonzero(fold != index), np.flatnonzero(fold == index)
        train = samples.take(inside)
        values = fit(
            model, train, chip, fixed=setup.fixed, max_rows=setup.max_rows, starts=setup.starts
        ).values
        seconds = model.time_s(values, samples.shapes, chip)
        plain[outside] = corrected[outside] = seconds[outside]
        if setup.residual is not None:
            ratio = np.log(train.time_s / seconds[inside])
            residual = _residual(setup, True, train, ratio, chip)
            places = _coordinates(setup, True, samples.take(outside), chip)
            if residual is not None:
                corrected[outside] *= np.exp(residual.log_correction(places))
    return plain, corrected


def _earns_its_keep(plain: FloatArray, corrected: FloatArray, measured: FloatArray) -> bool:
    """Whether a correction lowers the error on unseen groups by more than the folds' noise."""
    before = np.abs(plain / measured - 1.0).mean()
    after = np.abs(corrected / measured - 1.0).mean()
    return bool(after < (1.0 - _WORTH) * before)


def _coordinates(setup: Setup, wide: bool, samples: Samples, chip: Chip) -> FloatArray:
    features = tuple(setup.features) if wide else ()
    return coordinates(samples.shapes, setup.sizes, features, chip.multiprocessors)


def _residual(
    setup: Setup, wide: bool, samples: Samples, log_ratio: FloatArray, chip: Chip
) -> Residual | None:
    """Return the correction that carries over to other groups, or only within measured ones."""
    scales = setup.residual if wide else setup.near
    if scales is None:
        return None
    return fit_residual(
        _coordinates(setup, wide, samples, chip),
        log_ratio,
        scales=(*scales, *setup.features.values()) if wide else scales,
        max_points=setup.residual_points if wide else setup.near_points,
        noise_ratio=setup.residual_noise if wide else setup.near_noise,
    )


def _table(setup: Setup, wide: bool, residual: Residual | None) -> ResidualTable | None:
    if residual is None:
        return None
    features = tuple(setup.features) if wide else ()
    sizes = residual.points[:, : len(setup.sizes)]
    places = np.round(2.0**sizes) if features else np.round(sizes, 4)
    return ResidualTable(
        points={
            name: tuple(map(float, places[:, index])) for index, name in enumerate(setup.sizes)
        },
        features=features,
        values=tuple(round(float(value), 5) for value in residual.values),
        scales=tuple(float(scale) for scale in residual.scales),
        amplitude=residual.amplitude,
    )


def _error(
    measured: FloatArray, predicted: FloatArray, roofline: FloatArray, judged: npt.NDArray[np.bool_]
) -> FitError:
    relative = (predicted / measured - 1.0)[judged] * 100.0
    roof = np.abs(roofline / measured - 1.0)[judged] * 100.0
    return FitError(
        rows=int(judged.sum()),
        mape_pct=round(float(np.abs(relative).mean()), 2),
        p90_pct=round(float(np.quantile(np.abs(relative), 0.9)), 2),
        bias_pct=round(float(relative.mean()), 2),
        roofline_mape_pct=round(float(roof.mean()), 2),
    )


def _useful_edges(edges: Sequence[float], size: FloatArray) -> tuple[float, ...]:
    return tuple(edge for edge in edges if size.min() < edge <= size.max())


def _seen(setup: Setup, frame: pd.DataFrame) -> SeenShapes | None:
    if not setup.seen:
        return None
    runs: dict[tuple[int, ...], int] = {}
    groups = []
    for key, part in frame.groupby(list(setup.seen), sort=True):
        run = _runs(sorted({int(value) for value in part[setup.run]}))
        sizes: Any = key if isinstance(key, tuple) else (key,)
        groups.append((*(int(size) for size in sizes), runs.setdefault(run, len(runs))))
    return SeenShapes(group=setup.seen, run=setup.run, groups=tuple(groups), runs=tuple(runs))


def _runs(values: list[int]) -> tuple[int, ...]:
    """Arithmetic runs (first, last, step, ...) that list exactly `values`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and (runs[-1][2] == 0 or value - runs[-1][1] == runs[-1][2]):
            runs[-1][2] = value - runs[-1][1]
            runs[-1][1] = value
        else:
            runs.append([value, value, 0])
    return tuple(number for first, last, step in runs for number in (first, last, step or 1))


def _common_share(profile: HardwareProfile, bands: Bands) -> float:
    """Return the share of errors in common, which shapes of equal predicted seconds do not tell.

    All kernels of a processor run on the same cores, one after the other: its clock, its
    neighbours and what its caches hold shift them alike, and one run sees one such state, which
    no shape that is left out of the fit can show.  So errors of a kind are not taken to cancel.
    """
    return 1.0 if profile.is_processor else _short(bands.common_share)


def _short(value: float) -> float:
    return float(f"{value:.{_PRECISION}g}")
