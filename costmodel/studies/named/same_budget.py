"""All methods at the same number of visual tokens: the same budget is not the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodel.case import Case, prepare
from costmodel.charts import Axis, BarChart, LineChart, Picture, Series
from costmodel.compression.method import Request
from costmodel.description import tokens
from costmodel.memory import Memory, memory
from costmodel.results import STAGES
from costmodel.scores import ScoreRange, by_source, score_range, scores_for
from costmodel.studies.plan_runs import PlanRun, requests_for, run_plan, total
from costmodel.studies.pruner_speed import with_flash
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, milliseconds, setting, times

__all__ = ["METHODS", "STUDY"]

METHODS = (
    "random", "spatial", "saliency", "cluster", "avgpool", "stf", "mbtf+stf", "tome", "dymu",
    "prumerge", "prumerge-plus", "visionzip", "divprune", "vscan", "fastv", "pyramiddrop",
    "sparsevlm", "htc-vlm", "voco-llama",
)  # fmt: skip
"""The methods of the two papers and those they compare with, and two later ones."""

_VISION = ("vision_encoder", "projector")
_LANGUAGE = ("llm_prefill", "lm_head")
_OWN = "compression"


@dataclass(frozen=True)
class Contender:
    """A method at a budget on one GPU; None as `request` for no compression.

    Attributes
    ----------
    budget : int
        Visual tokens asked for.
    request : Request, optional
    gpu : str
    run, fast : PlanRun
        As it is, and with flash attention in every layer.
    held : Memory
        On one device.
    equivalent : float
        Visual tokens as the mean over the layers of the language model.
    scores : ScoreRange, optional
        Published, in percent of the vanilla model.
    """

    budget: int
    request: Request | None
    gpu: str
    run: PlanRun
    fast: PlanRun
    held: Memory
    equivalent: float
    scores: ScoreRange | None

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.request.method.name if self.request is not None else "none"

    @property
    def lost_flash_s(self) -> float:
        """Time that layers without flash attention take longer [s]."""
        others = [stage for stage in STAGES if stage != _OWN]
        return total(self.run.gpu_s, others) - total(self.fast.gpu_s, others)

    @property
    def parts_s(self) -> dict[str, float]:
        """Parts of the time to the first token [s]."""
        others = [stage for stage in STAGES if stage != _OWN]
        return {
            "vision tower and projector": total(self.fast.gpu_s, _VISION),
            "language model and head": total(self.fast.gpu_s, _LANGUAGE),
            "lost flash attention": self.lost_flash_s,
            "own operators": self.run.gpu_s[_OWN],
            "own waits for the host": self.run.host_s[_OWN],
            "other waits for the host": total(self.run.host_s, others),
        }


def contenders(
    cases: Sequence[Case], budgets: Sequence[int], methods: Sequence[str]
) -> list[Contender]:
    """Return every method at the budgets it reaches, and no compression at each.

    Parameters
    ----------
    cases : sequence of Case
        The same question on several GPUs.
    budgets : sequence of int
        Visual tokens, as the mean over the layers.
    methods : sequence of str
        Names.
    """
    asked: list[tuple[int, Request | None]] = [(budget, None) for budget in budgets]
    for budget, request in requests_for(cases[0], budgets, methods):
        if budget is not None:
            asked.append((budget, request))
    return [one for budget, request in asked for one in _entered(cases, budget, request)]


def _entered(cases: Sequence[Case], budget: int, request: Request | None) -> Iterator[Contender]:
    first = replace(cases[0], request=request)
    program, plan = first.program()
    runs = run_plan(cases, plan)
    flash = with_flash(plan) if plan is not None else None
    fast = run_plan(cases, flash) if flash != plan else runs
    held, said = memory(program), tokens(first, plan, program)
    found = None
    if request is not None:
        rows = scores_for(request.method.name, first.model.name, budget)
        found = score_range(by_source(row for row in rows if not row.variant))
    for case, run, ideal in zip(cases, runs, fast, strict=True):
        yield Contender(
            budget, request, case.gpu.name, run, ideal, held,
            float(said["visual_equivalent"]), found,
        )  # fmt: skip


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    budgets: Sequence[int] = (192, 128, 64),
    methods: Sequence[str] = METHODS,
    text_tokens: int = 64,
    runtime: str = "eager",
) -> Finding:
    cases = [
        prepare(model, gpu, text_tokens=text_tokens, runtime=runtime, time_model="calibrated")
        for gpu in gpus
    ]
    found = contenders(cases, budgets, methods)
    plain = {one.gpu: one for one in found if one.request is None}
    first = cases[0].gpu.name
    rows = [_row(one, plain[one.gpu]) for one in found if one.request or one.budget == budgets[0]]
    tightest = [one for one in found if one.gpu == first and one.budget == min(budgets)]
    return Finding(
        answer=_answer([one for one in found if one.gpu == first], first),
        uncertainty=_uncertainty(found, cases),
        tables=(StudyTable.of(f"Methods at the same budget, {runtime}", rows),),
        pictures=(_bars(tightest, first), _cloud(found, plain, first)),
        settings=setting(
            model, gpus, runtime, text_tokens=text_tokens, batch=1, attention="flash",
            budgets=", ".join(map(str, budgets)),
        ),
    )  # fmt: skip


def _row(one: Contender, plain: Contender) -> dict[str, Any]:
    parts, scores = one.parts_s, one.scores
    mb, base = float(one.held.total) / 1e6, float(plain.held.total) / 1e6
    return {
        "budget_tokens": one.budget if one.request is not None else None,
        "method": one.request.label if one.request is not None else "none",
        "gpu": one.gpu,
        "mean_tokens_over_layers": one.equivalent,
        "ttft_ms": 1e3 * one.run.ttft_s,
        "ttft_low_ms": 1e3 * one.run.band_s[0],
        "ttft_high_ms": 1e3 * one.run.band_s[1],
        "speedup": plain.run.ttft_s / one.run.ttft_s,
        "flops_ratio": plain.run.flops["total"] / one.run.flops["total"],
        "own_operators_ms": 1e3 * parts["own operators"],
        "own_waits_ms": 1e3 * parts["own waits for the host"],
        "lost_flash_ms": 1e3 * one.lost_flash_s,
        "kv_cache_mb": float(one.held.kv_cache) / 1e6,
        "activations_peak_mb": float(one.held.activations_peak) / 1e6,
        "memory_vs_none_mb": mb - base,
        "score_low_pct": scores.low_pct if scores else None,
        "score_high_pct": scores.high_pct if scores else None,
        "score_sources": scores.sources if scores else 0,
    }


def _bars(found: Sequence[Contender], gpu: str) -> BarChart:
    ordered = sorted(found, key=lambda one: one.run.ttft_s, reverse=True)
    budget = found[0].budget
    return BarChart(
        f"Time to the first token at {budget} visual tokens, {gpu}",
        Axis("time to the first token", "ms"),
        tuple(one.name for one in ordered),
        {
            part: tuple(1e3 * one.parts_s[part] for one in ordered)
            for part in ordered[0].parts_s
        },
        horizontal=True,
        hover={
            part: tuple(one.request.label if one.request else "no compression" for one in ordered)
            for part in ordered[0].parts_s
        },
        note=f"tokens are the mean over the layers of the language model; none keeps "
        f"{next(one.equivalent for one in found if one.request is None):.0f}",
    )  # fmt: skip


def _cloud(found: Sequence[Contender], plain: dict[str, Contender], gpu: str) -> Picture:
    series = []
    for budget in dict.fromkeys(one.budget for one in found):
        known = [
            (one, one.scores)
            for one in found
            if one.gpu == gpu and one.budget == budget and one.scores is not None
        ]
        if not known:
            continue
        middle = [(scores.low_pct + scores.high_pct) / 2 for _, scores in known]
        series.append(
            Series.of(
                f"{budget} tokens", [plain[gpu].run.ttft_s / one.run.ttft_s for one, _ in known],
                middle,
                ([scores.low_pct for _, scores in known],
                 [scores.high_pct for _, scores in known]),
                mode="markers", labels=[one.name for one, _ in known],
                hover=[f"{one.name}: {scores}" for one, scores in known],
            )
        )  # fmt: skip
    return LineChart(
        f"Published score against predicted speed-up, {gpu}",
        Axis("time to the first token without over with the method"),
        Axis("published score, of the vanilla model's", "%"), tuple(series),
        note="mean over the benchmarks of each source; bars span the sources, which differ in "
        "benchmarks",
    )  # fmt: skip


def _answer(found: Sequence[Contender], gpu: str) -> str:
    plain = next(one for one in found if one.request is None)
    said = []
    for budget in dict.fromkeys(one.budget for one in found):
        own = [one for one in found if one.budget == budget and one.request is not None]
        if not own:
            continue
        best, worst = (pick(own, key=lambda one: one.run.ttft_s) for pick in (min, max))
        slower = [one.name for one in own if one.run.ttft_s > plain.run.ttft_s]
        said.append(
            f"at {budget} tokens from {milliseconds(best.run.ttft_s)} ({best.name}) to "
            f"{milliseconds(worst.run.ttft_s)} ({worst.name})"
            + (f", with {listing(slower)} slower than no compression" if slower else "")
        )
    rest = [one for one in found if one.request is not None]
    cost = max(rest, key=lambda one: one.parts_s["own operators"] + one.run.host_s[_OWN])
    lost = max(rest, key=lambda one: one.lost_flash_s)
    hungry = max(rest, key=lambda one: float(one.held.total))
    more = (float(hungry.held.total) - float(plain.held.total)) / 1e6
    own_s = cost.parts_s["own operators"] + cost.run.host_s[_OWN]
    heaviest = (
        f"{hungry.name} at {hungry.budget} tokens needs {abs(more):.0f} MB "
        f"{'more' if more > 0 else 'less'} memory than no compression"
    )
    scored = [one for one in rest if one.scores is not None]
    text = (
        f"The same number of tokens is not the same time: on one {gpu}, against "
        f"{milliseconds(plain.run.ttft_s)} without compression, the time to the first token goes "
        f"{'; '.join(said)}. Work of the method itself and waits for the host reach "
        f"{milliseconds(own_s)} ({cost.name}), attention that may not be flash "
        f"{milliseconds(lost.lost_flash_s)} ({lost.name}), and {heaviest}."
    )
    if not scored:
        return text
    return f"{text} {_best_scored(scored, plain)}"


def _best_scored(scored: Sequence[Contender], plain: Contender) -> str:
    """Say which method has the best published score at the tightest budget, and at what speed."""
    tight = min(one.budget for one in scored)
    at = [one for one in scored if one.budget == tight]
    best = max(at, key=lambda one: one.scores.low_pct if one.scores else 0.0)
    gain = plain.run.ttft_s / best.run.ttft_s
    fastest = min(at, key=lambda one: one.run.ttft_s)
    also = " and is the fastest" if fastest is best else f"; the fastest is {fastest.name}"
    return (
        f"Of those with a published score at {tight} tokens, {best.name} keeps most "
        f"({best.scores}) at {times(gain)} the speed{also}."
    )


def _uncertainty(found: Sequence[Contender], cases: Sequence[Case]) -> str:
    spans = [
        (one.run.band_s[0] / one.run.ttft_s - 1, one.run.band_s[1] / one.run.ttft_s - 1)
        for one in found
    ]
    scored = {one.name for one in found if one.scores is not None}
    methods = {one.name for one in found if one.request is not None}
    return (
        f"Predicted; nobody measured all of these methods on one machine. "
        f"{evidence(cases)} {stack_bands(cases)} "
        "Bands "
        f"of 90 % for any lab and software reach from {100 * min(low for low, _ in spans):+.0f} to "
        f"{100 * max(high for _, high in spans):+.0f} %; they do not cover the implementation: a "
        "method is its released code where that is public, loops, waits and attention maps "
        "included, and a better one exists for several (`costmodel methods show NAME`). Kernels of "
        "methods that no one timed, such as sorts, selections and scatters, borrow the rate of "
        "others. Budgets are means over the layers, so that methods inside the language model keep "
        "fewer tokens at its end; for dymu, prumerge and prumerge-plus they are means over images. "
        "htc-vlm and voco-llama pass all tokens through every layer, and save cache alone. "
        f"Scores are published for {len(scored)} of {len(methods)} methods, by sources that differ "
        "in benchmarks and contradict each other; differences of a point mean little."
    )


STUDY = Study(
    title="All methods at the same budget",
    question=(
        "At the same number of visual tokens, how much do the methods differ in time to the first "
        "token and memory once their own work, their waits for the host and lost flash attention "
        "are counted?"
    ),
    method=(
        "Every method is asked to keep 192, 128 and 64 visual tokens, as the mean over the layers "
        "of the language model; the calibrated time model predicts its released implementation "
        "under the eager runtime. What layers without flash attention cost is the same plan with "
        "flash in every layer, subtracted. Memory is weights, KV cache and peak activations of one "
        "request; scores are those the sources print, in percent of their own vanilla model."
    ),
    run=_run,
    sources=("https://arxiv.org/abs/2504.17892", "https://arxiv.org/abs/2506.07138"),
)
