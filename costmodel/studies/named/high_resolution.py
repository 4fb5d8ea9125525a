"""High resolution: what methods cost that grow with the square of the tokens, and what is saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.compression.method import Context, Request, split
from costmodel.compression.method import request as make_request
from costmodel.errors import InputError, UnsupportedError
from costmodel.studies.prefill import Prefill, prefill
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, milliseconds, percent, setting, span

__all__ = ["STUDY"]

IMAGES = {
    "llava-next-vicuna-7b": ("336x336", "672x336", "672x672"),
    "llava-onevision-qwen2-7b": ("384x384", "768x768", "1152x1152"),
    "qwen2-vl-7b": ("448x448", "672x672", "1008x1008", "1344x1344", "2240x2240"),
    "internvl3-8b": ("448x448", "896x896", "1344x1344", "1792x1344"),
}
"""Images of each model, up to most of the tokens that its rule gives."""

METHODS = {
    "k-means, eager": "cluster",
    "k-means, compiled": "cluster:impl=compiled",
    "DivPrune, released": "divprune",
    "DivPrune, running minimum": "divprune:impl=running",
    "ToMe": "tome",
}
"""Methods by the name in tables and pictures."""

_SAVED = "saved at most"


@dataclass(frozen=True)
class Priced:
    """One method on one image.

    Attributes
    ----------
    model, image, method : str
    tokens, kept : int
        Visual tokens before and after.
    plain, free, run : Prefill
        Without compression; with the tokens kept at no cost; with the method.
    """

    model: str
    image: str
    method: str
    tokens: int
    kept: int
    plain: Prefill
    free: Prefill
    run: Prefill

    @property
    def own_s(self) -> float:
        """Operators of the method and the host time in them [s]."""
        return float(self.run.gpu_s["compression"] + self.run.host_s["compression"])

    @property
    def saved_s(self) -> float:
        """What the tokens that go would have taken, behind the encoder [s]."""
        return float(self.plain.ttft_s - self.free.ttft_s)

    @property
    def net_s(self) -> float:
        """What is saved in the end; negative where the method loses [s]."""
        return float(self.plain.ttft_s - self.run.ttft_s)


def _run(
    model: str = "all",
    gpus: Sequence[str] = ("a100-80gb-sxm",),
    share: float = 0.11,
    text_tokens: int = 64,
    runtime: str = "eager",
) -> Finding:
    models = tuple(IMAGES) if model == "all" else (model,)
    found: list[Priced] = []
    cases: list[Case] = []
    for name in models:
        for place, image in enumerate(IMAGES.get(name, IMAGES["qwen2-vl-7b"])):
            case = prepare(
                name, gpus[0], text_tokens=text_tokens, images=[image], runtime=runtime,
                time_model="calibrated",
            )  # fmt: skip
            cases.append(case)
            ends = place in (0, len(IMAGES.get(name, ())) - 1)
            found += _priced(case, image, share, METHODS if ends else _but_tome())
    growth = _growth(found)
    if not growth:
        raise UnsupportedError("model", model, "a model whose visual tokens grow with the image")
    return Finding(
        answer=_answer(found, growth, share, gpus[0]),
        uncertainty=_uncertainty(found, cases),
        tables=(
            StudyTable.of(f"Cost and saving at {percent(share)} of the tokens", _rows(found)),
            StudyTable.of("Growth: exponent from the first to the last image", growth),
        ),
        pictures=(_curves(found, share, gpus[0]),),
        settings=setting(
            ", ".join(models), gpus[:1], runtime, text_tokens=text_tokens, share_kept=share,
            batch=1,
        ),
    )  # fmt: skip


def _but_tome() -> dict[str, str]:
    """Return the methods that do not compile a program for every layer of the tower."""
    return {name: text for name, text in METHODS.items() if text != "tome"}


def _priced(case: Case, image: str, share: float, methods: Mapping[str, str]) -> Iterator[Priced]:
    layout = case.layout
    if layout is None:
        return
    plain = prefill(case)
    kept = max(1, round(share * layout.features))
    free = prefill(case, visual_tokens=kept + layout.markers)
    for name, text in methods.items():
        asked = _asked(case, text, kept)
        if asked is None:
            continue
        yield Priced(
            case.model.name, image, name, layout.tokens, kept + layout.markers, plain, free,
            prefill(replace(case, request=asked)),
        )  # fmt: skip


def _asked(case: Case, text: str, kept: int) -> Request | None:
    """Return the method asked to keep so many tokens; None where it cannot."""
    method, given = split(text)
    context = Context(case.model, case.images, case.deployment)
    try:
        asked = make_request(method, {**given, **method.params_for(kept, context)})
        asked.plan(context)
    except (InputError, UnsupportedError):
        return None
    return asked


def _rows(found: Sequence[Priced]) -> list[dict[str, Any]]:
    return [
        {
            "model": one.model,
            "image": one.image,
            "visual_tokens": one.tokens,
            "tokens_kept": one.kept,
            "method": one.method,
            "own_ms": 1e3 * one.own_s,
            "saved_at_most_ms": 1e3 * one.saved_s,
            "own_over_saved_pct": 100 * one.own_s / one.saved_s if one.saved_s > 0 else None,
            "ttft_plain_ms": 1e3 * float(one.plain.ttft_s),
            "ttft_ms": 1e3 * float(one.run.ttft_s),
            "ttft_low_ms": 1e3 * float(one.run.bands["any_stack"][0]),
            "ttft_high_ms": 1e3 * float(one.run.bands["any_stack"][1]),
            "speedup": float(one.plain.ttft_s / one.run.ttft_s),
            "own_gflop": float(one.run.flops["compression"]) / 1e9,
            "own_launches": float(one.run.launches("compression")),
            "own_moved_gb": float(one.run.bytes_moved["compression"]) / 1e9,
        }
        for one in found
    ]


def _growth(found: Sequence[Priced]) -> list[dict[str, Any]]:
    """Return slopes of log cost over log tokens between the ends of each model's images."""
    rows = []
    for model, method in dict.fromkeys((one.model, one.method) for one in found):
        own = [one for one in found if (one.model, one.method) == (model, method)]
        first, last = own[0], own[-1]
        if first.tokens == last.tokens:
            continue
        span_of_tokens = np.log(last.tokens / first.tokens)

        def slope(before: float, after: float, over: float = span_of_tokens) -> float | None:
            return float(np.log(after / before) / over) if before > 0 and after > 0 else None

        flops, moved = (
            [float(getattr(one.run, part)["compression"]) for one in (first, last)]
            for part in ("flops", "bytes_moved")
        )
        launches = [float(one.run.launches("compression")) for one in (first, last)]
        rows.append({
            "model": model,
            "method": method,
            "tokens_from": first.tokens,
            "tokens_to": last.tokens,
            "own_time": slope(first.own_s, last.own_s),
            "own_flops": slope(*flops),
            "own_bytes": slope(*moved),
            "own_launches": slope(*launches),
            "saving": slope(first.saved_s, last.saved_s),
        })  # fmt: skip
    return rows


def _curves(found: Sequence[Priced], share: float, gpu: str) -> Panels:
    charts = []
    for model in dict.fromkeys(one.model for one in found):
        own = [one for one in found if one.model == model]
        lines = []
        for method in dict.fromkeys(one.method for one in own):
            points = [one for one in own if one.method == method]
            lines.append(
                Series.of(
                    method, [one.tokens for one in points], [1e3 * one.own_s for one in points],
                    mode="lines+markers", hover=[one.image for one in points],
                )
            )  # fmt: skip
        once = {one.tokens: one for one in own}
        lines.append(
            Series.of(
                _SAVED, list(once), [1e3 * max(one.saved_s, 1e-9) for one in once.values()],
                reference=True, hover=[one.image for one in once.values()],
            )
        )  # fmt: skip
        charts.append(
            LineChart(
                model, Axis("visual tokens", log=True), Axis("time", "ms", log=True), tuple(lines)
            )
        )
    return Panels(
        f"Own cost of methods and what {percent(share)} of the tokens save, {gpu}", tuple(charts),
        note="one request; below the dashed line a method pays",
    )  # fmt: skip


def _answer(
    found: Sequence[Priced], growth: Sequence[Mapping[str, Any]], share: float, gpu: str
) -> str:
    largest = {
        (one.model, one.method): one for one in found
    }  # the last image of each model and method
    lost = [one for one in largest.values() if one.net_s < 0]
    said = []
    for method in dict.fromkeys(one.method for one in found):
        own = [one for (_, name), one in largest.items() if name == method]
        part = [100 * one.own_s / one.saved_s for one in own if one.saved_s > 0]
        slopes = [row["own_time"] for row in growth if row["method"] == method]
        known = [value for value in slopes if value is not None]
        said.append(
            f"{method} {span(part, '%')}"
            + (f" (time grows to the power {span(known)} of the tokens)" if known else "")
        )
    squared = [
        row["own_flops"] for row in growth
        if row["method"] != "ToMe" and row["own_flops"] is not None
    ]  # fmt: skip
    slow = [
        row["own_time"] for row in growth
        if row["method"] != "ToMe" and row["own_time"] is not None
    ]  # fmt: skip
    launched = (
        "but their time does not: it is that of loops over the tokens kept, whose kernels are small"
        if slow and max(slow) < min(squared) - 0.5
        else "and their time follows"
    )
    saving = [row["saving"] for row in growth if row["saving"] is not None]
    heavy = max(found, key=lambda one: one.own_s)
    verdict = (
        f"{listing(dict.fromkeys(f'{one.method} in {one.model}' for one in lost))} lose there"
        if lost
        else "none loses there"
    )
    rising = [
        method for method in dict.fromkeys(row["method"] for row in growth)
        if _faster(growth, method)
    ]  # fmt: skip
    return (
        f"Keeping {percent(share)} of the tokens on {gpu}, at the largest image of each model "
        f"a method costs of what it saves: {'; '.join(said)}. FLOPs of k-means and DivPrune grow "
        f"to the power {span(squared)}, {launched}. The saving grows to the power "
        f"{span(saving)}, and "
        + (
            f"{listing(rising)} grow faster than that in every model"
            if rising
            else "no method grows faster than that in every model"
        )
        + f"; {verdict}. The most is {milliseconds(heavy.own_s)} of {heavy.method} on "
        f"{heavy.tokens:,} tokens of {heavy.model}. ToMe merges within each tile, so that more "
        "tiles cost it in proportion only, where tokens of all tiles are compared with each other "
        "by k-means and DivPrune."
    )


def _faster(growth: Sequence[Mapping[str, Any]], method: str) -> bool:
    rows = [row for row in growth if row["method"] == method and row["own_time"] is not None]
    return bool(rows) and all(
        row["saving"] is not None and row["own_time"] > row["saving"] for row in rows
    )


def _uncertainty(found: Sequence[Priced], cases: Sequence[Case]) -> str:
    spread = [
        100 * float(side / one.run.ttft_s - 1)
        for one in found
        for side in one.run.bands["any_stack"]
    ]
    waits = [100 * float(one.run.host_s["compression"]) / one.own_s for one in found]
    return (
        f"Bands of 90 % for any lab and software reach from {min(spread):+.0f} to "
        f"{max(spread):+.0f} % of the time to the first token. "
        f"{evidence(cases)} {stack_bands(cases)} "
        "The costs of "
        "loops rest on the cost of a launch, which differs between computers: "
        f"{span(waits, '%')} of a method's own cost is waiting for the host. Iterations (10), "
        "restarts (1) and library of k-means are assumptions, as the paper states none; that all "
        "tokens of an image are clustered together is one more, and tile by tile would take fewer "
        "FLOPs. ToMe is asked at the first and the last image alone, and only where the projector "
        "keeps every token of the tower. Exponents are slopes between two images, not laws: "
        "launches dominate small images and arithmetic large ones."
    )


STUDY = Study(
    title="High resolution: overhead against saving as tokens grow",
    question=(
        "At thousands of visual tokens per image, does the cost of methods that compare tokens "
        "with each other grow faster than what they save?"
    ),
    method=(
        "LLaVA-NeXT, LLaVA-OneVision, Qwen2-VL and InternVL3 read images of growing size, up to "
        "2,928, 7,371, 6,402 and 3,330 tokens; each method keeps the same share. Its own operators "
        "and host time stand against what as many tokens less, at no cost, would save behind the "
        "encoder; exponents compare the first with the last image."
    ),
    run=_run,
    sources=("https://arxiv.org/abs/2504.17892", "https://arxiv.org/abs/2503.02175"),
)
