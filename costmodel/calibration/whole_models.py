"""Measured times of whole models against estimates of the same request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from costmodel.calibration.schema import Timings
from costmodel.catalog.families import read_config
from costmodel.catalog.models_io import load_model
from costmodel.errors import SpecError
from costmodel.estimation import estimate
from costmodel.results import Estimate
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STAGE_PARTS", "WHOLE_MODEL", "WHOLE_SIZES", "Group", "groups_of", "predict"]

WHOLE_MODEL = "whole_model"
"""Kind of timings that holds whole models."""

WHOLE_SIZES = ("batch", "visual_tokens", "text_tokens")
"""What a point of them is shown by."""

STAGE_PARTS: Mapping[str, tuple[str, ...]] = {
    "vision": ("vision_encoder", "projector"),
    "vision_encoder": ("vision_encoder",),
    "projector": ("projector",),
    "compression": ("compression",),
    "llm": ("llm_prefill", "lm_head"),
    "llm_prefill": ("llm_prefill",),
    "lm_head": ("lm_head",),
    "ttft": ("ttft",),
    "tpot": ("tpot",),
}
"""Measured stage -> keys of an estimate's times, to which a stage's exposed host time is added:
where the host is late, the device's clock sees the gaps."""

Group = tuple[str, str, str, str, str, str]
"""GPU, source, software, format, runtime and stage."""

_GROUP = ["gpu", "source", "software", "dtype", "runtime", "stage"]
_REQUEST = ["model", "config", "attention", "compress", *WHOLE_SIZES, "output_tokens"]


def groups_of(timings: Sequence[Timings]) -> Iterator[tuple[Group, pd.DataFrame]]:
    """Yield the measured requests of each stack, runtime and stage.

    Parameters
    ----------
    timings : sequence of Timings
        Of any kind; others are not looked at.

    Yields
    ------
    Group, pandas.DataFrame
        One row per request: its columns, ``time_s`` (the median of repeated measurements)
        and ``memory_bytes``.
    """
    import pandas as pd

    frames = [item.frame for item in timings if item.kind == WHOLE_MODEL]
    if not frames:
        return
    rows = pd.concat(frames)
    rows = rows.assign(time_s=rows["time_us"] * 1e-6)
    for values, some in rows.groupby(_GROUP, sort=True):
        median = some.groupby(_REQUEST, dropna=False, sort=True)[["time_s", "memory_bytes"]]
        key: Any = values
        yield key, median.median().reset_index()


def predict(
    group: Group, requests: pd.DataFrame, profile: HardwareProfile, calibration: str | None
) -> pd.DataFrame:
    """Return measured requests with what the model says of them.

    Parameters
    ----------
    group : Group
        Stack, runtime and stage.
    requests : pandas.DataFrame
        From `groups_of`.
    profile : HardwareProfile
        The device.
    calibration : str, optional
        Name or file; the device's default without.

    Returns
    -------
    pandas.DataFrame
        With ``predicted_s``, ``low_s``, ``high_s`` (same stack), ``any_low_s``,
        ``any_high_s`` (any lab and software), ``roofline_s`` [s] and
        ``predicted_memory_bytes``.

    Raises
    ------
    CostModelError
        If a request cannot be estimated.
    """
    stage = group[5]
    if stage not in STAGE_PARTS:
        raise SpecError(f"stage {stage!r} is none of {', '.join(STAGE_PARTS)}")
    found: list[dict[str, float]] = []
    for row in requests.to_dict("records"):
        options = _options(group, row) | {"calibration": calibration}
        made = estimate(_spec(str(row["model"]), str(row["config"])), profile, **options)
        del options["calibration"]
        ideal = estimate(
            _spec(str(row["model"]), str(row["config"])), profile, time_model="ideal", **options
        )
        found.append(_numbers(made, ideal, stage))
    names = list(found[0]) if found else []
    return requests.assign(**{name: [numbers[name] for numbers in found] for name in names})


def _options(group: Group, row: Mapping[Any, Any]) -> dict[str, Any]:
    spec = _spec(str(row["model"]), str(row["config"]))
    options: dict[str, Any] = {
        "text_tokens": int(row["text_tokens"]),
        "output_tokens": int(row["output_tokens"]),
        "batch": int(row["batch"]),
        "compress": str(row["compress"]) or None,
        "dtype": group[3],
        "runtime": group[4],
        "attention": str(row["attention"]),
    }
    if spec.image_rule is not None:
        options["visual_tokens"] = int(row["visual_tokens"])
    return options


def _numbers(made: Estimate, ideal: Estimate, stage: str) -> dict[str, float]:
    parts = STAGE_PARTS[stage]
    numbers = {
        "predicted_s": sum(made.time_s[part] for part in parts) + _host_s(made, parts)[1],
        "roofline_s": sum(ideal.time_s[part] for part in parts),
        "predicted_memory_bytes": float(made.memory_bytes["total"]),
    }
    for kind, names in (
        ("same_stack", ("low_s", "high_s")), ("any_stack", ("any_low_s", "any_high_s")),
    ):  # fmt: skip
        low, high = _band(made, parts, kind)
        numbers |= {names[0]: low, names[1]: high}
    return numbers


def _host_s(made: Estimate, parts: Sequence[str]) -> tuple[float, float, float]:
    """Exposed host time of a stage, low to high; whole passes have it in their times."""
    low, mid, high = (
        sum(made.host_s[part][end] for part in parts if part in made.host_s) for end in range(3)
    )
    return low, mid, high


def _band(made: Estimate, parts: Sequence[str], kind: str) -> tuple[float, float]:
    """Bounds of a stage."""
    if made.interval_s["ttft"][kind] is None:
        return float("nan"), float("nan")
    if parts in (("ttft",), ("tpot",)):
        low, high = made.interval_s[parts[0]][kind]
        return low, high
    stages, host = made.interval_s["stages"], _host_s(made, parts)
    bands = [stages[part][kind] for part in parts if part in stages]
    return sum(band[0] for band in bands) + host[0], sum(band[1] for band in bands) + host[2]


@lru_cache(maxsize=64)
def _spec(model: str, config: str) -> ModelSpec:
    """Return the model a row names, or describes by its config.json."""
    if not config:
        return load_model(model)
    try:
        data = json.loads(config)
    except json.JSONDecodeError as error:
        raise SpecError(f"config of model {model!r}: not JSON ({error})") from None
    return read_config(data, None, f"config of model {model!r}")
