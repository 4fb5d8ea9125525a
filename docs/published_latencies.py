"""The page of latencies that others measured, beside what the calibrated model says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from page_parts import table

from costmodel.reproduction.latencies import (
    BANDS,
    RUNTIMES,
    Entry,
    Prediction,
    entries,
    load,
    predict,
)

__all__ = ["BANDS", "RUNTIMES", "entries", "load", "page", "predict"]

_INTRODUCTION = """# Published latencies beside ours

What others measured on hardware, and what the calibrated model says for the same request: the time
to the first token in ms at batch 1, without image preparation, tokenising and queueing.
Each cell is our time, the 90 % band for any lab and software, and in brackets the narrower 90 %
band for the lab and software of the calibration; **in** says that the measured time is inside.
Where the source leaves the vision tower out, ours is without tower and projector, and without the
kernels of a method that runs with them.
`eager` is the code of papers: unfused kernels and eager attention. `compiled` and `cuda-graph` are
serving software with flash attention.

A table to learn from, not a target: sources rarely say which software ran or what is in the time.

"Predicted as" is the compression that our time is for. Where it says *tokens alone*, the method is
not modelled yet: the time is for the same number of visual tokens in the language model, chosen at
random after a full vision tower. It is a lower bound, as the method's own cost and the flash
attention it gives up are not counted. Methods that drop tokens inside the language model are set
so that their equivalent tokens, the mean over its layers, are the stated number where they can be,
unless the table itself says otherwise.
"""


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
