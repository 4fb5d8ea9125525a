"""Several GPUs: each its own requests, or the language model sharded over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.case import prepare
from costmodel.catalog.hardware import load_gpu
from costmodel.charts import Axis, LineChart, Picture, Series
from costmodel.evaluation import FloatArray
from costmodel.specs.hardware import HardwareProfile
from costmodel.studies.batch_runs import BatchRuns, batch_runs
from costmodel.studies.study import StudyTable
from costmodel.studies.wording import listing

__all__ = ["Sharing", "linked", "sharing"]

_BRIDGED = 2
"""Cards that an NVLink bridge of the RTX series joins."""


@dataclass(frozen=True)
class Sharing:
    """Ways to share a batch over GPUs.

    Attributes
    ----------
    table : StudyTable
    picture : Picture
    gain : str
        A sentence on the latency that tensor parallelism saves.
    """

    table: StudyTable
    picture: Picture
    gain: str


def sharing(
    variants: Mapping[str, str | None],
    asked: Mapping[str, Any],
    devices: int,
    batches: Sequence[int],
) -> Sharing:
    """Compare data parallelism with tensor parallelism over two and over all GPUs.

    Parameters
    ----------
    variants : mapping of str to str
        Compression by name; the first is the baseline.
    asked : mapping
        Options of `costmodel.prepare`, ``gpu`` among them.
    devices : int
        GPUs.
    batches : sequence of int
        Requests per GPU; all GPUs have `devices` times as many.
    """
    options = dict(asked)
    gpu = load_gpu(options.pop("gpu"))
    totals = [1, *(devices * batch for batch in batches)]
    rows: list[dict[str, Any]] = []
    series: list[Series] = []
    found: dict[tuple[str, int], BatchRuns] = {}
    shards = [tp for tp in dict.fromkeys((1, _BRIDGED, devices)) if devices % tp == 0]
    for name, compress in variants.items():
        for tp in shards:
            groups = devices // tp
            case = prepare(gpu=linked(gpu, tp), compress=compress, tp=tp, **options)
            runs = batch_runs(case, [math.ceil(total / groups) for total in totals])
            found[name, tp] = runs
            way = f"{groups} x TP {tp}" if tp > 1 else f"{groups} alone"
            for i, total in enumerate(totals):
                rows.append({
                    "variant": name, "gpus": way, "requests_at_once": total,
                    "ttft_ms": 1e3 * runs.ttft_s[i],
                    "first_tokens_per_s_all_gpus": total / runs.ttft_s[i],
                    "total_gb_per_gpu": runs.memory.total[i] / 1e9, "fits": runs.fits[i],
                })  # fmt: skip
            series.append(
                Series.of(
                    f"{name}, {way}", totals, 1e3 * runs.ttft_s, mode="lines+markers",
                    hover=[f"{batch:.0f} requests per group" for batch in runs.batches],
                )
            )  # fmt: skip
    title = f"{devices} x {gpu.name}: each its own requests, or tensor parallel"
    full = list(variants)[-1]
    return Sharing(
        StudyTable.of(title, rows),
        LineChart(
            title, Axis("requests of all GPUs at once", log=True),
            Axis("time to the first token", "ms", log=True), tuple(series),
        ),
        _sentence({tp: found[full, tp].ttft_s for tp in shards}, totals),
    )  # fmt: skip


def linked(gpu: HardwareProfile, devices: int) -> HardwareProfile:
    """Return the GPU with PCIe as its link where a bridge does not join all cards.

    Parameters
    ----------
    gpu : HardwareProfile
    devices : int
        GPUs that exchange data.
    """
    if devices <= _BRIDGED or not gpu.name.startswith("rtx"):
        return gpu
    link = gpu.interconnect.model_copy(update={"nvlink_per_direction": None})
    return gpu.model_copy(update={"interconnect": link})


def _sentence(ttft_s: Mapping[int, FloatArray], totals: Sequence[int]) -> str:
    """Say what sharding does to the latency of one request and of the most."""
    said = []
    sharded = [seconds for tp, seconds in ttft_s.items() if tp > 1]
    verdict = "lengthens" if all((s > ttft_s[1]).all() for s in sharded) else "changes"
    for at in (0, len(totals) - 1):
        changes = [
            f"{100 * (seconds[at] / ttft_s[1][at] - 1):+.0f} % over {tp} GPUs"
            for tp, seconds in ttft_s.items()
            if tp > 1
        ]
        requests = f"{totals[at]} requests at once" if totals[at] > 1 else "one request alone"
        said.append(f"{requests} by {listing(changes)}")
    return (
        f"Tensor parallelism of its language model {verdict} the time to the first token of "
        f"{listing(said)}."
    )
