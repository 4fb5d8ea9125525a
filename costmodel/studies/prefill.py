"""The prefill of a prepared case over arrays of points: times, host, FLOPs, bytes, bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.errors import UnsupportedError
from costmodel.evaluation import Evaluation, FloatArray, evaluate
from costmodel.memory import Memory, memory
from costmodel.points import AXES
from costmodel.program import Program
from costmodel.results import STAGES, stage_of
from costmodel.timing.device import resolve_device
from costmodel.timing.kernels.launch import stage_time_s
from costmodel.timing.model import PassTimes, load_time_model

__all__ = ["BANDS", "Prefill", "image_tokens", "prefill", "ttft_columns"]

Band = tuple[FloatArray, FloatArray]
Launch = Literal["low", "mid", "high"]
BANDS = {"any_stack": "any", "same_stack": "same"}
"""Kinds of bands, and their names in columns: any lab and software, or those calibrated."""


@dataclass(frozen=True)
class Prefill:
    """One prefill at every point.

    Attributes
    ----------
    gpu_s : dict of str to ndarray
        Time of the operators by stage [s].
    host_s : dict of str to ndarray
        Time that the GPU waits for the host, by stage [s].
    flops, bytes_moved : dict of str to ndarray
        By stage and ``total``; FLOPs of matrix products and convolutions [FLOP], [B].
    bands : dict of str to tuple of ndarray
        90 % band of the time to the first token by kind, ``same_stack`` and ``any_stack``; empty
        where the time model has none [s].
    evaluation : Evaluation
    times : PassTimes
        What all this was summed from.
    program : Program
    overrides : dict of str to ndarray
        Symbols that vary.
    """

    gpu_s: dict[str, FloatArray]
    host_s: dict[str, FloatArray]
    flops: dict[str, FloatArray]
    bytes_moved: dict[str, FloatArray]
    bands: dict[str, Band]
    evaluation: Evaluation
    times: PassTimes
    program: Program
    overrides: dict[str, FloatArray]

    @cached_property
    def memory(self) -> Memory:
        """Weights, KV cache and peak activations [B]."""
        return memory(self.program, **self.overrides)

    def launches(self, stage: str) -> FloatArray:
        """Return the kernels that a stage starts."""
        own = [stage_of(op) == stage for op in self.evaluation.ops]
        return self.evaluation.total(self.evaluation.launches, own)

    @property
    def ttft_s(self) -> FloatArray:
        """Time to the first token [s]."""
        return _sum(self.gpu_s) + _sum(self.host_s)

    @property
    def language_s(self) -> FloatArray:
        """GPU time of the language model and its head [s]."""
        return self.gpu_s["llm_prefill"] + self.gpu_s["lm_head"]

    def with_launch(self, launch: Launch | float) -> dict[str, FloatArray]:
        """Return `host_s` with another cost of starting a kernel.

        Parameters
        ----------
        launch : {"low", "mid", "high"} or float
            An end of the range that the sources give, or a factor on the launch, start and gap.

        Returns
        -------
        dict of str to ndarray
            By stage [s].
        """
        return _host(self.evaluation, self.times, launch)

    def stage_band(self, stage: str, kind: str = "any_stack") -> Band:
        """Return the 90 % band of a stage's GPU time [s]; the time itself without bands.

        Parameters
        ----------
        stage : str
            One of `STAGES`.
        kind : {"any_stack", "same_stack"}
            For any lab and software, or for those of the calibration.
        """
        name = "llm" if stage == "llm_prefill" else stage
        if name not in self.times.stage_low_s.get(kind, {}):
            return self.gpu_s[stage], self.gpu_s[stage]
        return self.times.stage_low_s[kind][name], self.times.stage_high_s[kind][name]


def image_tokens(case: Case) -> int:
    """Return the visual tokens of an image, markers left out; the fewest of several kinds.

    Raises
    ------
    UnsupportedError
        If the model has none.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> image_tokens(prepare("llava-1.5-7b", "a40", text_tokens=64))
    576
    """
    if not case.images:
        raise UnsupportedError(
            "model", case.model.name, "a model with images, for example llava-1.5-7b"
        )
    return min(group.layout.features for group in case.images)


def prefill(case: Case, **axes: Any) -> Prefill:
    """Evaluate the prefill of a case over arrays.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.
    **axes : array_like
        As in `costmodel.evaluate_grid`.

    Returns
    -------
    Prefill

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, compress="random:k=64")
    >>> found = prefill(case, k=[64, 144])
    >>> [int(flops) for flops in found.flops["llm_prefill"]]
    [1666447310848, 2716701032448]
    >>> found.ttft_s[0] < found.ttft_s[1]
    np.True_
    """
    program, _ = case.program()
    overrides = {AXES.get(name, name): np.asarray(v, dtype=float) for name, v in axes.items()}
    evaluation = evaluate(program, "prefill", **overrides)
    device = resolve_device(case.gpu, load_host(), case.deployment)
    times = load_time_model(case.time_model).times(evaluation, device, case.deployment)
    counted = [op.matmul for op in evaluation.ops]
    flops = _by_stage(evaluation, evaluation.flops, counted)
    moved = _by_stage(evaluation, evaluation.bytes_moved)
    return Prefill(
        gpu_s=_by_stage(evaluation, times.op_s),
        host_s=_host(evaluation, times, "mid"),
        flops=flops | {"total": _sum(flops)},
        bytes_moved=moved | {"total": _sum(moved)},
        bands={kind: (times.low_s[kind], times.high_s[kind]) for kind in times.low_s},
        evaluation=evaluation,
        times=times,
        program=program,
        overrides=overrides,
    )


def ttft_columns(found: Prefill, index: tuple[int, ...] = ()) -> dict[str, float]:
    """Return the time to the first token of a point with its bands, as columns of a table.

    Parameters
    ----------
    found : Prefill
        Over points.
    index : tuple of int
        Which point.

    Returns
    -------
    dict
        ``ttft_ms`` and ``ttft_any_low_ms``, ``ttft_any_high_ms``, ``ttft_same_low_ms`` and
        ``ttft_same_high_ms``, the time itself where the time model has no bands [ms].
    """
    ttft = found.ttft_s
    columns = {"ttft_ms": 1e3 * float(ttft[index])}
    for kind, name in BANDS.items():
        low, high = found.bands.get(kind, (ttft, ttft))
        columns[f"ttft_{name}_low_ms"] = 1e3 * float(low[index])
        columns[f"ttft_{name}_high_ms"] = 1e3 * float(high[index])
    return columns


def _by_stage(
    evaluation: Evaluation, per_execution: FloatArray, chosen: list[bool] | None = None
) -> dict[str, FloatArray]:
    own = [stage_of(op) for op in evaluation.ops]
    used = chosen if chosen is not None else [True] * len(own)
    return {
        stage: evaluation.total(
            per_execution, [s == stage and use for s, use in zip(own, used, strict=True)]
        )
        for stage in STAGES
    }


def _host(
    evaluation: Evaluation, times: PassTimes, launch: Launch | float
) -> dict[str, FloatArray]:
    found = {stage: np.zeros(evaluation.points) for stage in STAGES}
    # Every queue holds operators of one stage.
    for queue in times.queues:
        rows = list(queue.rows)
        repeat = evaluation.repeat[rows]
        busy, launches, syncs = (
            np.sum(values[rows] * repeat, axis=0)
            for values in (times.op_s, evaluation.launches, evaluation.host_syncs)
        )
        if isinstance(launch, str):
            costs = queue.costs.at_launch(launch)
        else:
            costs = replace(
                queue.costs, launch_s=launch * queue.costs.launch_s,
                start_s=launch * queue.costs.start_s, gap_s=launch * queue.costs.gap_s,
            )  # fmt: skip
        stage = stage_of(evaluation.ops[rows[0]])
        found[stage] = found[stage] + stage_time_s(busy, launches, syncs, costs)
    return found


def _sum(parts: Mapping[str, FloatArray]) -> FloatArray:
    total: FloatArray = np.sum(list(parts.values()), axis=0)
    return total
