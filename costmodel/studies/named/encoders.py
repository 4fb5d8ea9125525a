"""Vision encoders: their share of the time to the first token, before and after compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, BarChart, LineChart, Panels, Series
from costmodel.evaluation import FloatArray
from costmodel.studies.prefill import Prefill, prefill
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, percent, setting, times

__all__ = ["STUDY"]

TOWERS = {
    "llava-1.5-7b": "CLIP ViT-L/14-336",
    "llava-next-vicuna-7b": "CLIP ViT-L/14-336, tiles",
    "vila-1.5-3b": "SigLIP-SO400M-384",
    "llava-onevision-qwen2-7b": "SigLIP-SO400M-384, tiles",
    "idefics3-8b": "SigLIP-SO400M-364, tiles",
    "internvl3-8b": "InternViT-300M-448, tiles",
    "qwen2-vl-7b": "Qwen2-VL ViT-675M",
    "qwen2.5-vl-7b": "Qwen2.5-VL ViT, windows",
}
"""Models of the catalogue and what the tower of each is called."""

_VISION = ("vision_encoder", "projector")
_LANGUAGE = ("llm_prefill", "lm_head")
_COMMON = "llava-1.5-7b"


@dataclass(frozen=True)
class Encoded:
    """One model on one GPU, over shares of its visual tokens that are kept.

    Attributes
    ----------
    case : Case
    kept : ndarray
        Visual tokens in the language model.
    run : Prefill
    """

    case: Case
    kept: FloatArray
    run: Prefill

    @property
    def vision_s(self) -> FloatArray:
        """Tower and projector with the host time in them [s]."""
        return _sum(self.run, _VISION)

    @property
    def share(self) -> FloatArray:
        """Share of tower and projector in the time to the first token."""
        share: FloatArray = self.vision_s / self.run.ttft_s
        return share

    @property
    def share_band(self) -> tuple[FloatArray, FloatArray]:
        """The same with the tower at one end of its band and the language model at the other."""
        other = self.run.ttft_s - self.run.gpu_s["vision_encoder"] - self.run.gpu_s["llm_prefill"]
        tower, model = self.run.stage_band("vision_encoder"), self.run.stage_band("llm_prefill")
        fixed = self.vision_s - self.run.gpu_s["vision_encoder"]
        low, high = (
            (tower[side] + fixed) / (tower[side] + model[1 - side] + other) for side in (0, 1)
        )
        return low, high

    @property
    def speedup(self) -> FloatArray:
        """Time with all tokens over that with those kept, compression itself free."""
        ratio: FloatArray = self.run.ttft_s[0] / self.run.ttft_s
        return ratio


def _sum(run: Prefill, stages: Sequence[str]) -> FloatArray:
    total: FloatArray = np.sum([run.gpu_s[s] + run.host_s[s] for s in stages], axis=0)
    return total


def _run(
    model: str = "all",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    image: str = "672x672",
    shares: Sequence[float] = (1.0, 0.5, 0.25, 0.11, 0.05),
    text_tokens: int = 64,
    runtime: str = "cuda-graph",
) -> Finding:
    models = tuple(TOWERS) if model == "all" else (model,)
    kept_shares = (1.0, *(share for share in shares if share < 1.0))
    found = {
        (gpu, name): _encoded(name, gpu, image, kept_shares, text_tokens, runtime)
        for gpu in gpus
        for name in models
    }
    bare = {gpu: _towers(found, gpu, text_tokens, runtime) for gpu in gpus}
    rows = [row for gpu in gpus for row in bare[gpu]]
    shares_table = [
        row for key, one in found.items() for row in _rows(key[0], key[1], one, kept_shares)
    ]
    own = {name: one for (gpu, name), one in found.items() if gpu == gpus[0]}
    return Finding(
        answer=_answer(own, kept_shares, bare[gpus[0]], gpus[0], image),
        uncertainty=_uncertainty(found),
        tables=(
            StudyTable.of(f"Share of the encoder, image of {image}", shares_table),
            StudyTable.of("Encoders in front of the same language model, Vicuna-7B", rows),
        ),
        pictures=(_curves(own, kept_shares, gpus[0]), _bars(own, kept_shares, gpus[0])),
        settings=setting(
            ", ".join(models), gpus, runtime, image=image, text_tokens=text_tokens, batch=1,
        ),
    )  # fmt: skip


def _encoded(
    model: str, gpu: str, image: str, shares: Sequence[float], text_tokens: int, runtime: str
) -> Encoded:
    case = prepare(
        model, gpu, text_tokens=text_tokens, images=[image], runtime=runtime,
        time_model="calibrated",
    )  # fmt: skip
    layout = case.layout
    whole = layout.tokens if layout is not None else 0
    kept = np.array([max(1, round(share * whole)) for share in shares], dtype=np.float64)
    # The vision side stays as prepared: any method after the encoder, itself free.
    return Encoded(case, kept, prefill(case, visual_tokens=kept))


def _rows(gpu: str, model: str, one: Encoded, shares: Sequence[float]) -> list[dict[str, Any]]:
    low, high = one.share_band
    return [
        {
            "gpu": gpu,
            "model": model,
            "encoder": TOWERS.get(model, model),
            "share_of_tokens_kept": share,
            "visual_tokens": int(one.kept[i]),
            "encoder_ms": 1e3 * one.vision_s[i],
            "language_model_ms": 1e3 * _sum(one.run, _LANGUAGE)[i],
            "ttft_ms": 1e3 * one.run.ttft_s[i],
            "encoder_share_pct": 100 * one.share[i],
            "encoder_share_low_pct": 100 * low[i],
            "encoder_share_high_pct": 100 * high[i],
            "speedup_at_most": one.speedup[i],
            "encoder_flops_share_pct": 100
            * float(sum(one.run.flops[stage][i] for stage in _VISION) / one.run.flops["total"][i]),
        }
        for i, share in enumerate(shares)
    ]


def _towers(
    found: Mapping[tuple[str, str], Encoded], gpu: str, text_tokens: int, runtime: str
) -> list[dict[str, Any]]:
    """Set every encoder before one language model: what it alone makes of the share."""
    own = [(name, one) for (where, name), one in found.items() if where == gpu]
    common = prepare(
        _COMMON, gpu, text_tokens=text_tokens, runtime=runtime, time_model="calibrated"
    )
    counts = np.array([one.kept[0] for _, one in own])
    behind = _sum(prefill(common, visual_tokens=counts), _LANGUAGE)
    rows = []
    for (name, one), language_s in zip(own, behind, strict=True):
        vision, layout = one.case.model.vision, one.case.layout
        if vision is None or layout is None:
            continue
        rows.append({
            "gpu": gpu,
            "encoder": TOWERS.get(name, name),
            "layers": vision.layers,
            "width": vision.hidden_size,
            "sequences": layout.tower_sequences,
            "gmac_per_image": float(one.run.flops["vision_encoder"][0]) / 2e9,
            "visual_tokens": int(one.kept[0]),
            "gmac_per_visual_token": float(one.run.flops["vision_encoder"][0]) / 2e9 / one.kept[0],
            "encoder_ms": 1e3 * one.vision_s[0],
            "vicuna_7b_ms": 1e3 * language_s,
            "encoder_share_pct": 100 * one.vision_s[0] / (one.vision_s[0] + language_s),
        })  # fmt: skip
    return rows


def _curves(own: Mapping[str, Encoded], shares: Sequence[float], gpu: str) -> Panels:
    kept = Axis("visual tokens kept", "%", log=True)
    percents = [100 * share for share in shares]

    def lines(value: str) -> tuple[Series, ...]:
        return tuple(
            Series.of(
                name, percents,
                100 * one.share if value == "share" else one.speedup, mode="lines+markers",
                hover=[f"{TOWERS.get(name, name)}, {tokens:.0f} tokens" for tokens in one.kept],
            )
            for name, one in own.items()
        )  # fmt: skip

    return Panels(
        f"What the encoder leaves to gain, {gpu}",
        (
            LineChart(
                "Share of encoder and projector", kept, Axis("of the time to the first token", "%"),
                lines("share"),
            ),
            LineChart(
                "At most gained behind the encoder", kept, Axis("speed-up"), lines("speedup")
            ),
        ),
        note="one request; compression itself is free",
    )  # fmt: skip


def _bars(own: Mapping[str, Encoded], shares: Sequence[float], gpu: str) -> BarChart:
    shown = [0, min(range(len(shares)), key=lambda i: abs(shares[i] - 0.11))]
    places = [(name, i) for name in own for i in shown]
    runs = [(own[name].run, i) for name, i in places]
    return BarChart(
        f"Time to the first token with all and with {100 * shares[shown[1]]:.0f} % of the visual "
        f"tokens, {gpu}",
        Axis("time to the first token", "ms"),
        tuple(f"{name}, {own[name].kept[i]:.0f} tokens" for name, i in places),
        {
            "vision encoder": tuple(1e3 * float(r.gpu_s["vision_encoder"][i]) for r, i in runs),
            "projector": tuple(1e3 * float(r.gpu_s["projector"][i]) for r, i in runs),
            "language model and head": tuple(
                1e3 * float(sum(r.gpu_s[stage][i] for stage in _LANGUAGE)) for r, i in runs
            ),
            "host": tuple(1e3 * float(sum(h[i] for h in r.host_s.values())) for r, i in runs),
        },
        horizontal=True,
    )  # fmt: skip


def _answer(
    own: Mapping[str, Encoded],
    shares: Sequence[float],
    bare: Sequence[Mapping[str, Any]],
    gpu: str,
    image: str,
) -> str:
    at = min(range(len(shares)), key=lambda i: abs(shares[i] - 0.11))
    least, most = (pick(own, key=lambda name: own[name].share[at]) for pick in (min, max))
    before = listing(f"{percent(one.share[0])} in {name}" for name, one in own.items())
    overtaken = [name for name, one in own.items() if one.share[at] > 0.5]
    verdict = (
        f"the encoder then takes most of the time in {listing(overtaken)}"
        if overtaken
        else "the language model still takes most of the time in all of them"
    )
    dear, cheap = (pick(bare, key=lambda row: row["gmac_per_visual_token"]) for pick in (max, min))
    ratio = dear["gmac_per_visual_token"] / cheap["gmac_per_visual_token"]
    return (
        f"For an image of {image} on {gpu} encoder and projector take {before} of the time to the "
        f"first token. With {percent(shares[at])} of the visual tokens their share grows to "
        f"{percent(own[least].share[at])} ({least}) up to {percent(own[most].share[at])} ({most}), "
        f"and {verdict}: compression behind the encoder gains at most "
        f"{times(own[most].speedup[at])} there and {times(own[least].speedup[at])} in {least}. "
        f"Results with CLIP do not carry over: {dear['encoder']} spends {ratio:.1f} times as many "
        f"FLOPs on a visual token as {cheap['encoder']}, and before the same language model the "
        f"encoders take {min(row['encoder_share_pct'] for row in bare):.0f} to "
        f"{max(row['encoder_share_pct'] for row in bare):.0f} %."
    )


def _uncertainty(found: Mapping[tuple[str, str], Encoded]) -> str:
    width = [
        100 * float(np.max(side - one.share))
        for one in found.values()
        for side in one.share_band[1:]
    ]
    cases = [one.case for one in found.values()]
    return (
        f"Shares with the encoder slow and the language model fast are up to {max(width):.0f} "
        "points higher (bands of 90 %, any lab and software); attention of the encoder is the "
        f"least certain part. {evidence(cases)} {stack_bands(cases)} "
        "The catalogue has no convolutional encoder: "
        "ConvNeXt and EfficientNet, which a reader of the first paper asks for, are not predicted. "
        "Compression is taken to be free and to act behind the "
        "encoder; methods inside it (ToMe, DyMU, VScan) reduce its share, and those that read "
        "attention weights add to it. Preprocessing of images on the host is outside."
    )


STUDY = Study(
    title="Encoders: what compression leaves over",
    question=(
        "Which share of the time to the first token does the vision encoder take across CLIP, "
        "SigLIP, InternViT and Qwen's encoders, before and after compression?"
    ),
    method=(
        "Each model of the catalogue reads the same image; the number of visual tokens in its "
        "language model is varied with the vision side fixed, which is any method behind the "
        "encoder at no cost of its own. A second table sets every encoder before the same "
        "language model. Times are those of the calibrated time model, one request."
    ),
    run=_run,
    sources=("https://arxiv.org/abs/2504.17892",),
)
