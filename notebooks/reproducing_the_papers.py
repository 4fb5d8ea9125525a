# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reproducing the papers: can their cost figures be trusted?
#
# Papers on visual-token compression print FLOPs, cache sizes and times. Before one of them decides
# what you build, find out what it counts. Every published figure below is computed again under the
# convention of its paper, and no parameter is bent for a row.

# %%
import pandas as pd

import costmodel
from costmodel.charts import Axis, LineChart, Series
from costmodel.conventions.convention import list_conventions
from costmodel.report.chart_drawing import draw
from costmodel.reproduction.judging import reproduce

rows = reproduce("all")
frame = pd.DataFrame(
    {
        "paper": row.published.paper,
        "source": row.published.source,
        "method": row.published.method,
        "model": row.published.model,
        "metric": row.published.metric,
        "kind": row.published.kind,
        "printed": row.published.printed,
        "ours": row.ours,
        "ratio": row.ratio,
        "verdict": row.verdict,
        "reason": row.reason,
    }
    for row in rows
)
frame.groupby(["kind", "verdict"]).size().unstack(fill_value=0)

# %% [markdown]
# ## Formulas: what does not follow its own?
#
# A figure is reproduced if ours rounds to what is printed or is within 1 % of it. What is left has
# a reason each.

# %%
formulas = frame[frame["kind"] == "formula"]
share = (formulas["verdict"] == "reproduced").mean()
print(f"{share:.1%} of {len(formulas)} computed figures are reproduced")
by_paper = formulas.groupby("paper")["verdict"].value_counts().unstack(fill_value=0)
by_paper

# %%
missed = formulas[formulas["verdict"] == "differs"]
missed[["source", "method", "metric", "printed", "ours", "ratio", "reason"]].round(3)

# %% [markdown]
# ## One request, every convention
#
# The same prefill of LLaVA-1.5-7B, 576 visual and 64 other tokens. Two papers whose figures differ
# by this much may mean the same model.

# %%
counted = []
for name in list_conventions():
    result = costmodel.estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64, convention=name)
    section = result.convention or {}
    counted.append({
        "convention": name, "counts": section["counts"], "whole prompt T": section["flops"] / 1e12,
        "visual tokens only T": section["flops_visual"] / 1e12,
        "true FLOPs are": f"{section['true_ratio']:.2f} times that",
    })  # fmt: skip
conventions = pd.DataFrame(counted)
conventions.round(2)

# %%
numbers = [*conventions["whole prompt T"], *conventions["visual tokens only T"]]
spread = max(numbers) / min(numbers)
print(f"The largest of these numbers is {spread:.1f} times the smallest.")

# %% [markdown]
# ## Stopwatches: are our bands honest?
#
# Latencies that a paper measured, against our prediction with its 90 % band for any lab and
# software. Most papers do not say which software ran, nor whether a time is that of a first token
# or of a whole answer, and some divide the time of an evaluation by its questions, data loading
# and all: `reason` says how each was read.

# %%
timed = [
    row for row in rows
    if row.band is not None and row.ours and row.published.unit in ("ms", "s")
]  # fmt: skip
scale = {"ms": 1.0, "s": 1e3}


def picked(inside: bool) -> list[int]:
    """Return the rows whose band holds the published figure, or does not."""
    return [index for index, row in enumerate(timed) if bool(row.inside) is inside]


series = []
for inside, name in ((True, "inside our band"), (False, "outside")):
    own = [timed[index] for index in picked(inside)]
    factors = [scale[row.published.unit] for row in own]
    series.append(
        Series.of(
            name,
            [row.published.value * factor for row, factor in zip(own, factors, strict=True)],
            [(row.ours or 0.0) * factor for row, factor in zip(own, factors, strict=True)],
            (
                [row.band[0] * f for row, f in zip(own, factors, strict=True) if row.band],
                [row.band[1] * f for row, f in zip(own, factors, strict=True) if row.band],
            ),
            mode="markers",
            hover=[
                f"{row.published.source}: {row.published.method}<br>{row.reason}" for row in own
            ],
        )
    )
draw(
    LineChart(
        "Published latencies against predictions",
        Axis("published", "ms", log=True),
        Axis("predicted", "ms", log=True),
        tuple(series),
        diagonal=True,
    )
)

# %%
print(f"{len(picked(True))} of {len(timed)} published latencies lie inside the 90 % band")
outside = [timed[index] for index in picked(False)]
pd.DataFrame(
    {
        "source": row.published.source,
        "method": row.published.method,
        "published": f"{row.published.printed} {row.published.unit}",
        "ours": row.ours,
        "reason": row.reason,
    }
    for row in outside
).round(3)

# %% [markdown]
# ## Decision
#
# What a paper's cost figures are good for.

# %%
by_kind = {
    "computed": share,
    "timed": len(picked(True)) / len(timed) if timed else float("nan"),
}
print(
    f"FLOPs and cache sizes: {by_kind['computed']:.0%} follow a formula that is known. Compare "
    f"them only under one convention, since conventions alone differ {spread:.1f} times."
)
print(
    f"Latencies: {by_kind['timed']:.0%} are those of kernels measured elsewhere, put together. "
    "Where a paper does not name its software and batch, take its ratio of two times rather than "
    "the times, and check it with `costmodel compare` on your own GPU."
)
