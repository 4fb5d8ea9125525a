"""What compression methods cost by themselves: measured runs against the operators of a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.calibration.method_requests import params_of, request_of
from costmodel.calibration.report import Problem, Tally
from costmodel.calibration.schema import Timings
from costmodel.case import prepare
from costmodel.catalog.hardware import load_host
from costmodel.catalog.models_io import load_model
from costmodel.errors import CostModelError, SpecError
from costmodel.evaluation import Evaluation, evaluate
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.specs.vision_rules import FixedRule
from costmodel.specs.workload import Deployment
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.model import PassTimes, load_time_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COMPRESSION",
    "OVERHEAD_SIZES",
    "OverheadGroup",
    "overhead_groups",
    "predict_overheads",
]

COMPRESSION = "compression"
"""Kind of timings that holds runs of methods."""

OVERHEAD_SIZES = ("batch", "tokens", "kept", "width")
"""What a point of them is shown by."""

_BASE = "llava-1.5-7b"
_STACK = ["gpu", "source", "software", "dtype", "method"]
_RUN = ["variant", "runtime", *OVERHEAD_SIZES, "params"]


class OverheadGroup(NamedTuple):
    """Stack and method of some rows."""

    gpu: str
    source: str
    software: str
    dtype: str
    method: str


def overhead_groups(
    timings: Sequence[Timings],
) -> tuple[list[tuple[OverheadGroup, pd.DataFrame]], list[Problem]]:
    """Return the measured runs of each stack and method, and rows that no plan describes.

    Parameters
    ----------
    timings : sequence of Timings
        Of any kind; others are not looked at.

    Returns
    -------
    groups : list of (OverheadGroup, pandas.DataFrame)
        One row per run: its columns, ``compress`` (see `request_of`) and ``time_s``, the median
        of repeated measurements.
    problems : list of Problem
        Methods, implementations and parameters that the cost model does not have.
    """
    import pandas as pd

    problems: list[Problem] = []
    known = []
    for item in timings:
        if item.kind != COMPRESSION:
            continue
        asked, noticed = _requests(item)
        problems += noticed
        known.append(item.frame.assign(compress=asked).loc[[one != "" for one in asked]])
    if not known:
        return [], []
    rows = pd.concat(known)
    rows = rows.assign(time_s=rows["time_us"] * 1e-6)
    groups = []
    for values, some in rows.groupby(_STACK, sort=True):
        median = some.groupby([*_RUN, "compress"], sort=True)[["time_s"]].median()
        groups.append((OverheadGroup(*map(str, values)), median.reset_index()))
    return groups, problems


def _requests(item: Timings) -> tuple[list[str], list[Problem]]:
    """Return what each row asks for, empty where no plan describes it."""
    tally = Tally(item.path)
    asked: list[str] = []
    for number, row in zip(item.frame.index, item.frame.to_dict("records"), strict=True):
        try:
            asked.append(request_of(row))
        except CostModelError as error:
            asked.append("")
            tally.add(f"compression: {error}", np.array([number]))
    return asked, tally.problems()


def predict_overheads(
    group: OverheadGroup, runs: pd.DataFrame, profile: HardwareProfile, calibration: str | None
) -> pd.DataFrame:
    """Return measured runs with what the model says of them.

    Time is that of the plan's own operators and of the host between them: nothing else of the
    model is computed.

    Parameters
    ----------
    group : OverheadGroup
        Stack and method.
    runs : pandas.DataFrame
        From `overhead_groups`.
    profile : HardwareProfile
        The device.
    calibration : str, optional
        Name or file; the device's default without.

    Returns
    -------
    pandas.DataFrame
        With ``predicted_s``, ``low_s``, ``high_s`` (same stack), ``any_low_s``, ``any_high_s``
        (any lab and software), ``host_s`` (the host's part of the prediction), ``roofline_s``
        [s] and ``predicted_launches``.

    Raises
    ------
    CostModelError
        If a run cannot be estimated.
    """
    found = [
        _predict(row, group.dtype, profile, calibration) for row in runs.to_dict("records")
    ]  # fmt: skip
    names = list(found[0]) if found else []
    return runs.assign(**{name: [numbers[name] for numbers in found] for name in names})


def _predict(
    row: Mapping[Any, Any], dtype: str, profile: HardwareProfile, calibration: str | None
) -> dict[str, float]:
    case = prepare(
        _model(row), profile, text_tokens=1, visual_tokens=int(row["tokens"]),
        batch=int(row["batch"]), compress=str(row["compress"]), dtype=dtype,
        runtime=str(row["runtime"]), calibration=calibration,
    )  # fmt: skip
    program, _ = case.program()
    own = tuple(op for op in program.ops if op.stage == COMPRESSION)
    evaluation = evaluate(replace(program, ops=own))
    device = resolve_device(case.gpu, load_host(), case.deployment)
    made = load_time_model(case.time_model).times(evaluation, device, case.deployment)
    return {
        "predicted_s": _sum_s(made, evaluation),
        "host_s": float(made.host_overhead_s),
        "roofline_s": _roofline_s(evaluation, device, case.deployment),
        "predicted_launches": float(evaluation.total(evaluation.launches)),
        **_bounds(made),
    }


def _roofline_s(evaluation: Evaluation, device: Device, deployment: Deployment) -> float:
    return _sum_s(load_time_model("ideal").times(evaluation, device, deployment), evaluation)


def _sum_s(times: PassTimes, evaluation: Evaluation) -> float:
    return float(evaluation.total(times.op_s) + times.host_overhead_s)


def _bounds(times: PassTimes) -> dict[str, float]:
    names = {"same_stack": ("low_s", "high_s"), "any_stack": ("any_low_s", "any_high_s")}
    found = {}
    for kind, (low, high) in names.items():
        known = kind in times.low_s
        found[low] = float(times.low_s[kind]) if known else math.nan
        found[high] = float(times.high_s[kind]) if known else math.nan
    return found


def _model(row: Mapping[Any, Any]) -> ModelSpec:
    """Return LLaVA-1.5 with tokens of a row's width, and an image of its number of tokens."""
    base = load_model(_BASE)
    if base.vision is None or base.projector is None:
        raise SpecError(f"{_BASE} has no vision tower")
    width = int(row["width"])
    out_width = int(params_of(str(row.get("params", ""))).get("out_width", width))
    side = math.isqrt(int(row["tokens"]) - 1) + 1
    image = side * base.vision.patch_size
    return base.model_copy(
        update={
            "name": f"{_BASE} of width {width}",
            "text": base.text.model_copy(update={"hidden_size": out_width}),
            "vision": base.vision.model_copy(update={"hidden_size": width, "image_size": image}),
            "projector": base.projector.model_copy(
                update={"in_features": width, "widths": (out_width, out_width)}
            ),
            "image_rule": FixedRule(image_size=image, patch_size=base.vision.patch_size),
        }
    )
