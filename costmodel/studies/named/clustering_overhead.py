"""Whether k-means costs less than the prefill it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from costmodel.case import Case, prepare
from costmodel.charts import Axis, HeatMap, LineChart, Panels, Series
from costmodel.compression.composition import parse_compression
from costmodel.errors import UnsupportedError
from costmodel.studies.clustering_costs import ClusteringCost, clustering_cost
from costmodel.studies.prefill import image_tokens
from costmodel.studies.study import Finding, Study, StudyTable
from costmodel.studies.wording import evidence, listing, percent, setting

__all__ = ["STUDY"]

IMPLEMENTATIONS = ("eager", "fused", "compiled", "sklearn")
PLACES = ("after_projector", "before_projector")
KEPT = np.arange(8, 513, 4)
SHOWN = (20, 64, 144)
TYPICAL = 64
ITERATIONS = np.unique(np.round(np.geomspace(1, 3000, 100))).astype(int)
RESTARTS = (1, 10)
BATCHES = (1, 8)
_VERDICTS = {1: "pays", 0: "open", -1: "loses"}


def run(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "a100-40gb-sxm", "rtx-a6000", "h100-sxm"),
    runtime: str = "cuda-graph",
    text_tokens: int = 64,
) -> Finding:
    """Compare the overhead of every implementation with what its tokens save."""
    given: dict[str, Any] = {"model": model, "runtime": runtime, "text_tokens": text_tokens}
    cases = [prepare(model, gpu, text_tokens=text_tokens, runtime=runtime) for gpu in gpus]
    kept, places = KEPT[image_tokens(cases[0]) > KEPT], _places(cases[0])
    over_k = {
        (gpu, impl, place): clustering_cost(
            gpu=gpu, impl=impl, position=place, kept=kept, batch=np.array(BATCHES)[:, None], **given
        )
        for gpu in gpus for impl in IMPLEMENTATIONS for place in places
    }  # fmt: skip
    shares = [row for key, cost in over_k.items() for row in _shares(*key, cost, kept)]
    ends = [
        row
        for (gpu, impl, place), cost in over_k.items()
        for row in _break_evens(gpu, impl, place, cost, kept, given)
    ]
    settings = [
        row for gpu in gpus for impl in IMPLEMENTATIONS for row in _settings(gpu, impl, given)
    ]
    return Finding(
        answer=_answer(shares, ends, gpus),
        uncertainty=_UNCERTAINTY + evidence(cases),
        tables=(
            StudyTable.of("Overhead against saving, 10 iterations, n_init 1", shares),
            StudyTable.of(f"Break-even: k at 10 iterations, iterations at k = {TYPICAL}", ends),
            StudyTable.of(f"Iterations and restarts at k = {TYPICAL}, batch 1", settings),
        ),
        pictures=(_curves(over_k, gpus, kept), _map(gpus, given, kept[-1])),
        settings=setting(model, gpus, runtime, text_tokens=text_tokens, dtype="fp16"),
    )


def _places(case: Case) -> tuple[str, ...]:
    """Before a projector that joins neighbours nothing can be clustered."""
    try:
        request = parse_compression(f"cluster:k=1,position={PLACES[1]}")
        replace(case, request=request).program()
    except UnsupportedError:
        return PLACES[:1]
    return PLACES


_UNCERTAINTY = (
    "The paper publishes neither iterations nor library, so both are axes here. Ranges of the "
    "overhead take its kernels at their 90 % band for any lab and software and a kernel launch at "
    "the ends of what sources say (4 to 33 us eager); ranges of the saving scale it by the band "
    "of the prefill that it is part of. 'open' means that the two ranges overlap. Clustering was "
    "measured on one processor only, where eager was predicted within 12 % at 10 iterations and "
    "fused took 1.5 to 2.2 times its prediction; on no GPU. scikit-learn's time is that of one "
    "server processor by its datasheet, with a call cost set from measurements on another. "
)  # fmt: skip


def _shares(
    gpu: str, impl: str, place: str, cost: ClusteringCost, counts: Any
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i, batch in enumerate(BATCHES):
        for kept in (k for k in SHOWN if k in counts):
            j = int(np.flatnonzero(kept == counts)[0])
            rows.append(
                {
                    "gpu": gpu,
                    "implementation": impl,
                    "position": place.replace("_", " "),
                    "batch": batch,
                    "k": kept,
                    "overhead_ms": 1e3 * float(cost.overhead_s[i, j]),
                    "overhead_low_ms": 1e3 * float(cost.overhead_low_s[i, j]),
                    "overhead_high_ms": 1e3 * float(cost.overhead_high_s[i, j]),
                    "saved_ms": 1e3 * float(cost.saved_s[i, j]),
                    "saved_low_ms": 1e3 * float(cost.saved_low_s[i, j]),
                    "saved_high_ms": 1e3 * float(cost.saved_high_s[i, j]),
                    "share_pct": 100 * float(cost.share[i, j]),
                    "verdict": _VERDICTS[int(cost.pays[i, j])],
                }
            )
    return rows


def _break_evens(
    gpu: str, impl: str, place: str, cost: ClusteringCost, counts: Any, given: dict[str, Any]
) -> list[dict[str, Any]]:
    over_iterations = clustering_cost(
        gpu=gpu, impl=impl, position=place, kept=TYPICAL, iterations=ITERATIONS,
        batch=np.array(BATCHES)[:, None], **given,
    )  # fmt: skip
    return [
        {
            "gpu": gpu,
            "implementation": impl,
            "position": place.replace("_", " "),
            "batch": batch,
            "k_that_pays_up_to": _last(counts, cost.share[i] < 1),
            "k_that_pays_surely_up_to": _last(counts, cost.pays[i] == 1),
            "iterations_that_pay_up_to": _last(ITERATIONS, over_iterations.share[i] < 1),
            "iterations_that_pay_surely_up_to": _last(ITERATIONS, over_iterations.pays[i] == 1),
        }
        for i, batch in enumerate(BATCHES)
    ]


def _last(values: Any, holds: Any) -> int:
    """Return the last value up to which the condition holds without a break; 0 if at none."""
    fails = np.flatnonzero(~np.asarray(holds))
    count = int(fails[0]) if len(fails) else len(values)
    return int(values[count - 1]) if count else 0


def _settings(gpu: str, impl: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    iterations = np.array((10, 100))
    cost = clustering_cost(
        gpu=gpu, impl=impl, kept=TYPICAL, iterations=iterations,
        restarts=np.array(RESTARTS)[:, None], **given,
    )  # fmt: skip
    return [
        {
            "gpu": gpu,
            "implementation": impl,
            "n_init": restarts,
            "iterations": int(count),
            "overhead_ms": 1e3 * float(cost.overhead_s[i, j]),
            "saved_ms": 1e3 * float(cost.saved_s[i, j]),
            "share_pct": 100 * float(cost.share[i, j]),
            "verdict": _VERDICTS[int(cost.pays[i, j])],
        }
        for i, restarts in enumerate(RESTARTS)
        for j, count in enumerate(iterations)
    ]


def _answer(shares: list[dict[str, Any]], ends: list[dict[str, Any]], gpus: Sequence[str]) -> str:
    def row(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
        return next(r for r in rows if all(r[key] == value for key, value in wanted.items()))

    after = {"position": "after projector", "batch": 1}
    typical = [r for r in shares if r["k"] == TYPICAL and r["position"] == "after projector"]
    parts = [_verdict(typical)]
    for impl in IMPLEMENTATIONS:
        ones = [row(typical, gpu=gpu, implementation=impl, batch=1) for gpu in gpus]
        eights = [row(typical, gpu=gpu, implementation=impl, batch=8) for gpu in gpus]
        parts.append(f"{impl} {_range(ones)} at batch 1 and {_range(eights)} at batch 8;")
    parts[-1] = f"{parts[-1][:-1]}."
    small = [r for r in shares if r["k"] == SHOWN[0] and r["position"] == "after projector"]
    loops = [r for r in small if r["implementation"] == "eager" and r["batch"] == 1]
    parts.append(f"With k = {SHOWN[0]} the loop of torch kernels takes {_range(loops)}.")
    limits = [
        f"{impl} "
        + listing(_limit(row(ends, gpu=gpu, implementation=impl, **after)) for gpu in gpus)
        for impl in IMPLEMENTATIONS
    ]
    parts.append(
        f"The most clusters that pay at batch 1 and 10 iterations (in brackets the most iterations "
        f"at k = {TYPICAL}), on {listing(gpus)}: {'; '.join(limits)}."
    )
    narrow = {"position": "before projector", "batch": 1, "k": TYPICAL}
    changes = [
        narrow_row["overhead_ms"]
        / row(shares, gpu=narrow_row["gpu"], implementation=narrow_row["implementation"],
              k=TYPICAL, **after)["overhead_ms"]
        for narrow_row in shares
        if all(narrow_row[key] == value for key, value in narrow.items())
    ]  # fmt: skip
    parts.append(
        f"Before the projector, where vectors are narrower, the overhead is {min(changes):.2f} to "
        f"{max(changes):.2f} of that after it."
        if changes
        else "Before this model's projector, which joins neighbours, nothing can be clustered."
    )
    return " ".join(parts)


def _verdict(typical: list[dict[str, Any]]) -> str:
    def names(verdict: str) -> list[str]:
        return [
            impl for impl in IMPLEMENTATIONS
            if all(r["verdict"] == verdict for r in typical if r["implementation"] == impl)
        ]  # fmt: skip

    sure, never = names("pays"), names("loses")
    rest = [impl for impl in IMPLEMENTATIONS if impl not in (*sure, *never)]
    texts = [f"With k = {TYPICAL} and 10 iterations the implementation decides:"]
    if sure:
        verb = "pays" if len(sure) == 1 else "pay"
        texts.append(f"{listing(sure)} {verb} whatever the ranges, on every GPU, at both batches;")
    if never:
        verb = "loses" if len(never) == 1 else "lose"
        texts.append(f"{listing(never)} {verb} everywhere;")
    if rest:
        texts.append(f"for {listing(rest)} it depends on GPU, batch or the cost of a launch;")
    return " ".join(texts)[:-1] + ". The overhead, as a share of the prefill saved, by GPU:"


def _range(rows: list[dict[str, Any]]) -> str:
    shares = sorted(row["share_pct"] / 100 for row in rows)
    low, high = percent(shares[0]), percent(shares[-1])
    return low if low == high else f"{low} to {high}"


def _limit(row: dict[str, Any]) -> str:
    kept, most = row["k_that_pays_up_to"], row["iterations_that_pay_up_to"]
    return f"{kept} ({most:,}{'+' if most == ITERATIONS[-1] else ''})"


def _curves(
    over_k: dict[tuple[str, str, str], ClusteringCost], gpus: Sequence[str], counts: Any
) -> Panels:
    charts = []
    for gpu in gpus:
        series = []
        for impl in IMPLEMENTATIONS:
            cost = over_k[gpu, impl, PLACES[0]]
            series.append(
                Series.of(
                    impl, counts, 100 * cost.share[0],
                    (100 * cost.overhead_low_s[0] / cost.saved_s[0],
                     100 * cost.overhead_high_s[0] / cost.saved_s[0]),
                    hover=[
                        f"k = {k}: {1e3 * o:.1f} ms against {1e3 * s:.1f} ms saved"
                        for k, o, s in zip(counts, cost.overhead_s[0], cost.saved_s[0], strict=True)
                    ],
                )
            )  # fmt: skip
        ends = (float(counts[0]), float(counts[-1]))
        series.append(Series.of("break-even", ends, (100, 100), reference=True))
        charts.append(
            LineChart(
                gpu, Axis("clusters k"),
                Axis("overhead over saving", "%", log=True, limits=(0.5, 3000)), tuple(series),
            )
        )  # fmt: skip
    return Panels(
        "Overhead of clustering against what it saves: batch 1, 10 iterations", tuple(charts)
    )


def _map(gpus: Sequence[str], given: dict[str, Any], most: int) -> Panels:
    kept = np.array([k for k in (8, 20, 40, 64, 96, 144, 192, 288) if k <= most])
    iterations = np.array((1, 3, 10, 30, 100, 300))
    charts = []
    for gpu in gpus:
        for impl in ("eager", "fused"):
            cost = clustering_cost(
                gpu=gpu, impl=impl, kept=kept, iterations=iterations[:, None], **given
            )
            charts.append(
                HeatMap(
                    f"{gpu}, {impl}", Axis("clusters k"), Axis("Lloyd iterations"),
                    Axis("log10 of overhead over saving"), tuple(map(str, kept)),
                    tuple(map(str, iterations)),
                    tuple(tuple(row) for row in np.log10(cost.share).round(2).tolist()), level=0.0,
                    lower_is_better=True,
                    hover=tuple(
                        tuple(f"overhead is {percent(value)} of the saving" for value in row)
                        for row in cost.share.tolist()
                    ),
                )
            )  # fmt: skip
    return Panels(
        "Where clustering pays: below 0 it does, batch 1, after the projector", tuple(charts)
    )


STUDY = Study(
    title="Clustering overhead against prefill saved",
    question="Does k-means clustering of the visual tokens cost less than the prefill it saves?",
    method=(
        "Overhead is the time to the first token with Cluster & Aggregate less that with the same "
        "number of tokens taken by index; saving is the time without compression less the latter. "
        "Clustering pays where the overhead is the smaller. Four implementations: a loop of torch "
        "kernels image by image (eager), all images at once (fused), its steps compiled "
        "(compiled), and scikit-learn on the host. Varied: clusters k, Lloyd iterations, n_init, "
        "batch, and clustering before the projector (narrow vectors) or after it (as the paper)."
    ),
    run=run,
    sources=("https://arxiv.org/abs/2504.17892",),
)
