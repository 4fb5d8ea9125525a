"""Time to the first token, stage by stage, of several methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.charts import BarChart, Picture
from costmodel.compression.method import list_methods
from costmodel.report.method_runs import image_features, method_runs, setting
from costmodel.report.picture_kinds import Asked, Drawn, Kind
from costmodel.report.result_columns import STAGE_COLUMNS, axis_of, frame_of, scaled
from costmodel.report.thinning import evenly

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "describe"]

_MOST_BARS = 40
_SHARE = 9


def _of_case(asked: Asked) -> Picture:
    case = asked.plain
    budget = max(1, round(image_features(case) / _SHARE))
    methods = asked.methods or tuple(name for name in list_methods() if name != "none")
    runs, missing = method_runs(case, methods, [budget])
    base = runs[0][2].baseline or runs[0][2]
    labels = [("none", base)] + [(label, result) for _, label, result in runs]
    note = f"{setting(case)}; {budget} visual tokens of each image kept, as the mean over layers"
    if missing:
        note += f"\nnot shown, as they keep other numbers: {', '.join(missing)}"
    return describe(frame_of(labels), note)


def describe(frame: pd.DataFrame, note: str) -> Picture:
    """Return bars of the stages, one for each row, the fastest first.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``method``, ``visual_tokens_kept``, the stages and ``ttft_s``; bounds where known.
    note : str
        What is held fixed.
    """
    rows = frame.drop_duplicates(["method", "visual_tokens_kept"]).sort_values(
        "ttft_s", kind="stable"
    )
    if len(rows) > _MOST_BARS:
        note += f"\n{_MOST_BARS} of {len(rows):,} settings, evenly over their order by time"
        rows = evenly(rows, _MOST_BARS)
    several = rows.groupby("method")["visual_tokens_kept"].nunique().max() > 1
    names = [
        f"{method}, {kept:g} tokens" if several and "k=" not in str(method) else str(method)
        for method, kept in zip(rows["method"], rows["visual_tokens_kept"], strict=True)
    ]
    stages = {c: title for c, title in STAGE_COLUMNS.items() if rows[c].max() > 0}
    parts = {title: tuple(scaled(rows, column)) for column, title in stages.items()}
    last = list(parts)[-1]
    banded = {"ttft_low_s", "ttft_high_s"} <= set(rows) and rows["ttft_low_s"].notna().all()
    if banded:
        note += "\nlines: 90 % band of the sum for any lab and software"
    return BarChart(
        title="Time to the first token by stage",
        y=axis_of("ttft_s"),
        categories=tuple(names),
        parts=parts,
        horizontal=True,
        low={last: tuple(scaled(rows, "ttft_low_s"))} if banded else None,
        high={last: tuple(scaled(rows, "ttft_high_s"))} if banded else None,
        note=note,
    )


KIND = Kind(
    summary="Time of every stage, method by method.",
    of_case=_of_case,
    of_results=Drawn(
        needs=(*STAGE_COLUMNS, "ttft_s"), shows=("method", "visual_tokens_kept"), describe=describe
    ),
)
