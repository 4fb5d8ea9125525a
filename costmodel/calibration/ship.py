"""Builds the shipped calibration files: ``python -m costmodel.calibration.ship TIMINGS...``."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from costmodel.calibration.borrowing import borrowed, stand_ins
from costmodel.calibration.building import Stack, build_kind, chip_of, rows_of
from costmodel.calibration.loading import load_timings
from costmodel.calibration.recipe import FitFrom, Recipe, load_recipes
from costmodel.calibration.schema import Timings
from costmodel.calibration.setups import SETUPS
from costmodel.calibration.writing import write_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.errors import CostModelError
from costmodel.specs.calibration import Calibration, KindFit
from costmodel.timing.prediction import kernel_time_s

__all__ = ["build", "build_all", "main"]

_QUANTILE = 0.9


def build_all(timings: Sequence[Timings], today: datetime.date) -> dict[str, Calibration]:
    """Return all calibrations of the recipes.

    Parameters
    ----------
    timings : sequence of Timings
        All data.
    today : date
        Recorded as the date of the fits.

    Returns
    -------
    dict of str to Calibration
    """
    recipes = load_recipes()
    done: dict[str, Calibration] = {}
    for name, recipe in recipes.items():
        done[name] = build(recipe, timings, done, today)
        print(f"{name}: {_summary(done[name])}", file=sys.stderr, flush=True)
    for name, recipe in recipes.items():
        others = [recipes[other] for other in recipe.compare]
        spread = _lab_spread(done[name], others, timings)
        done[name] = done[name].model_copy(update={"lab_spread": spread})
    for name, recipe in recipes.items():
        if not recipe.compare and recipe.needs:
            donor = done[recipe.needs[-1]]
            done[name] = done[name].model_copy(update={"lab_spread": donor.lab_spread})
    return done


def build(
    recipe: Recipe,
    timings: Sequence[Timings],
    done: Mapping[str, Calibration],
    today: datetime.date,
) -> Calibration:
    """Return the calibration of one recipe.

    Parameters
    ----------
    recipe : Recipe
        What it is made of.
    timings : sequence of Timings
        All data.
    done : mapping of str to Calibration
        Calibrations that it borrows from.
    today : date
        Date of the fits.

    Returns
    -------
    Calibration

    Raises
    ------
    CostModelError
        If a kind has no rows.
    """
    kinds = {
        kind: _fit(kind, source, recipe, timings, today) for kind, source in recipe.fit.items()
    }
    for borrow in recipe.borrow:
        for kind in borrow.names:
            donor = done[borrow.from_].find(kind)
            if donor is None:
                raise CostModelError(f"{borrow.from_} has no {kind} to borrow")
            kinds.setdefault(kind, borrowed(borrow, donor))
    if recipe.fill:
        for fit in done[recipe.fill].kinds:
            kinds.setdefault(fit.kind, fit)
    kinds |= stand_ins(kinds)
    return Calibration(
        name=recipe.name,
        device=recipe.device,
        title=recipe.title,
        date=today,
        kinds=tuple(kinds[kind] for kind in sorted(kinds)),
    )


def _fit(
    kind: str, source: FitFrom, recipe: Recipe, timings: Sequence[Timings], today: datetime.date
) -> KindFit:
    stack = Stack(recipe.device, source.source, source.software, source.dtypes, source.kernels)
    frame = rows_of(kind, timings, stack)
    if frame.empty:
        raise CostModelError(f"{recipe.name}: no rows of {kind} for {source}")
    chosen = [item for item in timings if item.kind == SETUPS[kind].timings]
    labels = {
        column: ", ".join(sorted({str(v) for i in chosen for v in stack.select(i.frame)[column]}))
        for column in ("source", "software", "dtype")
    }
    return build_kind(
        kind,
        frame,
        load_gpu(recipe.device),
        sha256=chosen[0].sha256,
        fitted=today,
        fixed=source.fixed,
        **labels,
    )


def _lab_spread(
    ours: Calibration,
    others: Sequence[Recipe],
    timings: Sequence[Timings],
) -> dict[str, float]:
    """90th percentile of the ratio between this calibration and other labs' rows, by kind."""
    spread: dict[str, float] = {}
    for fit in ours.kinds:
        ratios = []
        for other in others:
            source = other.fit.get(fit.kind)
            if source is None:
                continue
            stack = Stack(other.device, source.source, source.software, source.dtypes,
                          source.kernels)  # fmt: skip
            frame = rows_of(fit.kind, timings, stack)
            frame = frame[frame["time_s"] >= SETUPS[fit.kind].min_time_s]
            sizes = {
                name: frame[name].to_numpy(dtype=np.float64) for name in SETUPS[fit.kind].sizes
            }
            chip = chip_of(load_gpu(other.device))
            predicted = kernel_time_s(fit, sizes, chip, benchmark=True)
            ratios.append(np.abs(np.log(frame["time_s"].to_numpy() / predicted)))
        if ratios:
            every = np.concatenate(ratios)
            spread[fit.kind] = round(float(np.exp(np.quantile(every, _QUANTILE))), 3)
    return spread


def _summary(calibration: Calibration) -> str:
    parts = [
        f"{fit.kind} {fit.error.mape_pct}/{fit.error.p90_pct} %" if fit.error else f"{fit.kind} -"
        for fit in calibration.kinds
    ]
    return ", ".join(parts)


def main(arguments: Sequence[str]) -> None:
    """Write all calibration files into hardware_profiles/calibrations of this clone."""
    folder = Path(__file__).resolve().parents[2] / "hardware_profiles" / "calibrations"
    timings, report = load_timings(list(arguments))
    print(f"{report.kept} rows kept, {report.dropped} dropped", file=sys.stderr)
    folder.mkdir(exist_ok=True)
    for name, calibration in build_all(timings, datetime.date.today()).items():
        write_calibration(calibration, folder / f"{name}.yaml")


if __name__ == "__main__":
    main(sys.argv[1:])
