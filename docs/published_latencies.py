"""The page of latencies that others measured, beside what the calibrated model says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from page_parts import table

import costmodel

__all__ = ["Entry", "Prediction", "entries", "load", "page", "predict"]

BANDS = {"any_stack": "any lab and software", "same_stack": "same stack"}
"""Bands of an estimate, the wider first."""

RUNTIMES = {"eager": "eager", "compiled": "flash", "cuda-graph": "flash"}
"""Runtime -> attention that goes with it."""

_INTRODUCTION = """# Published latencies beside ours

What others measured on hardware, and what the calibrated model says for the same request: the time
to the first token in ms at batch 1, without image preparation, tokenising and queueing.
Each cell is our time, the 90 % band for any lab and software, and in brackets the narrower 90 %
band for the lab and software of the calibration; **in** says that the measured time is inside.
Where the source leaves the vision tower out, ours is without tower and projector.
`eager` is the code of papers: unfused kernels and eager attention. `compiled` and `cuda-graph` are
serving software with flash attention.

A table to learn from, not a target: sources rarely say which software ran or what is in the time.

"Predicted as" is the compression that our time is for. Where it says *tokens alone*, the method is
not modelled yet: the time is for the same number of visual tokens in the language model, chosen at
random after a full vision tower. It is a lower bound, as the method's own cost and the flash
attention it gives up are not counted. (ToMe shortens the vision tower too, so that for it the
bound does not hold there.) Methods that drop tokens inside the language model stand with their
equivalent tokens, the mean over its layers.
"""


@dataclass(frozen=True)
class Entry:
    """A published time and the request it is for.

    Attributes
    ----------
    label : str
        Method, as published.
    model, gpu : str
        Names of this project.
    visual_tokens, text_tokens : int
        Prompt before compression.
    measured_ms : float
        Published time [ms].
    compress : str
        What the prediction is for; empty for no compression.
    alone : bool
        Whether that only stands in for the method.
    with_tower : bool
        Whether the vision tower and the projector are in the time.
    dtype, weights_dtype : str
        Formats.
    """

    label: str
    model: str
    gpu: str
    visual_tokens: int
    text_tokens: int
    measured_ms: float
    compress: str
    alone: bool
    with_tower: bool
    dtype: str
    weights_dtype: str

    @property
    def group(self) -> str:
        """What kind of row it is, for the counts."""
        if self.alone:
            return "Tokens alone"
        return "Method modelled" if self.compress else "No compression"


@dataclass(frozen=True)
class Prediction:
    """Our time of an entry [ms], and its bands by kind [ms]."""

    time_ms: float
    bands_ms: Mapping[str, tuple[float, float]]

    def holds(self, band: str, measured_ms: float) -> bool:
        """Return whether a band contains a time [ms]."""
        low, high = self.bands_ms[band]
        return low <= measured_ms <= high


def load(path: Path) -> dict[str, Any]:
    """Return the published figures with what was assumed about them."""
    data: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return data


def entries(published: Mapping[str, Any]) -> list[Entry]:
    """Return the rows of one published table."""
    return [
        Entry(
            label=row["label"],
            model=row["model"],
            gpu=published["gpu"],
            visual_tokens=row["visual_tokens"],
            text_tokens=published["text_tokens"],
            measured_ms=row["measured_ms"],
            compress=row.get("compress", row.get("stand_in", "")),
            alone="stand_in" in row,
            with_tower=published["vision_tower"] != "excluded",
            dtype=published["dtype"],
            weights_dtype=row.get("weights_dtype", published["dtype"]),
        )
        for row in published["rows"]
    ]


def predict(entry: Entry, runtime: str) -> Prediction:
    """Return our time of an entry under a runtime of `RUNTIMES`."""
    result = _estimate(
        entry.model, entry.gpu, entry.visual_tokens, entry.text_tokens, entry.compress,
        entry.dtype, entry.weights_dtype, runtime,
    )  # fmt: skip
    left_out = () if entry.with_tower else ("vision_encoder", "projector")
    times, interval = result.time_s, result.interval_s
    bands = {}
    for band in BANDS:
        # The bounds of a request are nearly sums over its stages, so that stages can be taken out.
        low, high = (
            bound - sum(interval["stages"][stage][band][side] for stage in left_out)
            for side, bound in enumerate(interval["ttft"][band])
        )
        bands[band] = (1e3 * low, 1e3 * high)
    return Prediction(1e3 * (times["ttft"] - sum(times[stage] for stage in left_out)), bands)


@cache
def _estimate(
    model: str,
    gpu: str,
    visual_tokens: int,
    text_tokens: int,
    compress: str,
    dtype: str,
    weights_dtype: str,
    runtime: str,
) -> costmodel.Estimate:
    # Methods of one table often share a stand-in.
    return costmodel.estimate(
        model, gpu, text_tokens=text_tokens, visual_tokens=visual_tokens,
        compress=compress or None, dtype=dtype, weights_dtype=weights_dtype, runtime=runtime,
        attention=RUNTIMES[runtime],
    )  # fmt: skip


def page(data: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    known = [entry for published in data["tables"] for entry in entries(published)]
    parts = [_INTRODUCTION, *(_section(published) for published in data["tables"])]
    parts.append("## How many are inside\n\n" + _counts(known))
    parts.append("## What one learns\n\n" + "".join(f"- {text}\n" for text in data["lessons"]))
    excluded = "".join(
        f"- {item['key'].partition(' (')[0]}, `{item['metric']}` ({item['rows']}): "
        f"{item['reason']}.\n"
        for item in data["excluded"]
    )
    parts.append(f"## Not in the table\n\n{excluded}")
    return "\n".join(parts)


def _section(published: Mapping[str, Any]) -> str:
    text = f"## {published['source']}\n\n"
    facts = {
        "Source": f"<{published['url']}>", "GPU": f"`{published['gpu']}`",
        "Timed": published["timed"], "Vision tower": published["vision_tower"],
        "Text tokens": str(published["text_tokens"]), "Software": published["software"],
        "Format": published["dtype"], "Assumed": published["assumed"],
    }  # fmt: skip
    text += "".join(f"- {name}: {fact}\n" for name, fact in facts.items())
    header = ("Model", "Method", "Predicted as", "Measured ms", *RUNTIMES)
    return text + "\n" + table(header, (_row(entry) for entry in entries(published)))


def _row(entry: Entry) -> Sequence[str]:
    weights = "" if entry.weights_dtype == entry.dtype else f", {entry.weights_dtype} weights"
    compress = f"`{entry.compress}`" if entry.compress else "no compression"
    return (
        f"`{entry.model}`{weights}",
        entry.label,
        compress + (", *tokens alone*" if entry.alone else ""),
        f"{entry.measured_ms:g}",
        *(_cell(entry, predict(entry, runtime)) for runtime in RUNTIMES),
    )


def _cell(entry: Entry, ours: Prediction) -> str:
    shown = []
    for band, (low, high) in ours.bands_ms.items():
        inside = "**in**" if ours.holds(band, entry.measured_ms) else "out"
        shown.append(f"{low:.0f} to {high:.0f} {inside}")
    return f"{ours.time_ms:.1f}, {shown[0]} ({shown[1]})"


def _counts(known: Sequence[Entry]) -> str:
    groups = [*dict.fromkeys(entry.group for entry in known), "All"]
    rows = [
        _count(group, runtime, [entry for entry in known if group in (entry.group, "All")])
        for group in groups
        for runtime in RUNTIMES
    ]
    inside = (f"Inside, {name}" for name in BANDS.values())
    header = ("Rows", "Runtime", "n", *inside, "Median of measured over ours")
    return table(header, rows)


def _count(group: str, runtime: str, chosen: Iterable[Entry]) -> Sequence[str]:
    pairs = [(entry.measured_ms, predict(entry, runtime)) for entry in chosen]
    inside = (str(sum(ours.holds(band, measured) for measured, ours in pairs)) for band in BANDS)
    ratio = statistics.median(measured / ours.time_ms for measured, ours in pairs)
    return (group, runtime, str(len(pairs)), *inside, f"{ratio:.2f}")
