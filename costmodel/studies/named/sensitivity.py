"""How the gain from fewer tokens moves with bandwidth, peak, launches and narrow weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.case import prepare
from costmodel.catalog.hardware import load_gpu
from costmodel.charts import Axis, BarChart, LineChart, Panels, Series
from costmodel.specs.hardware import HardwareProfile
from costmodel.studies.prefill import Prefill, image_tokens, prefill
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, setting, times

__all__ = ["STUDY"]

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
PARAMETERS = ("memory bandwidth", "compute peak", "launch cost")
WEIGHTS = ("fp16", "int8", "int4")
TYPICAL = 1 / 9
_LITTLE = 1.0
"""Percent of a time that may rest on the datasheet."""


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtimes: Sequence[str] = ("cuda-graph", "eager"),
    text_tokens: int = 64,
) -> Finding:
    """Vary one quantity at a time, and the format of the weights."""
    rows: list[dict[str, Any]] = []
    narrow: list[dict[str, Any]] = []
    cases = [prepare(model, gpu, text_tokens=text_tokens) for gpu in gpus]
    kept = max(1, round(TYPICAL * image_tokens(cases[0])))
    for runtime in runtimes:
        given: dict[str, Any] = {
            "text_tokens": text_tokens, "runtime": runtime, "attention": "flash",
        }  # fmt: skip
        for gpu in gpus:
            for parameter in PARAMETERS:
                rows += [
                    _row(model, gpu, parameter, factor, kept, given) for factor in FACTORS
                ]  # fmt: skip
            narrow += [_narrow(model, gpu, weights, kept, given) for weights in WEIGHTS]
    return Finding(
        answer=_answer(rows, narrow, gpus, runtimes, kept),
        uncertainty=_UNCERTAINTY + evidence(cases),
        tables=(
            StudyTable.of("One quantity at a time", rows),
            StudyTable.of("Formats of the weights", narrow),
        ),
        pictures=(_lines(rows, gpus, runtimes), _bars(narrow, gpus, runtimes)),
        settings=setting(
            model, gpus, ", ".join(runtimes), text_tokens=text_tokens, kept_tokens=kept
        ),
    )


_UNCERTAINTY = (
    "Changing a datasheet number scales the fitted kernels, whose shares of peak and bandwidth "
    "stay: the factor on the peak is as well one on the share of it that is reached (MFU). Caches "
    "and their bandwidth stay as they are. A real card with twice the bandwidth would reach "
    "another share. Where no kernel with narrow weights was measured the calibrated model falls "
    "back to the roofline of the datasheet (the last column says for which share of the time), "
    "which must not be compared with calibrated fp16; the roofline of both formats stands beside "
    "it. Launch costs are known "
    "within a factor of four down and two up. "
)  # fmt: skip


def _row(
    model: str, gpu: str, parameter: str, factor: float, kept: int, given: dict[str, Any]
) -> dict[str, Any]:
    profile = _changed(load_gpu(gpu), parameter, factor)
    launch = factor if parameter == "launch cost" else 1.0
    found = {
        name: _ttft_s(prefill(prepare(model, profile, compress=compress, **given)), launch)
        for name, compress in _plans(kept).items()
    }
    return {
        "gpu": profile.name,
        "runtime": given["runtime"],
        "quantity": parameter,
        "factor": factor,
        **{f"{name}_ttft_ms": 1e3 * seconds for name, seconds in found.items()},
        **{
            f"{name}_ratio": found["plain"] / seconds
            for name, seconds in found.items() if name != "plain"
        },
    }  # fmt: skip


def _plans(kept: int) -> dict[str, str | None]:
    return {
        "plain": None,
        "index": f"spatial:k={kept}",
        "cluster": f"cluster:k={kept},impl=eager,check=false",
    }


def _changed(gpu: HardwareProfile, parameter: str, factor: float) -> HardwareProfile:
    """Return the profile with its bandwidth or all its peaks times a factor."""
    if parameter == "memory bandwidth":
        rate = gpu.memory.bandwidth
        scaled = rate.model_copy(update={"value": rate.value * factor})
        return gpu.model_copy(
            update={"memory": gpu.memory.model_copy(update={"bandwidth": scaled})}
        )
    if parameter == "compute peak":
        peaks = tuple(p.model_copy(update={"value": p.value * factor}) for p in gpu.peaks)
        return gpu.model_copy(update={"peaks": peaks})
    return gpu


def _ttft_s(found: Prefill, launch: float) -> float:
    busy = sum(float(seconds) for seconds in found.gpu_s.values())
    return busy + sum(float(seconds) for seconds in found.with_launch(launch).values())


def _narrow(model: str, gpu: str, weights: str, kept: int, given: dict[str, Any]) -> dict[str, Any]:
    plans = _plans(kept)
    full, few, full_ideal, few_ideal = (
        prefill(
            prepare(
                model, gpu, compress=plans[name], weights_dtype=weights, time_model=time_model,
                **given,
            )
        )
        for time_model in (None, "ideal")
        for name in ("plain", "index")
    )  # fmt: skip
    return {
        "gpu": gpu,
        "runtime": given["runtime"],
        "weights": weights,
        "plain_ttft_ms": 1e3 * float(full.ttft_s),
        "index_ttft_ms": 1e3 * float(few.ttft_s),
        "plain_language_ms": 1e3 * float(full.language_s),
        "index_language_ms": 1e3 * float(few.language_s),
        "language_ratio": float(full.language_s / few.language_s),
        "ttft_ratio": float(full.ttft_s / few.ttft_s),
        "roofline_language_ratio": float(full_ideal.language_s / few_ideal.language_s),
        "language_on_datasheet_pct": 100 * _on_datasheet(few),
    }


def _on_datasheet(found: Prefill) -> float:
    """Share of the language model's time that no measurement is behind."""
    ops, seconds = found.evaluation.ops, found.times.op_s * found.evaluation.repeat
    own = np.array([op.stage == "llm" for op in ops])
    bare = np.array([tag == "datasheet" for tag in found.times.provenance])
    return float(seconds[own & bare].sum() / seconds[own].sum())


def _answer(
    rows: list[dict[str, Any]],
    narrow: list[dict[str, Any]],
    gpus: Sequence[str],
    runtimes: Sequence[str],
    kept: int,
) -> str:
    parts = [
        f"The gain is the time to the first token without over with compression to {kept} tokens, "
        "taken by index or clustered by a loop of torch kernels."
    ]
    for runtime in runtimes:
        for gpu in gpus:
            own = [row for row in rows if (row["gpu"], row["runtime"]) == (gpu, runtime)]
            base = next(row for row in own if row["factor"] == 1)
            swings = {p: _swing(own, p, "index_ratio") for p in PARAMETERS}
            loops = {p: _swing(own, p, "cluster_ratio") for p in PARAMETERS}
            first = max(swings, key=lambda p: abs(swings[p][1] - swings[p][0]))
            second = max(loops, key=lambda p: abs(loops[p][1] - loops[p][0]))
            parts.append(
                f"On {gpu} with {runtime} it is {times(base['index_ratio'])} by index and moves "
                f"most with the {first} ({_ends(swings[first])}); clustered it is "
                f"{times(base['cluster_ratio'])} and moves most with the {second} "
                f"({_ends(loops[second])})."
            )
    for runtime in runtimes[:1]:
        for gpu in gpus:
            own_narrow = {
                row["weights"]: row for row in narrow
                if (row["gpu"], row["runtime"]) == (gpu, runtime)
            }  # fmt: skip
            parts.append(_narrow_text(own_narrow["fp16"], own_narrow["int4"]))
    return " ".join(parts)


def _narrow_text(wide: dict[str, Any], four: dict[str, Any]) -> str:
    measured = four["language_on_datasheet_pct"] < _LITTLE
    column = "language_ratio" if measured else "roofline_language_ratio"
    before, after = wide[column], four[column]
    word = "more" if after > before else "less" if after < before else "as much"
    how = (
        "" if measured
        else " by the datasheet's roofline, as no such kernel was measured for this card"
    )  # fmt: skip
    return (
        f"Weights of 4 bits on {four['gpu']} ({four['runtime']}) take the language model's gain "
        f"from {times(before)} to {times(after)}{how}: compression then matters {word}."
    )


def _swing(rows: list[dict[str, Any]], parameter: str, column: str) -> tuple[float, float]:
    own = {row["factor"]: row[column] for row in rows if row["quantity"] == parameter}
    return own[FACTORS[0]], own[FACTORS[-1]]


def _ends(swing: tuple[float, float]) -> str:
    return f"{swing[0]:.2f} at half of it, {swing[1]:.2f} at twice"


def _lines(rows: list[dict[str, Any]], gpus: Sequence[str], runtimes: Sequence[str]) -> Panels:
    charts = []
    for runtime in runtimes:
        for gpu in gpus:
            series = [
                Series.of(
                    f"{parameter}, {name}",
                    [row["factor"] for row in own], [row[f"{name}_ratio"] for row in own],
                    mode="lines+markers",
                    hover=[f"{row[f'{name}_ttft_ms']:.1f} ms" for row in own],
                )
                for name in ("index", "cluster")
                for parameter in PARAMETERS
                if (own := [
                    row for row in rows
                    if (row["gpu"], row["runtime"], row["quantity"]) == (gpu, runtime, parameter)
                ])
            ]  # fmt: skip
            charts.append(
                LineChart(
                    f"{gpu}, {runtime}", Axis("factor on the quantity", log=True),
                    Axis("TTFT without over with"), tuple(series),
                )
            )  # fmt: skip
    return Panels("The gain as one quantity moves", tuple(charts))


def _bars(narrow: list[dict[str, Any]], gpus: Sequence[str], runtimes: Sequence[str]) -> Panels:
    by = {(row["gpu"], row["runtime"], row["weights"]): row for row in narrow}
    places = [(gpu, runtime) for gpu in gpus for runtime in runtimes]
    measured = [
        place for place in places
        if all(by[*place, weights]["language_on_datasheet_pct"] < _LITTLE for weights in WEIGHTS)
    ]  # fmt: skip
    charts = [
        BarChart(
            title, Axis("time without over with compression"),
            tuple(f"{gpu}, {runtime}" for gpu, runtime in own),
            {weights: tuple(by[*place, weights][column] for place in own) for weights in WEIGHTS},
            stacked=False,
        )
        for title, column, own in (
            ("calibrated, where such kernels were measured", "language_ratio", measured),
            ("datasheet roofline", "roofline_language_ratio", places),
        )
        if own
    ]  # fmt: skip
    return Panels("Gain of the language model by format of its weights", tuple(charts))


STUDY = Study(
    title="Sensitivity: bandwidth, peak, launches, narrow weights",
    question=(
        "How much does the gain from fewer tokens depend on memory bandwidth, compute peak, the "
        "cost of a launch and the format of the weights?"
    ),
    method=(
        "One quantity at a time is multiplied by factors from a half to two: the bandwidth of the "
        "memory, all compute peaks (the same as the share of them that is reached), and the host's "
        "cost of a launch. The gain is that of tokens taken by index and of eager clustering. "
        "Then weights are stored in 8 and 4 bits, which lowers the floor of reading them."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2504.17892",),
)
