"""Several questions on one image: choices made for a text against choices that hold for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.compression.method import Context, split
from costmodel.compression.method import request as make_request
from costmodel.evaluation import FloatArray
from costmodel.specs.workload import DTYPE_BYTES, check_count
from costmodel.studies.prefill import Prefill, prefill
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, milliseconds, setting, span

__all__ = ["STRATEGIES", "STUDY"]

STRATEGIES = {
    "none": ("", False),
    "spatial": ("spatial", False),
    "cluster": ("cluster", False),
    "VisionZip": ("visionzip", False),
    "FastV": ("fastv", True),
    "PyramidDrop": ("pyramiddrop", True),
    "SparseVLM": ("sparsevlm", True),
}
"""Method by name, and whether the text decides which tokens stay."""

_BASE = "none"


@dataclass(frozen=True)
class Conversation:
    """One strategy over the questions of a conversation.

    Attributes
    ----------
    turn_s : ndarray
        Time to the first token of each answer [s].
    low_s, high_s : ndarray
        Its 90 % band, for any lab and software [s].
    cache_bytes : ndarray
        Keys and values when an answer begins [B].
    aware : bool
        Whether the text decides which tokens stay.
    """

    turn_s: FloatArray
    low_s: FloatArray
    high_s: FloatArray
    cache_bytes: FloatArray
    aware: bool

    @property
    def total_s(self) -> FloatArray:
        """Time of all first tokens so far [s]."""
        return np.asarray(np.cumsum(self.turn_s), dtype=np.float64)


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    turns: int = 8,
    kept: int = 64,
    first_text: int = 64,
    question: int = 32,
    answer: int = 64,
    runtime: str = "eager",
) -> Finding:
    check_count("turns", turns, low=2, high=1000)
    texts = first_text + np.arange(turns, dtype=np.float64) * (question + answer)
    found: dict[tuple[str, str], Conversation] = {}
    cases: list[Case] = []
    for gpu in gpus:
        asked: dict[str, Any] = {"runtime": runtime, "time_model": "calibrated"}
        plain = prepare(model, gpu, text_tokens=first_text, **asked)
        later = prepare(model, gpu, text_tokens=question, visual_tokens=0, **asked)
        cases.append(plain)
        for name, (method, aware) in STRATEGIES.items():
            case = plain
            if method:
                context = Context(plain.model, plain.images, plain.deployment)
                chosen, _ = split(method)
                request = make_request(chosen, chosen.params_for(kept, context))
                case = prepare(model, gpu, text_tokens=first_text, compress=request, **asked)
            whole = prefill(case, text_tokens=texts)
            found[gpu, name] = _again(whole) if aware else _cached(whole, later, question)
    even = _even(found, gpus)
    return Finding(
        answer=_answer(found, even, gpus, kept),
        uncertainty=_uncertainty(found, cases, question, answer),
        tables=(
            StudyTable.of(f"{turns} questions on one image", _rows(found)),
            StudyTable.of("Questions at which choosing anew for each stops paying", even),
        ),
        pictures=(_curves(found, gpus[0], kept),),
        settings=setting(
            model, gpus, runtime, tokens_kept=kept, text_of_the_first_prompt=first_text,
            tokens_of_a_question=question, tokens_of_an_answer=answer, batch=1,
        ),
    )  # fmt: skip


def _cached(whole: Prefill, later: Case, question: int) -> Conversation:
    """Later questions run on what the first left in the cache."""
    held = whole.memory.kv_cache
    text = later.model.text
    element = DTYPE_BYTES[later.deployment.kv_dtype]
    cached = held / (2 * text.layers * text.kv_heads * text.head_dim * element) - question
    next_ones = prefill(later, p=cached)
    low, high = whole.bands["any_stack"]
    next_low, next_high = next_ones.bands["any_stack"]
    first = np.arange(len(held)) == 0
    return Conversation(
        np.where(first, whole.ttft_s, next_ones.ttft_s), np.where(first, low, next_low),
        np.where(first, high, next_high), held, False,
    )  # fmt: skip


def _again(whole: Prefill) -> Conversation:
    """Every question runs the whole prompt again, image features kept."""
    vision = ("vision_encoder", "projector")
    seen: FloatArray = np.sum([whole.gpu_s[s] + whole.host_s[s] for s in vision], axis=0)
    saved = np.where(np.arange(len(seen)) == 0, 0.0, seen)
    share = 1 - saved / whole.ttft_s
    low, high = whole.bands["any_stack"]
    return Conversation(
        whole.ttft_s * share, low * share, high * share, whole.memory.kv_cache, True
    )


def _rows(found: Mapping[tuple[str, str], Conversation]) -> list[dict[str, Any]]:
    return [
        {
            "gpu": gpu,
            "method": name,
            "chosen_for": "each question" if one.aware else "the image",
            "question": i + 1,
            "ttft_ms": 1e3 * one.turn_s[i],
            "ttft_low_ms": 1e3 * one.low_s[i],
            "ttft_high_ms": 1e3 * one.high_s[i],
            "all_so_far_ms": 1e3 * one.total_s[i],
            "kv_cache_mb": one.cache_bytes[i] / 1e6,
        }
        for (gpu, name), one in found.items()
        for i in range(len(one.turn_s))
    ]


def _even(
    found: Mapping[tuple[str, str], Conversation], gpus: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the question from which on no compression was faster in all."""
    rows = []
    for gpu in gpus:
        base = found[gpu, _BASE].total_s
        for name in (name for name, (_, aware) in STRATEGIES.items() if aware):
            behind = np.flatnonzero(found[gpu, name].total_s > base)
            rows.append({
                "gpu": gpu,
                "method": name,
                "slower_than_none_from_question": int(behind[0]) + 1 if behind.size else None,
                "questions_computed": len(base),
            })  # fmt: skip
    return rows


def _curves(found: Mapping[tuple[str, str], Conversation], gpu: str, kept: int) -> Panels:
    own = {name: one for (where, name), one in found.items() if where == gpu}
    number = Axis("questions on the image")
    return Panels(
        f"Several questions on one image, {kept} visual tokens kept, {gpu}",
        (
            LineChart(
                "All times to the first token", number, Axis("sum of TTFT", "ms"),
                tuple(
                    Series.of(
                        name, np.arange(1, len(one.turn_s) + 1), 1e3 * one.total_s,
                        mode="lines+markers",
                    )
                    for name, one in own.items()
                ),
            ),
            LineChart(
                "Each time to the first token", number, Axis("TTFT", "ms"),
                tuple(
                    Series.of(
                        name, np.arange(1, len(one.turn_s) + 1), 1e3 * one.turn_s,
                        mode="lines+markers",
                    )
                    for name, one in own.items()
                ),
            ),
        ),
        note="FastV, PyramidDrop and SparseVLM choose for each question and run the prompt again",
    )  # fmt: skip


def _answer(
    found: Mapping[tuple[str, str], Conversation],
    even: Sequence[Mapping[str, Any]],
    gpus: Sequence[str],
    kept: int,
) -> str:
    said = []
    for gpu in gpus:
        own = {name: one for (where, name), one in found.items() if where == gpu}
        aware = [one for one in own.values() if one.aware]
        steady = [one for one in own.values() if not one.aware]
        last = len(steady[0].turn_s) - 1
        fastest = min(
            (name for name, one in own.items() if not one.aware),
            key=lambda name: float(own[name].total_s[-1]),
        )
        spans = [
            span((1e3 * one.turn_s[i] for one in group), "ms")
            for group, i in ((steady, 1), (aware, 1), (aware, last))
        ]
        said.append(
            f"on {gpu} the second question takes {spans[0]} on a cache and {spans[1]} where the "
            f"prompt runs again, which becomes {spans[2]} at question {last + 1}; after it "
            f"{fastest} has taken {milliseconds(float(own[fastest].total_s[-1]))} in all, no "
            f"compression {milliseconds(float(own[_BASE].total_s[-1]))}"
        )
    known = [row for row in even if row["slower_than_none_from_question"] is not None]
    verdict = (
        "In sum they are slower than no compression from "
        + listing(
            f"question {row['slower_than_none_from_question']} ({row['method']}, {row['gpu']})"
            for row in known
        )
        if known
        else "In sum none of them is slower than no compression"
    )
    rest = ", the others not within those computed" if known and len(known) < len(even) else ""
    return (
        f"Methods that choose {kept} tokens without reading the text pay once, and later questions "
        "run on what is cached; those that read it must choose again, which needs the tokens they "
        f"have dropped: {'; '.join(said)}. {verdict}{rest}. Keeping all tokens in the cache "
        "instead makes later questions as fast as without compression and saves no memory."
    )


def _uncertainty(
    found: Mapping[tuple[str, str], Conversation],
    cases: Sequence[Case],
    question: int,
    answer: int,
) -> str:
    spread = [
        100 * float(np.max(np.abs(side / one.turn_s - 1)))
        for one in found.values()
        for side in (one.low_s, one.high_s)
    ]
    return (
        f"Bands of 90 % for any lab and software are up to {max(spread):.0f} % wide to one side. "
        f"{evidence(cases)} {stack_bands(cases)} "
        f"Questions of {question} and answers of {answer} tokens are assumed. "
        "That the image's features stay in memory between questions is assumed for all, as is "
        "that nothing else evicts the cache; the time of the answers themselves is left out, and "
        "is shorter the fewer tokens are cached. Accuracy over several questions was published "
        "for none of these methods: tokens chosen for the first question may serve later ones "
        "badly, which is why choosing again is what is priced."
    )


STUDY = Study(
    title="Several questions on one image",
    question=(
        "When a conversation asks several questions about one image, which methods amortise their "
        "cost, and from which question on does choosing tokens for each text stop paying?"
    ),
    method=(
        "Methods that do not read the text prefill image and first question once; each later "
        "question runs its own tokens on the cache that grows. Methods whose choice depends on the "
        "text run the whole prompt again for every question, with the image's features kept. "
        "Times are those of the calibrated time model; attention of a later question is over the "
        "whole cache."
    ),
    run=_run,
    sources=("https://arxiv.org/abs/2403.06764", "https://arxiv.org/abs/2410.04417"),
)
