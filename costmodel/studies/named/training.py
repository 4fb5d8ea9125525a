"""Two-stage training: hours without compression, with STF and MBTF, and with PyramidDrop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from costmodel.catalog.hardware import load_gpu
from costmodel.charts import Axis, BarChart, LineChart, Series
from costmodel.reproduction import Published, published_costs
from costmodel.reproduction.training_runs import TrainingRun, training_run
from costmodel.studies.sharing import linked
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import listing, number, percent, setting, span, times
from costmodel.training import TrainingCost, train_cost

__all__ = ["STUDY"]

VARIANTS = {
    "none (576)": None,
    "AvgPool 2x2 (144)": "avgpool:window=2",
    "MBTF+STF (144)": "mbtf+stf:window=2",
    "PyramidDrop (576 to 72)": "pyramiddrop",
}
"""Compression in training, by the name in tables and pictures."""

_BASE, _FULL = "none (576)", "MBTF+STF (144)"
_PUBLISHED_MODELS = ("LLaVA-1.5-7B", "LLaVA-NeXT-7B")
_UNITS = ("h", "GPU h")
_PAPER_GPU = "rtx-a6000"


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000", "h100-sxm"),
    recipe: str = "llava-1.5",
    devices: int = 8,
) -> Finding:
    cards = {gpu: linked(load_gpu(gpu), devices) for gpu in gpus}
    paper_card = linked(load_gpu(_PAPER_GPU), devices)
    costs = {
        (gpu, name): train_cost(model, card, recipe=recipe, gpus=devices, compress=compress)
        for gpu, card in cards.items()
        for name, compress in VARIANTS.items()
    }
    checks = _checks()
    own = [
        train_cost("llava-1.5-7b", paper_card, recipe=name, gpus=devices, compress=compress)
        for name in ("stf", "stf-paper")
        for compress in (None, "mbtf+stf:window=2")
    ]
    return Finding(
        answer=_answer(costs, checks, own, gpus, devices),
        uncertainty=_uncertainty(costs, checks),
        tables=(
            StudyTable.of(f"Training by the recipe {recipe} on {devices} GPUs", _rows(costs)),
            StudyTable.of("Against published hours", [_checked(row, ran) for row, ran in checks]),
            StudyTable.of(f"STF's own training on {devices} RTX A6000", [_total(c) for c in own]),
        ),
        pictures=(_bars(costs, devices), _against(checks)),
        settings=setting(model, gpus, "eager", recipe=recipe, number_of_GPUs=devices, dtype="bf16"),
    )


def _checks() -> list[tuple[Published, TrainingRun]]:
    """Return published hours of 7B models beside ours."""
    rows = [
        row for row in published_costs()
        if row.unit in _UNITS and row.model in _PUBLISHED_MODELS
    ]  # fmt: skip
    return [(row, ran) for row in rows if (ran := training_run(row)) is not None]


def _rows(costs: Mapping[tuple[str, str], TrainingCost]) -> list[dict[str, Any]]:
    rows = []
    for (gpu, name), cost in costs.items():
        base = costs[gpu, _BASE]
        for stage, plain in (*zip(cost.stages, base.stages, strict=True), (None, None)):
            one, other = (stage, plain) if stage and plain else (cost, base)
            low, high = one.band_hours or (None, None)
            rows.append({
                "gpu": gpu,
                "method": name,
                "stage": stage.name if stage else "both",
                "hours": one.hours,
                "hours_low": low,
                "hours_high": high,
                "gpu_hours": one.gpu_hours,
                "time_ratio": other.hours / one.hours,
                "flops_ratio": other.flops / one.flops,
                "exaflop": one.flops / 1e18,
                "communication_hours": stage.communication_s / 3600 if stage else None,
                "share_of_peak_pct": 100 * stage.achieved_share if stage else None,
                "energy_kwh": one.energy_kwh,
            })  # fmt: skip
    return rows


def _checked(row: Published, ran: TrainingRun) -> dict[str, Any]:
    low, high = ran.band or (None, None)
    return {
        "source": row.source,
        "model": row.model,
        "method": row.method,
        "published": f"{row.metric}, {row.unit}",
        "published_value": row.value,
        "predicted_value": ran.value,
        "predicted_low": low,
        "predicted_high": high,
        "predicted_over_published": ran.value / row.value,
        "in_band": None if ran.band is None else ran.band[0] <= row.value <= ran.band[1],
        "run": ran.how,
    }


def _total(cost: TrainingCost) -> dict[str, Any]:
    low, high = cost.band_hours or (None, None)
    return {
        "recipe": cost.recipe,
        "method": cost.compress,
        "samples": sum(stage.samples for stage in cost.stages),
        "alignment_hours": cost.stages[0].hours,
        "tuning_hours": cost.stages[-1].hours,
        "hours": cost.hours,
        "hours_low": low,
        "hours_high": high,
        "gpu_hours": cost.gpu_hours,
        "energy_kwh": cost.energy_kwh,
    }


def _bars(costs: Mapping[tuple[str, str], TrainingCost], devices: int) -> BarChart:
    names = tuple(f"{gpu}, {name}" for gpu, name in costs)
    stages = [stage.name for stage in next(iter(costs.values())).stages]
    bands = [cost.band_hours for cost in costs.values()]
    known = [band for band in bands if band is not None]
    complete = len(known) == len(bands)
    return BarChart(
        f"Training time on {devices} GPUs", Axis("time", "h"), names,
        {
            stage: tuple(cost.stages[i].hours for cost in costs.values())
            for i, stage in enumerate(stages)
        },
        horizontal=True,
        low={stages[-1]: tuple(low for low, _ in known)} if complete else None,
        high={stages[-1]: tuple(high for _, high in known)} if complete else None,
        note="bars: 90 % band of times, and the range of text lengths and padding",
    )  # fmt: skip


def _against(checks: Sequence[tuple[Published, TrainingRun]]) -> LineChart:
    series = []
    for unit in _UNITS:
        own = [(row, ran) for row, ran in checks if row.unit == unit]
        if not own:
            continue
        bands = [ran.band or (ran.value, ran.value) for _, ran in own]
        series.append(
            Series.of(
                {"h": "hours on 8 GPUs", "GPU h": "GPU-hours"}[unit],
                [row.value for row, _ in own],
                [ran.value for _, ran in own],
                ([low for low, _ in bands], [high for _, high in bands]),
                mode="markers",
                labels=[f"{row.method}, {row.model}" for row, _ in own],
                hover=[f"{row.source}; {ran.how}" for row, ran in own],
            )
        )
    return LineChart(
        "Predicted and published training time",
        Axis("published", "h", log=True), Axis("predicted", "h", log=True), tuple(series),
        diagonal=True, note="on the dashed line they agree; no parameter was fitted to these",
    )  # fmt: skip


def _answer(
    costs: Mapping[tuple[str, str], TrainingCost],
    checks: Sequence[tuple[Published, TrainingRun]],
    own: Sequence[TrainingCost],
    gpus: Sequence[str],
    devices: int,
) -> str:
    said = []
    for gpu in gpus:
        base = costs[gpu, _BASE]
        rest = [
            f"{costs[gpu, name].hours:.1f} h with {name} "
            f"({times(base.hours / costs[gpu, name].hours)} faster)"
            for name in VARIANTS
            if name not in (_BASE, "AvgPool 2x2 (144)")
        ]
        said.append(f"{base.hours:.1f} h without compression on {gpu}, {listing(rest)}")
    base, full = costs[gpus[0], _BASE], costs[gpus[0], _FULL]
    ratios = [base.hours / full.hours, base.flops / full.flops]
    text = (
        f"Two stages of training on {devices} GPUs take {'; '.join(said)}. Fewer visual tokens "
        f"save less than of prefill, {number(ratios[0])} times in time and {number(ratios[1])} "
        "times in FLOPs, since the text of tuning, which no method shortens, and its padding stay. "
    )
    pairs = [ran.value / row.value for row, ran in checks]
    inside = [row for row, ran in checks if ran.band and ran.band[0] <= row.value <= ran.band[1]]
    return (
        f"{text}Of {len(checks)} published figures {len(inside)} lie in their bands and "
        f"predictions are {span(pairs)} of them ({_anchors(checks)}). STF's own recipe on "
        f"{devices} RTX A6000 is predicted at {own[1].hours:.1f} h instead of "
        f"{own[0].hours:.1f} h on the data of its scripts, and at {own[3].hours:.1f} h instead of "
        f"{own[2].hours:.1f} h on those its paper names."
    )


def _anchors(checks: Sequence[tuple[Published, TrainingRun]]) -> str:
    return listing(
        f"{row.method} {row.model} {number(ran.value)} for {number(row.value)} {row.unit}"
        for row, ran in checks
        if row.model == _PUBLISHED_MODELS[0]
    )


def _uncertainty(
    costs: Mapping[tuple[str, str], TrainingCost],
    checks: Sequence[tuple[Published, TrainingRun]],
) -> str:
    bands = [
        side / cost.hours - 1
        for cost in costs.values()
        for side in cost.band_hours or (cost.hours,)
    ]
    mean = sum(ran.value / row.value for row, ran in checks) / len(checks) if checks else 1.0
    assumed = [f"{note[0].upper()}{note[1:]}." for note in next(iter(costs.values())).notes[:5]]
    return (
        f"Bands reach from {100 * min(bands):+.0f} to {100 * max(bands):+.0f} %, most of it from "
        f"text lengths and padding. Predictions are on average {percent(abs(mean - 1))} "
        f"{'above' if mean > 1 else 'below'} the published hours, which are round figures of two "
        "labs with unknown stages and data loaders; no parameter was fitted to them, but what is "
        "assumed decides much of the result. Kernel times are those of inference. "
        f"{' '.join(assumed)} No training time on RTX A6000 was published; that its cards exchange "
        "over PCIe, as a bridge joins two, is assumed, and its kernels are those of an A40, "
        "attention borrowed from others."
    )


STUDY = Study(
    title="What two-stage training costs",
    question=(
        "How long do alignment and instruction tuning take with 576 visual tokens, with 144, and "
        "with PyramidDrop, and what would that be on eight RTX A6000?"
    ),
    method=(
        "FLOPs and times of a forward pass at the micro batch, times the passes of each part that "
        "a recipe trains, freezes or checkpoints, plus optimizer and communication "
        "(costmodel.training). The recipes are LLaVA-1.5's and STF's. Published hours of LLaVA and "
        "PyramidDrop are predicted by the same code and compared; none was fitted to."
    ),
    run=_run,
    sources=(
        "https://github.com/haotian-liu/LLaVA",
        "https://arxiv.org/abs/2410.17247",
        "https://arxiv.org/abs/2506.07138",
    ),
)
