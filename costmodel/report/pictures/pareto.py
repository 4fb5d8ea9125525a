"""Published scores against cost: which methods nothing else beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from costmodel.charts import Axis, LineChart, Panels, Picture, Series
from costmodel.compression.method import list_methods
from costmodel.errors import InputError
from costmodel.report.method_runs import method_runs, setting
from costmodel.report.picture_kinds import Asked, Drawn, Kind
from costmodel.report.result_columns import axis_of, frame_of, scaled, short_name
from costmodel.scores import by_source, score_range, scores_for

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe", "front"]

_BUDGETS = (192, 128, 64)
_COSTS = ("ttft_s", "kv_cache_bytes")
_EQUAL = 1.005
_BEST = "not beaten in both"


def _of_case(asked: Asked) -> Picture:
    case = asked.plain
    methods = asked.methods or tuple(name for name in list_methods() if name != "none")
    runs, _ = method_runs(case, methods, _BUDGETS)
    base = runs[0][2].baseline or runs[0][2]
    frame = frame_of([("none", base)] + [(label, result) for _, label, result in runs])
    whole = int(base.tokens["visual_in"])
    return describe(
        frame.assign(visual_tokens_asked=[whole, *(run[0] for run in runs)]), setting(case)
    )


def describe(frame: pd.DataFrame, note: str) -> Picture:
    """Return published scores against time to the first token and against KV cache.

    A point is a method at a number of tokens for which a source printed scores; its score is the
    mean over benchmarks in percent of the source's uncompressed model, and bars span the sources.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``model``, ``method``, ``visual_tokens_kept``, ``ttft_s`` and ``kv_cache_bytes``.
    note : str
        What is held fixed.

    Raises
    ------
    InputError
        If no source printed a score for any compressed row.
    """
    rows = _scored(frame)
    if rows.empty or not (rows["name"] != "none").any():
        raise InputError(
            "model", ", ".join(map(str, frame["model"].unique())),
            "methods at numbers of tokens that a source printed scores for, such as 192, 128, 64",
        )  # fmt: skip
    note += (
        "\npoints: mean of the sources that printed scores at that number of tokens, each against "
        "its own uncompressed model; bars: lowest and highest source"
    )
    charts = tuple(_chart(rows, cost) for cost in _COSTS)
    return Panels("Published score against cost", charts, columns=2, note=note)


def _scored(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    found = []
    for row in frame.to_dict("records"):
        # Sources count the tokens that a method was asked for, the mean over the layers.
        kept = row.get("visual_tokens_asked") or row["visual_tokens_kept"]
        name, count = short_name(row["method"]), round(kept)
        if abs(kept - count) > 1e-6:
            continue
        scores = scores_for(name, row["model"], count)
        span = score_range(by_source(one for one in scores if not one.variant))
        if span is not None:
            middle = (span.low_pct + span.high_pct) / 2
            found.append(row | {
                "name": name, "tokens": count, "score": middle, "low": span.low_pct,
                "high": span.high_pct, "sources": span.sources,
            })  # fmt: skip
    unique = ["model", "name", "tokens"]
    return pd.DataFrame(found).drop_duplicates(unique) if found else pd.DataFrame()


def _chart(rows: pd.DataFrame, cost: str) -> LineChart:
    best = front(rows[cost].to_numpy(), rows["score"].to_numpy())
    on_front = rows[best].sort_values(cost)
    series = [
        Series.of(_BEST, scaled(on_front, cost), on_front["score"], reference=True),
    ]
    for tokens in sorted(set(rows["tokens"]), reverse=True):
        own = rows[rows["tokens"] == tokens]
        chosen = best[(rows["tokens"] == tokens).to_numpy()]
        series.append(
            Series.of(
                f"{tokens} visual tokens", scaled(own, cost), own["score"],
                (own["low"], own["high"]), mode="markers",
                hover=[f"{m}: {low:.1f} to {high:.1f} % of the uncompressed model, {n} sources"
                       for m, low, high, n in
                       zip(own["method"], own["low"], own["high"], own["sources"], strict=True)],
                labels=[name if shown else "" for name, shown in
                        zip(own["name"], chosen, strict=True)],
            )
        )  # fmt: skip
    axis = axis_of(cost)
    score = Axis("published score, of the uncompressed model", "%")
    return LineChart(f"against {axis.title}", axis, score, tuple(series))


def front(cost: npt.NDArray[np.float64], score: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which points no other beats: cheaper or as cheap, and better or as good.

    Costs that differ by less than half a per cent count as equal.

    Examples
    --------
    >>> front(np.array([1.0, 2.0, 3.0]), np.array([90.0, 80.0, 95.0])).tolist()
    [True, False, True]
    """
    no_worse = (cost[None] <= _EQUAL * cost[:, None]) & (score[None] >= score[:, None])
    better = (_EQUAL * cost[None] < cost[:, None]) | (score[None] > score[:, None])
    beaten: npt.NDArray[np.bool_] = np.any(no_worse & better, axis=1)
    return ~beaten


KIND = Kind(
    summary="Published score against time to the first token and KV cache.",
    of_case=_of_case,
    of_results=Drawn(needs=_COSTS, shows=("method", "visual_tokens_kept"), describe=describe),
)
