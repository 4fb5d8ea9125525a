"""Counts that the image decides: latency over images, padding of batches, buckets for graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.compression.method import Context
from costmodel.compression.tower import layers_read
from costmodel.evaluation import FloatArray
from costmodel.studies.prefill import prefill
from costmodel.studies.stack_bands import stack_bands
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.token_counts import TokenCounts
from costmodel.studies.wording import (
    evidence,
    listing,
    milliseconds,
    number,
    percent,
    setting,
    span,
)

__all__ = ["PUBLISHED", "STUDY"]

PUBLISHED = {
    "DyMU low": ("dymu", 89.0, 27.0),
    "DyMU mid": ("dymu", 195.0, 47.0),
    "DyMU high": ("dymu", 394.0, 57.0),
    "PruMerge": ("prumerge", 32.0, 0.3 * 32.0),
}
"""Method, mean and deviation of the tokens of an image; the deviation of PruMerge is assumed."""

_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Spread:
    """One method over images.

    Attributes
    ----------
    counts : TokenCounts
    grid : ndarray
        Numbers of tokens for which times are known.
    ttft_s, band_s : ndarray, tuple of ndarray
        Time to the first token of one request at these, and its 90 % band [s].
    own : dict of str to float
        What the method adds at its mean count, by column of the table.
    """

    counts: TokenCounts
    grid: FloatArray
    ttft_s: FloatArray
    band_s: tuple[FloatArray, FloatArray]
    own: dict[str, float]

    def at(self, tokens: FloatArray | float) -> FloatArray:
        """Return the time to the first token at numbers of tokens [s]."""
        return np.asarray(np.interp(tokens, self.grid, self.ttft_s), dtype=np.float64)

    @property
    def mean_s(self) -> float:
        """Mean over images [s]."""
        return self.counts.expected(self.at(self.counts.tokens))

    def quantile_s(self, share: float) -> float:
        """Return the time that this share of the images does not exceed [s].

        Times may dip where tokens fill the waves of the GPU, so it is no function of the
        quantile of the tokens.
        """
        times = self.at(self.counts.tokens)
        order = np.argsort(times)
        below = np.minimum(np.cumsum(self.counts.share[order]), 1.0)
        return float(times[order][np.searchsorted(below, share)])


def _run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm",),
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    buckets: Sequence[int] = (1, 8, 16, 32, 64, 128, 576),
    text_tokens: int = 64,
) -> Finding:
    asked: dict[str, Any] = {
        "model": model, "gpu": gpus[0], "text_tokens": text_tokens, "time_model": "calibrated",
    }  # fmt: skip
    cases = {
        method: prepare(compress=method, runtime="eager", **asked)
        for method in dict.fromkeys(method for method, _, _ in PUBLISHED.values())
    }
    layout = cases["dymu"].layout
    most = layout.features if layout is not None else 1
    spreads = {
        name: _spread(cases[method], TokenCounts.normal(mean, deviation, most))
        for name, (method, mean, deviation) in PUBLISHED.items()
    }
    padding = [
        row
        for name, (method, _, deviation) in PUBLISHED.items()
        for row in _padding(name, cases[method], spreads[name].counts, deviation, batches)
    ]
    graphs = _graphs(asked, spreads, buckets, most)
    return Finding(
        answer=_answer(spreads, padding, graphs, gpus[0]),
        uncertainty=_uncertainty(spreads, padding, list(cases.values())),
        tables=(
            StudyTable.of("One request over images", _latencies(spreads)),
            StudyTable.of("Batches padded to their longest", padding),
            StudyTable.of("Any such count in CUDA graphs, by buckets", graphs),
        ),
        pictures=(
            _distributions(spreads, gpus[0]), _pads(padding), _bucket_curves(graphs, gpus[0]),
        ),
        settings=setting(model, gpus[:1], "eager", text_tokens=text_tokens),
    )  # fmt: skip


def _spread(case: Case, counts: TokenCounts) -> Spread:
    grid = np.unique([counts.quantile(q) for q in np.linspace(0.001, 0.999, 40)]).astype(float)
    run = prefill(case, **_at(case, grid))
    low, high = run.bands["any_stack"]
    middle = int(np.argmin(np.abs(grid - counts.mean)))
    stage = [op.stage == "compression" for op in run.evaluation.ops]
    own = {
        "own_operators_ms": 1e3 * float(run.gpu_s["compression"][middle]),
        "own_waits_ms": 1e3 * float(run.host_s["compression"][middle]),
        "own_launches": float(run.launches("compression")[middle]),
        "host_reads": float(run.evaluation.total(run.evaluation.host_syncs, stage)[middle]),
    }
    return Spread(counts, grid, run.ttft_s, (low, high), own)


def _at(case: Case, kept: FloatArray, deviation: float = 0.0) -> dict[str, FloatArray]:
    """Return the symbols of a method that keeps so many tokens.

    DyMU takes the rest away in even shares of the layers that are read.
    """
    program, _ = case.program()
    names = {symbol.name for symbol in program.values}
    axes: dict[str, FloatArray] = {"kt": kept}
    if "sd" in names:
        axes["sd"] = np.asarray(deviation)
    gone = sorted((name for name in names if name.startswith("x_")), key=lambda x: int(x[2:]))
    layout = case.layout
    features = layout.features if layout is not None else 0
    read = layers_read(Context(case.model, case.images, case.deployment))
    for layer, name in enumerate(gone, start=1):
        axes[name] = np.minimum(np.round((features - kept) * layer / read), features - 1)
    return axes


def _latencies(spreads: Mapping[str, Spread]) -> list[dict[str, Any]]:
    rows = []
    for name, one in spreads.items():
        low, high = (np.interp(one.counts.quantile(0.5), one.grid, side) for side in one.band_s)
        row: dict[str, Any] = {"method": name, "mean_tokens": one.counts.mean}
        row |= {f"p{100 * q:.0f}_tokens": one.counts.quantile(q) for q in _QUANTILES}
        row |= {"mean_ttft_ms": 1e3 * one.mean_s}
        row |= {f"p{100 * q:.0f}_ttft_ms": 1e3 * one.quantile_s(q) for q in _QUANTILES}
        row |= one.own
        row |= {
            "ttft_of_mean_tokens_ms": 1e3 * float(one.at(one.counts.mean)),
            "p50_ttft_low_ms": 1e3 * float(low),
            "p50_ttft_high_ms": 1e3 * float(high),
        }
        rows.append(row)
    return rows


def _padding(
    name: str,
    case: Case,
    counts: TokenCounts,
    deviation: float,
    batches: Sequence[int],
) -> list[dict[str, Any]]:
    longest = np.array([counts.expected_longest(batch) for batch in batches])
    batch = np.asarray(batches, dtype=np.float64)
    # Merged tokens by layer follow the expected longest, so the tower is padded with it.
    padded, plain = (
        prefill(case, batch=batch, **_at(case, kept))
        for kept in (longest, np.full_like(longest, counts.mean))
    )
    return [
        {
            "method": name,
            "batch": size,
            "expected_longest_tokens": longest[i],
            "padding_pct_of_tokens": 100 * (longest[i] / counts.mean - 1),
            "ttft_padded_ms": 1e3 * padded.ttft_s[i],
            "ttft_all_of_mean_length_ms": 1e3 * plain.ttft_s[i],
            "padding_pct_of_ttft": 100 * (padded.ttft_s[i] / plain.ttft_s[i] - 1),
            "language_model_pct": 100 * (padded.language_s[i] / plain.language_s[i] - 1),
            "deviation_tokens": deviation,
        }
        for i, size in enumerate(batches)
    ]


def _graphs(
    asked: Mapping[str, Any],
    spreads: Mapping[str, Spread],
    buckets: Sequence[int],
    most: int,
) -> list[dict[str, Any]]:
    """Time of the same counts at no cost of the method: graphs by bucket, or eager launches."""
    tokens = np.arange(1, most + 1, dtype=np.float64)
    graph, compiled, eager = (
        prefill(prepare(runtime=runtime, **asked), visual_tokens=tokens).ttft_s
        for runtime in ("cuda-graph", "compiled", "eager")
    )
    rows = []
    for name, one in spreads.items():
        exact = one.counts.expected(graph)
        for size in buckets:
            padded = one.counts.bucketed(size)
            seconds = one.counts.expected(graph[padded.astype(np.intp) - 1])
            rows.append({
                "method": name,
                "bucket_tokens": size,
                "graphs": one.counts.buckets(size),
                "mean_padded_tokens": one.counts.expected(padded),
                "mean_ttft_ms": 1e3 * seconds,
                "over_exact_pct": 100 * (seconds / exact - 1),
                "compiled_without_graphs_ms": 1e3 * one.counts.expected(compiled),
                "eager_ms": 1e3 * one.counts.expected(eager),
            })  # fmt: skip
    return rows


def _distributions(spreads: Mapping[str, Spread], gpu: str) -> Panels:
    return Panels(
        f"Images decide the number of tokens, {gpu}",
        (
            LineChart(
                "Tokens that remain", Axis("visual tokens"), Axis("images up to it", "%"),
                tuple(
                    Series.of(name, *_range(one.counts)) for name, one in spreads.items()
                ),
            ),
            LineChart(
                "Time to the first token", Axis("TTFT", "ms"), Axis("images up to it", "%"),
                tuple(
                    Series.of(
                        name,
                        [1e3 * one.quantile_s(q) for q in np.linspace(0.005, 0.995, 67)],
                        100 * np.linspace(0.005, 0.995, 67),
                    )
                    for name, one in spreads.items()
                ),
            ),
        ),
        note="one request, eager, released implementations",
    )  # fmt: skip


def _range(counts: TokenCounts) -> tuple[FloatArray, FloatArray]:
    """Numbers of tokens of nearly all images, and the share of images up to each [%]."""
    shown = slice(counts.quantile(0.001) - 1, counts.quantile(0.999))
    return counts.tokens[shown], 100 * counts.below[shown]


def _pads(padding: Sequence[Mapping[str, Any]]) -> LineChart:
    names = dict.fromkeys(row["method"] for row in padding)
    series = []
    for name in names:
        own = [row for row in padding if row["method"] == name]
        series.append(
            Series.of(
                name, [row["batch"] for row in own],
                [row["padding_pct_of_tokens"] for row in own], mode="lines+markers",
                hover=[
                    f"{row['expected_longest_tokens']:.0f} tokens, language model "
                    f"{row['language_model_pct']:+.0f} %" for row in own
                ],
            )
        )  # fmt: skip
    return LineChart(
        "Padding of a batch to its longest request", Axis("batch", log=True),
        Axis("more tokens than the mean", "%"), tuple(series),
        note="expected longest of independent images; the released PruMerge takes one number for "
        "a batch instead",
    )  # fmt: skip


def _bucket_curves(graphs: Sequence[Mapping[str, Any]], gpu: str) -> LineChart:
    series = []
    for name in dict.fromkeys(row["method"] for row in graphs):
        own = [row for row in graphs if row["method"] == name]
        series.append(
            Series.of(
                name, [row["bucket_tokens"] for row in own], [row["mean_ttft_ms"] for row in own],
                mode="lines+markers", labels=[f"{row['graphs']}" for row in own],
                hover=[f"{row['mean_padded_tokens']:.0f} tokens" for row in own],
            )
        )  # fmt: skip
    return LineChart(
        f"Rounding counts up to CUDA graphs, {gpu}", Axis("size of a bucket, tokens", log=True),
        Axis("mean time to the first token", "ms"), tuple(series),
        note="numbers beside the points: graphs to capture; the method itself is free here",
    )  # fmt: skip


def _answer(
    spreads: Mapping[str, Spread],
    padding: Sequence[Mapping[str, Any]],
    graphs: Sequence[Mapping[str, Any]],
    gpu: str,
) -> str:
    said = [
        f"{name} keeps {one.counts.mean:.0f} tokens in the mean and {one.counts.quantile(0.95)} at "
        f"the 95th percentile, {milliseconds(one.quantile_s(0.5))} and "
        f"{milliseconds(one.quantile_s(0.95))}"
        for name, one in spreads.items()
    ]
    tail = [100 * (one.quantile_s(0.95) / one.quantile_s(0.5) - 1) for one in spreads.values()]
    batch = max(row["batch"] for row in padding)
    at = [row for row in padding if row["batch"] == batch]
    medium = [row for row in graphs if row["bucket_tokens"] == 32] or list(graphs)
    gains = [
        span([100 * (row[column] / row["mean_ttft_ms"] - 1) for row in medium], "%")
        for column in ("compiled_without_graphs_ms", "eager_ms")
    ]
    more = [
        100 * (one.counts.quantile(0.95) / one.counts.quantile(0.5) - 1) for one in spreads.values()
    ]
    reads = [one.own["host_reads"] for one in spreads.values()]
    waits = [one.own["own_waits_ms"] for one in spreads.values()]
    return (
        f"On {gpu}, {'; '.join(said)}: with {span(more, '%')} more tokens than the median, the "
        f"tail is {span(tail, '%')} longer. In a batch padded to the longest of {batch}, "
        + listing(
            f"{row['method']} has {row['padding_pct_of_tokens']:.0f} % more tokens than the mean "
            f"({row['padding_pct_of_ttft']:.0f} % of the time)"
            for row in at
        )
        + " (the released PruMerge takes one number for all of a batch instead)"
        + f". The released methods read a count back {span(reads)} times and wait "
        f"{span(waits, 'ms')} for the host in their own operators, which no graph can hold. Of the "
        "rest, a CUDA graph holds one count: rounding up to multiples of "
        f"{medium[0]['bucket_tokens']} needs {span([row['graphs'] for row in medium])} graphs, "
        f"takes {span([row['over_exact_pct'] for row in medium], '%')} longer than exact counts "
        f"would, and without graphs a compiled model takes {gains[0]} and an eager one {gains[1]} "
        "longer."
    )


def _uncertainty(
    spreads: Mapping[str, Spread], padding: Sequence[Mapping[str, Any]], cases: Sequence[Case]
) -> str:
    widths = [
        100 * float(side[i] / one.ttft_s[i] - 1)
        for one in spreads.values()
        for side in one.band_s
        for i in (0, len(one.grid) - 1)
    ]
    mean = max(row["padding_pct_of_tokens"] for row in padding)
    return (
        f"Bands reach from {number(min(widths))} to {number(max(widths))} %. "
        f"{evidence(cases[:1])} {stack_bands(cases[:1])} "
        "Means and deviations of DyMU are the paper's; that counts are normal and images "
        "independent is assumed, and only two moments are known, so that percentiles and the "
        f"longest of a batch (up to {percent(mean / 100)} above the mean) would differ with a "
        "skewed distribution. Of PruMerge the mean alone is published, and its deviation is "
        "assumed to be 0.3 of it. DyMU's released loops over pairs dominate its time at one "
        "request. How many tokens each layer of its tower merges for an image is unknown; even "
        "shares are taken. Graphs are captured for one count each, without the memory they take."
    )


STUDY = Study(
    title="Token counts that the image decides",
    question=(
        "When the image decides how many tokens remain, what do the 95th percentile, the padding "
        "of batches and the loss of CUDA graphs cost?"
    ),
    method=(
        "Counts are normal with the published means and deviations, rounded. One request: times "
        "over all counts, weighted by their shares. Batches: padded to the expected longest, an "
        "exact order statistic. CUDA graphs: the same counts rounded up to buckets, each a graph, "
        "against the compiled runtime that launches every kernel, with the method itself free."
    ),
    run=_run,
    sources=("https://arxiv.org/abs/2504.17040", "https://arxiv.org/abs/2403.15388"),
)
