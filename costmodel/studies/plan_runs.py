"""Compression plans on several GPUs: time by stage, host time by stage, FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.accounting import flops_by_stage, interval, op_rows
from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.compression.method import Context, Request, list_methods, load_method
from costmodel.compression.method import request as make_request
from costmodel.compression.plan import CompressionPlan
from costmodel.errors import InputError, SpecError
from costmodel.evaluation import Evaluation, evaluate
from costmodel.program import build_program
from costmodel.results import STAGES, stage_of
from costmodel.timing.device import resolve_device
from costmodel.timing.kernels.launch import stage_time_s
from costmodel.timing.model import PassTimes, load_time_model

__all__ = ["PlanRun", "requests_for", "run_plan", "total"]


@dataclass(frozen=True)
class PlanRun:
    """The prefill of one plan on one GPU.

    Attributes
    ----------
    gpu_s : dict of str to float
        Time of the operators by stage [s].
    host_s : dict of str to float
        Time that the GPU waits for the host, by stage [s].
    flops : dict of str to float
        By stage and in total, as in `Estimate.flops` [FLOP].
    band_s : tuple of float
        90 % band of the time to the first token, for any lab and software [s].
    """

    gpu_s: dict[str, float]
    host_s: dict[str, float]
    flops: dict[str, float]
    band_s: tuple[float, float]

    @property
    def ttft_s(self) -> float:
        """Time to the first token [s]."""
        return total(self.gpu_s, STAGES) + total(self.host_s, STAGES)


def total(values: Mapping[str, float], stages: Sequence[str]) -> float:
    """Return the sum over some stages.

    Examples
    --------
    >>> total({"llm_prefill": 2.0, "lm_head": 0.5, "projector": 1.0}, ("llm_prefill", "lm_head"))
    2.5
    """
    return sum(values[stage] for stage in stages)


def requests_for(
    case: Case, budgets: Sequence[int], methods: Sequence[str] | None = None
) -> Iterator[tuple[int | None, Request]]:
    """Yield methods at the budgets they reach; with defaults those that reach none.

    Parameters
    ----------
    case : Case
        A case without compression.
    budgets : sequence of int
        Visual tokens of each image to keep.
    methods : sequence of str, optional
        Names; all if not given.  ``none`` is left out.

    Yields
    ------
    tuple of (int or None, Request)
        Budget, and the method with the parameters for it.

    Raises
    ------
    UnknownNameError
        If a name is not known.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    >>> [(budget, found.label) for budget, found in requests_for(case, [128, 64], ["avgpool"])]
    [(64, 'avgpool:window=3')]
    """
    context = Context(case.model, case.images, case.deployment)
    for name in methods if methods is not None else list_methods():
        method = load_method(name)
        reached = False
        for budget in budgets:
            try:
                asked = make_request(method, method.params_for(budget, context))
                asked.plan(context)
            except (InputError, SpecError):
                continue
            reached = True
            if asked.compresses:
                yield budget, asked
        if not reached:
            yield None, make_request(method, {})


def run_plan(cases: Sequence[Case], plan: CompressionPlan | None) -> list[PlanRun]:
    """Return the runs of one plan on cases that differ in the GPU only.

    Parameters
    ----------
    cases : sequence of Case
        Their time model has bands.
    plan : CompressionPlan, optional
        None for no compression.

    Returns
    -------
    list of PlanRun
        In the order of the cases.
    """
    case = cases[0]
    # Compiling takes most of the time, and does not depend on the GPU.
    program = build_program(case.model, case.layout, case.workload, case.deployment, plan)
    evaluation = evaluate(program, "prefill")
    return [_run(evaluation, case) for case in cases]


def _run(evaluation: Evaluation, case: Case) -> PlanRun:
    device = resolve_device(case.gpu, load_host(), case.deployment)
    times = load_time_model(case.time_model).times(evaluation, device, case.deployment)
    rows = op_rows(evaluation, times)
    low, high = interval(times)["ttft"]["any_stack"]
    return PlanRun(
        gpu_s={
            stage: float(sum(row.time_s for row in rows if row.stage == stage)) for stage in STAGES
        },
        host_s=_host_by_stage(evaluation, times),
        flops=flops_by_stage(rows),
        band_s=(low, high),
    )


def _host_by_stage(evaluation: Evaluation, times: PassTimes) -> dict[str, float]:
    found = dict.fromkeys(STAGES, 0.0)
    # Every queue holds operators of one stage.
    for queue in times.queues:
        rows = list(queue.rows)
        busy, launches, syncs = (
            np.sum(values[rows] * evaluation.repeat[rows], axis=0)
            for values in (times.op_s, evaluation.launches, evaluation.host_syncs)
        )
        stage = stage_of(evaluation.ops[rows[0]])
        found[stage] += float(stage_time_s(busy, launches, syncs, queue.costs))
    return found
