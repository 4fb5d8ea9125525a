"""Decode and KV cache: what fewer visual tokens gain once memory is full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, BarChart, LineChart, Panels, Series
from costmodel.memory import memory
from costmodel.studies.serving_bound import Served, served
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, number, setting, span, times

__all__ = ["STUDY"]

VARIANTS = {
    "none (576)": None,
    "MBTF+STF (144)": "mbtf+stf:window=2",
    "cluster (64)": "cluster:k=64",
    "spatial (64)": "spatial:k=64",
    "FastV (64)": "fastv:layer=2,k=30",
    "VoCo-LLaMA (1)": "voco-llama:k=1",
    "HTC-VLM (1)": "htc-vlm:k=1",
}
"""Compression, by the name in tables and pictures with its visual tokens."""

_BASE, _FEW, _ONE = "none (576)", "spatial (64)", ("VoCo-LLaMA (1)", "HTC-VLM (1)")
_LONGEST = 4096


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("rtx-a6000", "a100-80gb-sxm"),
    outputs: Sequence[int] = (1, 4, 16, 64, 256, 1024, 4096),
    text_tokens: int = 64,
    prefill_batch: int = 8,
    usable: float = 0.9,
    runtime: str = "cuda-graph",
) -> Finding:
    options = {"prefill_batch": prefill_batch, "usable": usable}
    cases: dict[tuple[str, str], Case] = {
        (gpu, name): prepare(
            model, gpu, text_tokens=text_tokens, compress=compress, runtime=runtime,
            time_model="calibrated",
        )
        for gpu in gpus
        for name, compress in VARIANTS.items()
    }  # fmt: skip
    found = {key: served(case, outputs, **options) for key, case in cases.items()}  # type: ignore[arg-type]
    alike = {
        (gpu, name): served(case, outputs, requests=found[gpu, _BASE].requests, **options)  # type: ignore[arg-type]
        for (gpu, name), case in cases.items()
    }
    ahead = [
        {
            "gpu": gpu,
            "one_token_method": one,
            "against": _FEW,
            "ahead_from_output_tokens": _ahead(cases[gpu, one], cases[gpu, _FEW], None, options),
            "ahead_with_as_many_requests_from": _ahead(
                cases[gpu, one], cases[gpu, _FEW], cases[gpu, _BASE], options
            ),
            "searched_up_to": _LONGEST,
        }
        for gpu in gpus
        for one in _ONE
    ]
    images = _images(cases)
    return Finding(
        answer=_answer(found, alike, ahead, images, gpus),
        uncertainty=_uncertainty(found, cases, prefill_batch, usable),
        tables=(
            StudyTable.of("Requests held and served at the limit of memory", _rows(found, alike)),
            StudyTable.of("An image in the cache", images),
            StudyTable.of("One token against 64", ahead),
        ),
        pictures=(_curves(found, gpus), _bars(found, gpus[0])),
        settings=setting(
            model, gpus, runtime, text_tokens=text_tokens, prefilled_together=prefill_batch,
            share_of_memory_used=usable,
        ),
    )  # fmt: skip


def _rows(
    found: Mapping[tuple[str, str], Served], alike: Mapping[tuple[str, str], Served]
) -> list[dict[str, Any]]:
    rows = []
    for (gpu, name), one in found.items():
        base, same = found[gpu, _BASE], alike[gpu, name]
        low, high = one.band_per_s
        for i, output in enumerate(one.outputs):
            rows.append({
                "gpu": gpu,
                "method": name,
                "output_tokens": int(output),
                "requests_at_once": int(one.requests[i]),
                "cache_per_request_mb": one.cache_bytes[i] / 1e6,
                "prefill_per_request_ms": 1e3 * one.prefill_s,
                "decode_step_ms": 1e3 * one.step_s[i],
                "requests_per_s": one.requests_per_s[i],
                "requests_per_s_low": low[i],
                "requests_per_s_high": high[i],
                "gain": one.requests_per_s[i] / base.requests_per_s[i],
                "gain_at_requests_of_none": same.requests_per_s[i] / base.requests_per_s[i],
            })  # fmt: skip
    return rows


def _images(cases: Mapping[tuple[str, str], Case]) -> list[dict[str, Any]]:
    """Return what one image leaves in the cache; the same on every GPU."""
    rows = []
    first = next(iter(cases))[0]
    for (gpu, name), case in cases.items():
        if gpu != first:
            continue
        program, _ = case.program()
        whole, text = (
            float(memory(program, b=1, o=0).kv_cache),
            float(memory(_without_image(case).program()[0], b=1, o=0).kv_cache),
        )
        rows.append({
            "method": name,
            "cache_per_image_mb": (whole - text) / 1e6,
            "images_per_gb": 1e9 / (whole - text),
        })  # fmt: skip
    return rows


def _without_image(case: Case) -> Case:
    return prepare(
        case.model, case.gpu, text_tokens=case.workload.text_tokens, visual_tokens=0,
        runtime=case.deployment.runtime,
    )  # fmt: skip


def _ahead(one: Case, other: Case, limit: Case | None, options: Mapping[str, Any]) -> int | None:
    """Return the output tokens from which on one case serves more than the other.

    Both decode as many requests as fit, or as many as fit for a third case.
    """
    outputs = np.unique(np.geomspace(1, _LONGEST, 400).astype(np.int64))
    requests = served(limit, outputs, **options).requests if limit is not None else None
    rates = [
        served(case, outputs, requests=requests, **options).requests_per_s for case in (one, other)
    ]
    behind = np.flatnonzero(rates[0] <= rates[1])
    if behind.size == 0:
        return int(outputs[0])
    return int(outputs[behind[-1] + 1]) if behind[-1] + 1 < outputs.size else None


def _curves(found: Mapping[tuple[str, str], Served], gpus: Sequence[str]) -> Panels:
    length = Axis("output tokens", log=True)
    charts = []
    for gpu in gpus:
        # The two methods of one token cover each other.
        own = {
            name: one
            for (where, name), one in found.items()
            if where == gpu and name not in _ONE[1:]
        }
        base = own[_BASE].requests_per_s
        charts += [
            LineChart(
                f"{gpu}: requests served", length, Axis("times as many as without"),
                tuple(
                    Series.of(name, one.outputs, one.requests_per_s / base, mode="lines+markers")
                    for name, one in own.items()
                ),
            ),
            LineChart(
                f"{gpu}: requests held at once", length, Axis("requests", log=True),
                tuple(
                    Series.of(name, one.outputs, one.requests, mode="lines+markers")
                    for name, one in own.items()
                ),
            ),
        ]  # fmt: skip
    return Panels("Requests at the limit of memory", tuple(charts))


def _bars(found: Mapping[tuple[str, str], Served], gpu: str) -> BarChart:
    own = {name: one for (where, name), one in found.items() if where == gpu}
    outputs = next(iter(own.values())).outputs
    shown = [i for i, output in enumerate(outputs) if output in (16, 64, 256)] or [0]
    places = [(i, name) for i in shown for name in own]
    return BarChart(
        f"GPU time per request at the limit of memory, {gpu}",
        Axis("time per request", "ms"),
        tuple(f"{name}, {outputs[i]:.0f} out" for i, name in places),
        {
            "prefill": tuple(1e3 * own[name].prefill_s for _, name in places),
            "share of the decode steps": tuple(
                1e3 * float(own[name].decode_s[i]) for i, name in places
            ),
        },
        horizontal=True,
        hover={
            part: tuple(f"{own[name].requests[i]:.0f} requests at once" for i, name in places)
            for part in ("prefill", "share of the decode steps")
        },
    )  # fmt: skip


def _answer(
    found: Mapping[tuple[str, str], Served],
    alike: Mapping[tuple[str, str], Served],
    ahead: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    gpus: Sequence[str],
) -> str:
    cached = {row["method"]: row["cache_per_image_mb"] for row in images}
    said = []
    for gpu in gpus:
        base, few, same = found[gpu, _BASE], found[gpu, _FEW], alike[gpu, _FEW]
        last = int(np.argmin(np.abs(base.outputs - 256)))
        gains = [one.requests_per_s / base.requests_per_s for one in (few, same)]
        said.append(
            f"on {gpu} 64 tokens hold {few.requests[last]:.0f} instead of "
            f"{base.requests[last]:.0f} requests of {base.outputs[last]:.0f} output tokens and "
            f"serve {times(gains[0][last])} as many per second, "
            f"{number(few.requests_per_s[last])} instead of {number(base.requests_per_s[last])} "
            f"({times(gains[1][last])} without the further requests); the gain goes from "
            f"{number(gains[0][0])} at {base.outputs[0]:.0f} to {number(gains[0][-1])} at "
            f"{base.outputs[-1]:.0f} output tokens"
        )
    slow = [found[gpu, one].prefill_s / found[gpu, _FEW].prefill_s for gpu in gpus for one in _ONE]
    return (
        f"Once memory is full, {'; '.join(said)}. Methods that press an image into one token "
        f"prefill {span(slow, 'times')} as long as 64 sampled tokens, since all visual tokens "
        f"pass every layer. {_late(ahead)} An image that stays in the cache costs no prefill, and "
        f"one token takes {number(cached[_ONE[0]])} MB of it, 64 take {number(cached[_FEW])} and "
        f"all of them {number(cached[_BASE])} MB."
    )


def _late(ahead: Sequence[Mapping[str, Any]]) -> str:
    """Say from which answer on one token serves more than 64."""

    def told(column: str) -> str:
        known = [row for row in ahead if row[column] is not None]
        texts = [f"{row['one_token_method']} on {row['gpu']} from {row[column]:,}" for row in known]
        if not known:
            return f"at no length up to {_LONGEST:,} tokens"
        rest = "" if len(known) == len(ahead) else ", the others at no length"
        return f"only with long answers: {listing(texts)} tokens{rest}"

    return (
        f"They serve more than those {told('ahead_from_output_tokens')}; with the same number of "
        f"requests at once, {told('ahead_with_as_many_requests_from')} (with their own number, the "
        "prompts being prefilled hold all tokens until they are evicted)."
    )


def _uncertainty(
    found: Mapping[tuple[str, str], Served],
    cases: Mapping[tuple[str, str], Case],
    prefill_batch: int,
    usable: float,
) -> str:
    spread = [bound / one.requests_per_s - 1 for one in found.values() for bound in one.band_per_s]
    return (
        "A bound, not a simulation: requests are alike, memory is filled by requests of full "
        f"length, prefills of {prefill_batch} and decode steps take turns, nothing queues, pages "
        f"of the cache waste nothing, and {100 * usable:.0f} % of the memory may be used. All "
        f"times at one end of their bands move rates by {100 * float(np.min(spread)):+.0f} to "
        f"{100 * float(np.max(spread)):+.0f} %; ratios move less, as errors are shared. "
        f"{evidence(cases.values())} {stack_bands(cases.values())} "
        "No time of decoding at the batches reached here was published "
        "for these models, and the model extrapolates attention to them. The MGVQ tokenizer of "
        "HTC-VLM is not counted, and VoCo's public code keeps the whole cache; that it keeps one "
        "token's is the paper's claim. FastV's 64 are a mean over 32 layers."
    )


STUDY = Study(
    title="Decode and KV cache at the limit of memory",
    question=(
        "How many more requests does a GPU hold and serve with fewer visual tokens once its memory "
        "is full, over the length of the answer, and do methods of one token beat 64?"
    ),
    method=(
        "As many requests as the KV cache leaves room for decode together; the time of each is its "
        "prefill, several prefilled together, and its share of the decode steps. Both times are "
        "those of the calibrated time model at that number of requests. The same is computed with "
        "the number of requests that fit without compression, which separates shorter steps from "
        "more requests."
    ),
    run=_run,
    sources=(
        "https://arxiv.org/abs/2406.12275",
        "https://arxiv.org/abs/2512.08240",
        "https://arxiv.org/abs/2506.07138",
    ),
)
