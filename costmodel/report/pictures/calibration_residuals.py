"""How far predictions are from measurements: error against size, and its distribution."""

from __future__ import annotations

import numpy as np

from costmodel.calibration.judging import Judged, Validation, validate_timings
from costmodel.charts import Axis, LineChart, Panels, Picture, Series
from costmodel.errors import InputError
from costmodel.evaluation import FloatArray
from costmodel.report.picture_kinds import Asked, Kind
from costmodel.report.thinning import evenly

__all__ = ["KIND", "residual_picture"]

_MOST_POINTS = 4_000
_SHARES = np.linspace(0.005, 0.995, 199)
_WORST_PCT = 100.0


def _of_case(asked: Asked) -> Picture:
    if not asked.measured:
        raise InputError("measured", None, "timing files, whose errors are shown")
    return residual_picture(validate_timings(asked.measured, gpu=asked.gpu))


def residual_picture(result: Validation) -> Picture:
    """Return errors of a validation against size, and what share of shapes is within an error.

    Parameters
    ----------
    result : Validation
        With at least one predicted shape.

    Raises
    ------
    InputError
        If nothing was predicted.
    """
    groups = [g for g in result.groups if g.calibration is not None and g.errors.n]
    overall = result.overall
    if not groups or overall.mape_pct is None or overall.bias_pct is None:
        raise InputError("measured", "no predicted shape", "timings of a GPU with a calibration")
    kinds = list(dict.fromkeys(group.stack.kind for group in groups))
    scatter, shares, thinned = [], [], False
    for kind in kinds:
        own = [group for group in groups if group.stack.kind == kind]
        size, error, hover, fewer = _points(own)
        thinned = thinned or fewer
        name = kind.replace("_", " ")
        scatter.append(Series.of(name, size, error, mode="markers", hover=hover))
        every = np.concatenate([_error(group) for group in own])
        shares.append(Series.of(name, np.quantile(np.abs(every), _SHARES), 100 * _SHARES))
    ends = (min(min(s.x) for s in scatter), max(max(s.x) for s in scatter))
    middle = Series("prediction equals measurement", ends, (0.0, 0.0), reference=True)
    reach = min(_WORST_PCT, 1.3 * max(float(np.quantile(np.abs(s.y), 0.99)) for s in scatter))
    outside = sum(int((np.abs(_error(group)) > reach).sum()) for group in groups)
    charts = (
        LineChart(
            "error against size",
            Axis("size: time by the datasheet roofline", "us", log=True),
            Axis("predicted / measured - 1", "%", limits=(-reach, reach)),
            (middle, *scatter),
        ),
        LineChart(
            "shapes within an error",
            Axis("absolute error", "%", log=False, limits=(0.0, reach)),
            Axis("shapes", "%", limits=(0.0, 100.0)), tuple(shares),
        ),
    )  # fmt: skip
    gpus = ", ".join(dict.fromkeys(group.stack.gpu for group in groups))
    note = (
        f"{overall.n:,} shapes of at least {result.min_time_us:g} us: mean absolute error "
        f"{overall.mape_pct:.1f} %, bias {overall.bias_pct:+.1f} %, "
        f"{overall.coverage90_pct:.0f} % within their 90 % bands"
    )
    if thinned:
        note += f"\nleft: at most {_MOST_POINTS:,} of each kind, evenly over size; right: all"
    if outside:
        note += f"\n{outside:,} errors lie outside the axes"
    return Panels(f"Errors of kernel times on {gpus}", charts, columns=2, note=note)


def _error(group: Judged) -> FloatArray:
    predicted, measured = (group.points[name].to_numpy() for name in ("predicted_s", "time_s"))
    error: FloatArray = 100 * (predicted / measured - 1)
    return error


def _points(groups: list[Judged]) -> tuple[FloatArray, FloatArray, list[str], bool]:
    total = sum(len(group.points) for group in groups)
    sizes, errors, hover = [], [], []
    for group in groups:
        share = max(1, round(len(group.points) * min(1.0, _MOST_POINTS / total)))
        points = evenly(group.points.sort_values("roofline_s"), share)
        sizes.append(1e6 * points["roofline_s"].to_numpy())
        errors.append(100 * (points["predicted_s"] / points["time_s"] - 1).to_numpy())
        for row in points.to_dict("records"):
            shape = " ".join(f"{name}={row[name]:.0f}" for name in group.sizes)
            hover.append(
                f"{group.stack.label}: {shape}, measured {1e6 * row['time_s']:.4g} us, predicted "
                f"{1e6 * row['predicted_s']:.4g} us by {group.calibration}"
            )
    return np.concatenate(sizes), np.concatenate(errors), hover, total > _MOST_POINTS


KIND = Kind(
    summary="Errors of kernel times of timing files (--measured) under a calibration.",
    of_case=_of_case,
    needs_case=False,
)
