"""Which way of counting each published figure follows, and what its labels leave out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from costmodel.charts import Axis, BarChart
from costmodel.conventions import LayerRun, load_convention, uniform
from costmodel.conventions.viewer import ViewerConvention
from costmodel.conventions.viewer_hardware import load_viewer_device
from costmodel.errors import SpecError
from costmodel.reproduction import Reproduction, reproduce
from costmodel.reproduction.shapes import llm_of
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import listing, number, times

__all__ = ["STUDY", "layer_runs"]

PAPERS = ("fastv", "m3", "prumerge", "pyramiddrop", "sparsevlm", "stf")
CONVENTIONS = {
    "A": "mac-3mlp", "B": "mac-2mlp", "C": "flop-3mlp", "D": "llm-viewer",
}  # fmt: skip
DEVICES = ("nvidia_V100", "nvidia_A6000")
CAPTIONS = {"m3": "nvidia_V100", "prumerge": "nvidia_V100"}
"""The card that the table's caption or text names."""
STATED_TEXT = {"prumerge": 40}
"""Text tokens beside the visual ones, where the paper states them."""
_CLOSE = 0.02
_STEPS = re.compile(r"(\d+(?:\.\d+)?) x (\d+(?:\.\d+)?)")
_SUM = re.compile(r"(\d+(?:\.\d+)?) \+ (\d+) tokens")
_ALONE = re.compile(r"((?:\d+, )*\d+) visual tokens alone")
_WHOLE = re.compile(r"(\d+) tokens")


def run(papers: Sequence[str] = PAPERS) -> Finding:
    """Count every published figure by all conventions, and LLM-Viewer's times on two cards."""
    rows = [row for paper in papers for row in reproduce(paper)]
    counted = [
        _counted(row) for row in rows
        if row.published.metric.startswith("FLOPs") and row.published.unit in ("T", "G")
        and row.ours is not None and "INT4" not in row.published.model
    ]  # fmt: skip
    counted = [
        {**row, "fits_its_table": row["fits"] == _usual(counted, row["source"])} for row in counted
    ]
    timed = [
        record for row in rows
        if row.published.metric == "prefill time" and row.how.startswith("llm-viewer")
        and "INT4" not in row.published.model
        for record in [_timed(row)]
    ]  # fmt: skip
    tables = [StudyTable.of("Published operations, counted by every convention", counted)]
    if timed:
        tables.append(StudyTable.of("LLM-Viewer's prefill times on two cards", timed))
    return Finding(
        answer=_answer(counted, timed),
        uncertainty=(
            "That a figure agrees with a count does not prove that its authors counted so; prompt "
            "lengths that papers leave out were chosen so that uncompressed rows agree (costmodel "
            "reproduce says how each row is computed). 4-bit rows are left out: their 'FLOPs' are "
            "a quarter of the 16-bit ones. Times are LLM-Viewer's roofline, not measurements."
        ),
        tables=tuple(tables),
        pictures=(_picture(counted),),
        settings={"papers": ", ".join(papers)},
    )


def layer_runs(row: Reproduction) -> tuple[LayerRun, ...]:
    """Return the tokens of each layer that a published row was computed again with.

    Raises
    ------
    SpecError
        If its description has none.

    Examples
    --------
    >>> [layer_runs(row) for row in reproduce("m3")[:1]]
    [(LayerRun(layers=32, tokens=606.0),)]
    """
    text, how = llm_of(row.published.model), row.how
    if steps := _STEPS.findall(how):
        return tuple(LayerRun(int(float(layers)), float(tokens)) for layers, tokens in steps)
    if found := _SUM.search(how):
        return uniform(text, float(found[1]) + float(found[2]))
    if found := _ALONE.search(how):
        counts = [float(count) for count in found[1].split(", ")]
        return tuple(LayerRun(text.layers // len(counts), count) for count in counts)
    if found := _WHOLE.search(how):
        return uniform(text, float(found[1]))
    raise SpecError(f"{row.published.source}, {row.published.method}: no tokens in {how!r}")


def _counted(row: Reproduction) -> dict[str, Any]:
    published = row.published
    text, runs = llm_of(published.model), layer_runs(row)
    scale = 1.0 if published.unit == "T" else text.layers / 1e3
    printed = float(published.value or math.nan) * scale
    found = {
        letter: load_convention(name).flops(text, runs) / 1e12
        for letter, name in CONVENTIONS.items()
    }
    best = min(found, key=lambda letter: abs(math.log(found[letter] / printed)))
    # A figure of one digit fits whatever rounds to it.
    room = max(_CLOSE * printed, 0.5 * 10.0**-published.decimals * scale)
    fits = [letter for letter in found if abs(found[letter] - printed) <= room]
    return {
        "source": published.source,
        "method": published.method,
        "model": published.model,
        "mean_tokens": sum(run.layers * run.tokens for run in runs) / text.layers,
        "printed_tera": printed,
        **{f"{letter}_tera": value for letter, value in found.items()},
        "fits": " or ".join(fits) or "none",
        "off_pct": 100 * (found[best] / printed - 1),
        "true_flop_over_printed": found["C"] / printed,
    }


def _usual(rows: list[dict[str, Any]], source: str) -> str:
    """Return the counts that fit most rows of a table."""
    own = [row["fits"] for row in rows if row["source"] == source and row["fits"] != "none"]
    return max(dict.fromkeys(own), key=own.count, default="none")


def _off(row: dict[str, Any], usual: str) -> float:
    """Return how far the count of a table is from one of its rows [%]."""
    return 100 * float(row[f"{usual[0]}_tera"] / row["printed_tera"] - 1)


def _timed(row: Reproduction) -> dict[str, Any]:
    published = row.published
    text, runs = llm_of(published.model), layer_runs(row)
    convention = load_convention(row.how.partition(" on ")[0])
    if not isinstance(convention, ViewerConvention):
        raise SpecError(f"{published.source}: {row.how!r} is no count of LLM-Viewer")
    spent = {
        device: 1e3
        * float(convention.report(text, runs, device=load_viewer_device(device)).time_s or 0)
        for device in DEVICES
    }
    printed = float(published.value or math.nan)
    nearest = min(spent, key=lambda device: abs(math.log(spent[device] / printed)))
    stated = STATED_TEXT.get(published.paper)
    return {
        "source": published.source,
        "visual_tokens": published.tokens,
        "prompt_tokens": runs[0].tokens,
        "stated_prompt_tokens": (published.tokens or 0) + stated if stated else None,
        "printed_ms": printed,
        **{
            f"{device.removeprefix('nvidia_').lower()}_ms": value for device, value in spent.items()
        },
        "nearest_card": nearest.removeprefix("nvidia_"),
        "stated_card": CAPTIONS[published.paper].removeprefix("nvidia_"),
    }


def _answer(counted: list[dict[str, Any]], timed: list[dict[str, Any]]) -> str:
    tables = {row["source"]: _usual(counted, row["source"]) for row in counted}
    strays = [row for row in counted if not row["fits_its_table"]]
    spread = max(
        max(row[f"{x}_tera"] for x in CONVENTIONS) / min(row[f"{x}_tera"] for x in CONVENTIONS)
        for row in counted
    )
    by_count: dict[str, list[str]] = {}
    for source, usual in tables.items():
        by_count.setdefault(usual, []).append(source.partition(",")[0])
    ratios = [row["true_flop_over_printed"] for row in counted]
    parts = [
        f"Tables follow one count each, within {100 * _CLOSE:.0f} % or the printed digits: "
        + listing(
            f"{letters} ({listing((CONVENTIONS[x] for x in letters.split(' or ')), 'or')}) in "
            f"{listing(names)}"
            for letters, names in by_count.items()
        )
        + f". The counts of one row differ by up to {times(spread)}, and the true FLOPs of the "
        f"layers (C) are {number(min(ratios))} to {number(max(ratios))} times what is printed as "
        "FLOPs."
    ]
    if strays:
        parts.append(
            f"{len(strays)} of {len(counted)} rows do not follow their table's count: "
            + listing(
                f"{row['source'].partition(',')[0]} {row['method']} {row['model']}, "
                f"{row['mean_tokens']:.0f} tokens ({_off(row, tables[row['source']]):+.0f} %)"
                for row in strays
            )
            + "."
        )
    for source in dict.fromkeys(row["source"] for row in timed):
        own = [row for row in timed if row["source"] == source]
        wrong = [row for row in own if row["nearest_card"] != row["stated_card"]]
        lengths = [
            row for row in own
            if row["stated_prompt_tokens"] not in (None, row["prompt_tokens"])
        ]  # fmt: skip
        if wrong:
            parts.append(
                f"{len(wrong)} of {len(own)} times of {source} are those of the "
                f"{wrong[0]['nearest_card']}, not of the {wrong[0]['stated_card']} it names."
            )
        if lengths:
            parts.append(
                f"{source} states prompts of "
                + listing(f"{row['stated_prompt_tokens']:.0f}" for row in lengths)
                + " tokens, but its figures are those of "
                + listing(f"{row['prompt_tokens']:.0f}" for row in lengths)
                + "."
            )
    return " ".join(parts)


def _picture(counted: list[dict[str, Any]]) -> BarChart:
    plain = [row for row in counted if row["method"] in ("Vanilla", "M3") and "7B" in row["model"]]
    chosen = list({row["source"] + row["model"]: row for row in reversed(plain)}.values())[::-1]
    rows = chosen or counted[:1]
    names = tuple(
        f"{row['source'].partition(',')[0]}, {row['model']}, {row['mean_tokens']:.0f} tokens"
        for row in rows
    )
    parts = {"printed": tuple(row["printed_tera"] for row in rows)} | {
        f"{letter}: {name}": tuple(row[f"{letter}_tera"] for row in rows)
        for letter, name in CONVENTIONS.items()
    }
    return BarChart(
        "Operations of uncompressed rows, printed and counted", Axis("operations", "T"), names,
        parts, stacked=False, horizontal=True,
    )  # fmt: skip


STUDY = Study(
    title="Conventions: how published figures were counted",
    question="Which way of counting does each published figure follow, and are its labels right?",
    method=(
        "The tokens of every layer behind each published number of operations, as costmodel "
        "reproduce finds them, are counted by four conventions: multiply-adds with three MLP "
        "matrices (A), with two (B), two FLOP for each of A's (C), and LLM-Viewer's (D). "
        "The nearest is named. Prefill times that are LLM-Viewer's are computed on the card that "
        "the paper names and on another, and prompt lengths are compared with those stated."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2403.06764", "https://arxiv.org/abs/2403.15388",
             "https://arxiv.org/abs/2405.17430", "https://github.com/hahnyuan/LLM-Viewer"),
)  # fmt: skip
