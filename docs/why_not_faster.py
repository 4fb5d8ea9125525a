"""The page "Why is my pruner not faster?": gaps between FLOPs and time, from the model."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from page_parts import table

from costmodel.catalog.calibrations import default_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.studies.ceiling import Ceiling, ceilings
from costmodel.studies.pruner_speed import SpeedRow, pruner_speed

__all__ = ["BUDGETS", "TERMS", "page"]

BUDGETS = (128, 64)
"""Visual tokens to keep of 576; the parts are shown for the last."""

TERMS = {
    "tower_s": "vision tower",
    "weight_floor_s": "weight-read floor",
    "lost_flash_s": "lost FlashAttention",
    "own_ops_s": "own operators",
    "own_waits_s": "own waits",
    "host_s": "other host time",
}
"""Field of `Gap` -> its name on the page."""

_TITLE = "# Why is my pruner not faster?\n\n"
_SETTING = (
    "LLaVA-1.5-7B, one request: one image (576 visual tokens) and 64 text tokens, fp16, flash "
    "attention without compression. TTFT is the time to the first token. All numbers are "
    "predictions of the calibrated model; none was measured by this project. `eager` is the code "
    "of papers; `cuda-graph` is serving software, whose graph holds all but the operators of a "
    "method that no graph can hold.\n"
)
_TERMS = """## What the parts are

A method that divides the FLOPs by r promises TTFT / r, the *ideal*. What is predicted is more, and
the difference is the sum of six parts, in ms, without a remainder. With T the time without
compression and r, r_LLM the FLOPs ratios of all and of the language model alone:

| Part | Is |
| --- | --- |
| vision tower | tower and projector now, with flash attention, less 1/r of before; less what the language model falls by more than all together, LLM x (1/r - 1/r_LLM). The part that stays if the language model scales with its FLOPs and nothing else costs anything |
| weight-read floor | language model and head now, with flash attention, less 1/r_LLM of before: weights are read however few tokens there are, and small products fill a GPU less. Below zero if fewer tokens fit the GPU's waves better |
| lost FlashAttention | layers of the language model and the tower as the method needs them, less the same plan with flash attention everywhere |
| own operators | scores, sorting, clustering, gathering: the method's own, on GPU or CPU. A layer run a second time to read its attention (FastV's released code) is here |
| own waits | time the GPU waits for the host in them: python loops that start short kernels, results the host reads |
| other host time | time the GPU waits for the host in all other stages now, less 1/r of before |
"""  # noqa: E501
_FIGURE = """## As a figure

FLOPs ratio against TTFT ratio, all methods, in a file that needs no network:

```python
from costmodel.report.pruner_speed_figure import pruner_speed_figure
from costmodel.studies.pruner_speed import pruner_speed

pruner_speed_figure(pruner_speed()).write_html("pruner-speed.html")
```

`pruner_speed` takes other models, GPUs, runtimes and budgets too.
"""


def page() -> str:
    """Return the page as Markdown."""
    rows, limits = pruner_speed(budgets=BUDGETS), ceilings()
    settings = [(limit.gpu, limit.runtime) for limit in limits]
    parts = [_TITLE + _answer(rows, limits), _TERMS, _limits(limits), _ratios(rows, settings)]
    parts += [_setting(rows, *setting) for setting in settings]
    return "\n".join([*parts, _FIGURE])


def _at(rows: Iterable[SpeedRow], gpu: str, runtime: str, budget: int) -> list[SpeedRow]:
    """Rows that save FLOPs at a budget."""
    return [
        row for row in rows
        if (row.gpu, row.runtime, row.budget) == (gpu, runtime, budget) and row.flops_ratio > 1
    ]  # fmt: skip


def _answer(rows: Sequence[SpeedRow], limits: Sequence[Ceiling]) -> str:
    kept = BUDGETS[-1]
    text = "**Short answer.** FLOPs count neither the weights that are read for every prompt, nor "
    text += "the host, nor the method's own small kernels. "
    text += f"With {kept} of 576 tokens, for the methods that save FLOPs in the prefill:\n\n"
    for limit in limits:
        own = _at(rows, limit.gpu, limit.runtime, kept)
        flops = statistics.median(row.flops_ratio for row in own)
        times = sorted(row.ttft_ratio for row in own)
        gap = sum(row.gap.total_s for row in own)
        shares = sorted(
            ((sum(getattr(row.gap, key) for row in own) / gap, name)
             for key, name in TERMS.items()),
            reverse=True,
        )  # fmt: skip
        named = ", ".join(f"{name} {share:.0%}" for share, name in shares)
        text += f"- **`{limit.gpu}`, {limit.runtime}**: FLOPs fall {flops:.1f} times (median of "
        text += f"{len(own)} methods), TTFT {statistics.median(times):.1f} times "
        text += f"({times[0]:.1f} to {times[-1]:.1f}). No method that leaves the tower alone "
        text += (
            f"can do better than {limit.speedup:.1f} times. The gaps of all together: {named}.\n"
        )
    return text + "\n" + _uncertainty(rows, limits) + "\n" + _SETTING


def _uncertainty(rows: Sequence[SpeedRow], limits: Sequence[Ceiling]) -> str:
    text = "**How sure is that?** Each TTFT has a 90 % band for any lab and software, in brackets "
    text += f"in the tables. At {BUDGETS[-1]} tokens the whole band lies below that without "
    text += "compression, so that a gain is out of doubt, for "
    counts = []
    for limit in limits:
        own = _at(rows, limit.gpu, limit.runtime, BUDGETS[-1])
        clear = sum(row.band_s[1] < row.baseline_band_s[0] for row in own)
        counts.append(f"{clear} of {len(own)} (`{limit.gpu}`, {limit.runtime})")
    text += ", ".join(counts) + ". Bands that overlap do not exclude a gain: both times "
    text += "rest on the same kernels, whose errors are common to both. The host's errors "
    text += "are not: with all tokens its launches hide behind long kernels, with few they show. "
    text += (
        "That is why bands under `eager` reach so high: on a loaded host the launches alone can "
    )
    text += "take about as long as the full prompt takes on an A100. No "
    text += "band of the ratio itself was fitted.\n"
    titles = ""
    for gpu in dict.fromkeys(limit.gpu for limit in limits):
        calibration = default_calibration(load_gpu(gpu))
        if calibration is not None:
            titles += f"- `{gpu}`: {calibration.title}.\n"
    return f"{text}\n{titles}"


def _limits(limits: Sequence[Ceiling]) -> str:
    text = "## What is left at zero visual tokens\n\nGPU time by stage and host time in ms without "
    text += "compression -> with no visual token in the language model. The ratio of both TTFTs "
    text += "is the most that a method after the vision tower can reach.\n\n"
    header = ("GPU", "Runtime", "Tower, projector", "Language model, head", "Host", "TTFT", "Ratio")
    return text + table(header, (
        (
            f"`{limit.gpu}`", limit.runtime,
            *(
                f"{_ms(sum(limit.baseline_s[key] for key in keys))} -> "
                f"{_ms(sum(limit.empty_s[key] for key in keys))}"
                for keys in (
                    ("vision_encoder", "projector"), ("llm_prefill", "lm_head"), ("host",),
                    tuple(limit.baseline_s),
                )
            ),
            f"{limit.speedup:.2f}",
        )
        for limit in limits
    ))  # fmt: skip


def _ratios(rows: Sequence[SpeedRow], settings: Sequence[tuple[str, str]]) -> str:
    text = "## FLOPs ratio against TTFT ratio\n\nWithout over with compression, all stages: above "
    text += "1 is less. Tokens are what the method was asked to keep (for methods inside the "
    text += "language model as the mean over its layers); a dash is a method with its defaults, "
    text += f"which reaches neither {' nor '.join(map(str, BUDGETS))}.\n\n"
    found: dict[tuple[str, int | None], dict[tuple[str, str], SpeedRow]] = {}
    for row in rows:
        found.setdefault((row.method, row.budget), {})[row.gpu, row.runtime] = row
    header = (
        "Method", "Tokens", "FLOPs ratio",
        *(f"TTFT ratio, {gpu}, {runtime}" for gpu, runtime in settings),
    )  # fmt: skip
    return text + table(header, (
        (
            f"`{method}`", "-" if budget is None else str(budget),
            f"{own[settings[0]].flops_ratio:.2f}",
            *(f"{own[setting].ttft_ratio:.2f}" for setting in settings),
        )
        for (method, budget), own in found.items()
    ))  # fmt: skip


def _setting(rows: Sequence[SpeedRow], gpu: str, runtime: str) -> str:
    own = [row for row in rows if (row.gpu, row.runtime) == (gpu, runtime)]
    low, high = own[0].baseline_band_s
    text = f"## Parts of the gap: `{gpu}`, {runtime}\n\nAt {BUDGETS[-1]} tokens, or "
    text += f"{BUDGETS[0]} or the defaults where a method does not reach that, the fastest first; "
    text += "in ms, the largest part bold. Without compression TTFT is "
    text += f"{_ms(own[0].baseline_ttft_s)} ({_ms(low)} to {_ms(high)}).\n\n"
    # Budgets fall, so that the last row of a method is the one with the fewest tokens.
    fewest = {row.method: row for row in own}
    shown = sorted(fewest.values(), key=lambda row: row.ttft_s)
    header = ("Method", "FLOPs ratio", "TTFT ratio", "TTFT (band)", "Ideal", *TERMS.values())
    return text + table(header, (_row(row) for row in shown))


def _row(row: SpeedRow) -> Sequence[str]:
    low, high = row.band_s
    terms = {key: float(getattr(row.gap, key)) for key in TERMS}
    largest = max(terms, key=lambda key: terms[key])
    return (
        f"`{row.request}`", f"{row.flops_ratio:.2f}", f"{row.ttft_ratio:.2f}",
        f"{_ms(row.ttft_s)} ({_ms(low)} to {_ms(high)})", _ms(row.ideal_ttft_s),
        *(f"**{_ms(value)}**" if key == largest else _ms(value) for key, value in terms.items()),
    )  # fmt: skip


def _ms(time_s: float) -> str:
    # Adding zero turns the -0 of a rounded number into 0.
    return f"{round(1e3 * time_s, 1) + 0.0:.1f}"
