r"""Why a pruner that saves FLOPs is not as much faster: the gap, part by part, in seconds.

A method that leaves a share :math:`\varphi` of a request's FLOPs promises the ideal time to the
first token :math:`\varphi T_b`, T_b being that without compression.  The predicted time T is a sum
over parts: vision tower and projector V, language model and head L, the method's own operators O,
and host time H that the GPU waits.  The gap is a sum too,

.. math::

    T - \varphi T_b = G_V + G_L + G_F + G_O + G_W + G_H

of six terms, where a prime is the same plan with flash attention in every layer and
:math:`\varphi_L` the share of its own FLOPs that the language model is left with:

.. math::

    G_V &= V' - \varphi V_b + (\varphi_L - \varphi) L_b \\
    G_L &= L' - \varphi_L L_b \\
    G_F &= (V - V') + (L - L') \\
    G_O &= O \\
    G_W &= H_O \\
    G_H &= H - H_O - \varphi H_b

`Gap` says what each means.  There is no remainder: adding them gives the left side identically.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from costmodel.case import Case, prepare
from costmodel.compression.method import Request
from costmodel.compression.plan import CompressionPlan
from costmodel.description import tokens
from costmodel.errors import InputError
from costmodel.results import STAGES
from costmodel.studies.plan_runs import PlanRun, requests_for, run_plan, total

__all__ = ["Gap", "SpeedRow", "pruner_speed", "with_flash"]

_VISION = ("vision_encoder", "projector")
_LANGUAGE = ("llm_prefill", "lm_head")
_OWN = "compression"


@dataclass(frozen=True)
class Gap:
    """What lies between the ideal and the predicted time to the first token.

    Attributes
    ----------
    tower_s : float
        Vision tower and projector, which a method after them leaves as they are: their time
        beyond the share of FLOPs that is left, less what the language model falls by more than
        all stages together, as the FLOPs ratio counts both.  It is what a language model that
        scaled with its FLOPs would leave of the gap [s].
    weight_floor_s : float
        Language model and head beyond what scales with their own FLOPs: weights are read
        however few tokens there are, and small products fill the GPU less.  Negative where
        fewer tokens fit the GPU's waves better [s].
    lost_flash_s : float
        Layers of the language model and of the vision tower that may not use flash attention,
        since the method reads attention weights or masks pairs, less the same with it [s].
    own_ops_s : float
        The method's own operators, on the GPU or the CPU [s].
    own_waits_s : float
        Host time that the GPU waits for in them: launches of short kernels, loops, and
        results that the host reads [s].
    host_s : float
        Host time that the GPU waits for in all other stages, beyond the share of FLOPs [s].
    """

    tower_s: float
    weight_floor_s: float
    lost_flash_s: float
    own_ops_s: float
    own_waits_s: float
    host_s: float

    @property
    def total_s(self) -> float:
        """Sum of all [s].

        Examples
        --------
        >>> Gap(1.0, 2.0, 0.0, 0.5, 0.5, -1.0).total_s
        3.0
        """
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class SpeedRow:
    """One method on one GPU and runtime.

    Attributes
    ----------
    request : str
        Method with its parameters.
    budget : int, optional
        Tokens it was asked to keep; None where it reaches no budget and has its defaults.
    gpu, runtime : str
        Where.
    visual_equivalent : float
        Visual tokens in the language model, as the mean over its layers.
    flops_ratio : float
        FLOPs without over with compression, all stages.
    baseline_ttft_s, ttft_s : float
        Predicted time to the first token without and with compression [s].
    baseline_band_s, band_s : tuple of float
        90 % bands of both, for any lab and software [s].
    gap : Gap
        Parts of the difference to `ideal_ttft_s`.
    """

    request: str
    budget: int | None
    gpu: str
    runtime: str
    visual_equivalent: float
    flops_ratio: float
    baseline_ttft_s: float
    ttft_s: float
    baseline_band_s: tuple[float, float]
    band_s: tuple[float, float]
    gap: Gap

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.request.partition(":")[0]

    @property
    def ideal_ttft_s(self) -> float:
        """Time to the first token if it fell as the FLOPs do [s]."""
        return self.baseline_ttft_s / self.flops_ratio

    @property
    def ttft_ratio(self) -> float:
        """Time to the first token without over with compression."""
        return self.baseline_ttft_s / self.ttft_s


def pruner_speed(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtimes: Sequence[str] = ("eager", "cuda-graph"),
    budgets: Sequence[int] = (192, 128, 64),
    methods: Sequence[str] | None = None,
    text_tokens: int = 64,
) -> list[SpeedRow]:
    """Predict every method by the calibrated model, and take its gap apart.

    Parameters
    ----------
    model, gpus, runtimes
        Names; the baseline has flash attention under every runtime.
    budgets : sequence of int
        Visual tokens of each image to keep; a method is in those it can reach.
    methods : sequence of str, optional
        Names; all if not given.
    text_tokens : int
        Prompt tokens that are not visual.

    Returns
    -------
    list of SpeedRow

    Raises
    ------
    CostModelError
        If a name is not known or a GPU has no calibration.

    Examples
    --------
    >>> (row,) = pruner_speed(gpus=["rtx-a6000"], runtimes=["eager"], budgets=[64],
    ...                       methods=["random"])
    >>> 1 < row.ttft_ratio < row.flops_ratio
    True
    >>> abs(row.ideal_ttft_s + row.gap.total_s - row.ttft_s) < 1e-12
    True
    """
    found: list[SpeedRow] = []
    for runtime in runtimes:
        cases = [
            prepare(
                model, gpu, text_tokens=text_tokens, runtime=runtime, attention="flash",
                time_model="calibrated",
            )
            for gpu in gpus
        ]  # fmt: skip
        found += speed_rows(cases, budgets, methods)
    return found


def speed_rows(
    cases: Sequence[Case], budgets: Sequence[int], methods: Sequence[str] | None = None
) -> list[SpeedRow]:
    """Take the gaps of cases apart that differ in the GPU only.

    Parameters
    ----------
    cases : sequence of Case
        Without compression, of a time model with bands.
    budgets, methods
        As in `pruner_speed`.

    Returns
    -------
    list of SpeedRow

    Raises
    ------
    InputError
        If a time model has no bands.
    """
    for case in cases:
        if case.time_model != "calibrated":
            raise InputError("time-model", case.time_model, "calibrated, which has bands")
    plain = run_plan(cases, None)
    return [
        row
        for budget, request in requests_for(cases[0], budgets, methods)
        for row in _rows(cases, plain, budget, request)
    ]


def _rows(
    cases: Sequence[Case], plain: Sequence[PlanRun], budget: int | None, request: Request
) -> Iterator[SpeedRow]:
    first = replace(cases[0], request=request)
    program, plan = first.program()
    if plan is None:
        return
    flash = with_flash(plan)
    runs = run_plan(cases, plan)
    fast = run_plan(cases, flash) if flash != plan else runs
    equivalent = float(tokens(first, plan, program)["visual_equivalent"])
    for case, before, after, ideal in zip(cases, plain, runs, fast, strict=True):
        yield SpeedRow(
            request=request.label,
            budget=budget,
            gpu=case.gpu.name,
            runtime=case.deployment.runtime,
            visual_equivalent=equivalent,
            flops_ratio=before.flops["total"] / after.flops["total"],
            baseline_ttft_s=before.ttft_s,
            ttft_s=after.ttft_s,
            baseline_band_s=before.band_s,
            band_s=after.band_s,
            gap=_gap(before, after, ideal),
        )


def with_flash(plan: CompressionPlan) -> CompressionPlan:
    """Return a plan that leaves the attention of every layer to the deployment."""
    return replace(
        plan,
        decoder_groups=tuple(replace(group, attention=None) for group in plan.decoder_groups),
        tower_groups=tuple(replace(group, attention=None) for group in plan.tower_groups),
    )


def _gap(before: PlanRun, after: PlanRun, fast: PlanRun) -> Gap:
    share = after.flops["total"] / before.flops["total"]
    own_share = total(after.flops, _LANGUAGE) / total(before.flops, _LANGUAGE)
    language_s = total(before.gpu_s, _LANGUAGE)
    others = [stage for stage in STAGES if stage != _OWN]
    return Gap(
        tower_s=total(fast.gpu_s, _VISION) - share * total(before.gpu_s, _VISION)
        + (own_share - share) * language_s,
        weight_floor_s=total(fast.gpu_s, _LANGUAGE) - own_share * language_s,
        lost_flash_s=total(after.gpu_s, others) - total(fast.gpu_s, others),
        own_ops_s=after.gpu_s[_OWN],
        own_waits_s=after.host_s[_OWN],
        host_s=total(after.host_s, others) - share * total(before.host_s, others),
    )  # fmt: skip
