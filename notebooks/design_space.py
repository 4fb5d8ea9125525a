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
# # The design space of token compression: where does it pay?
#
# Fewer visual tokens always mean fewer FLOPs. Whether they mean less time depends on the GPU, the
# batch, the prompt and on what the method itself does. A sweep over some hundred thousand points
# shows where.

# %%
import numpy as np
import pandas as pd

import costmodel
from costmodel.charts import Axis, HeatMap, LineChart, Panels, Series
from costmodel.report.chart_drawing import draw
from costmodel.search.one_at_a_time import sensitivity
from costmodel.sweep import to_frame

GPUS = ["a100-80gb-sxm", "rtx-a6000"]
METHODS = ["cluster:impl=compiled", "cluster:impl=eager", "random", "visionzip", "stf"]
FULL = 576

# %% [markdown]
# ## The sweep
#
# Two GPUs, five methods and none, 25 numbers of kept tokens, 16 batch sizes, 60 prompt lengths. A
# file of these lines does the same from the command line: `costmodel sweep spec.yaml -o
# points.parquet`. A method that cannot keep some number of tokens is left out there.

# %%
axes = {
    "model": "llava-1.5-7b",
    "gpu": GPUS,
    "batch": {"range": [1, 16, 1]},
    "text_tokens": {"range": [16, 606, 10]},
    "outputs": ["ttft_s", "compression_s", "flops_total_flop", "kv_cache_bytes"],
}
# STF keeps 144 tokens or all.
kept = [int(n) for n in np.unique([144, *np.round(np.geomspace(8, FULL, 24))])]
points = to_frame({**axes, "method": METHODS, "visual_tokens_kept": kept})
plain = to_frame({**axes, "method": "none"})
print(f"{len(points) + len(plain):,} points")
keys = ["gpu", "batch", "text_tokens"]
joined = points.merge(
    plain[[*keys, "ttft_s", "flops_total_flop"]], on=keys, suffixes=("", "_plain")
)
joined["speedup"] = joined["ttft_s_plain"] / joined["ttft_s"]
joined["fewer_flops"] = joined["flops_total_flop_plain"] / joined["flops_total_flop"]
joined.groupby(["gpu", "method"], observed=True)[["speedup", "fewer_flops"]].describe()[
    [(a, b) for a in ("speedup", "fewer_flops") for b in ("min", "50%", "max")]
].round(2)

# %% [markdown]
# ## What is left of a FLOP saved?
#
# One request with 66 prompt tokens. The dashed line is what FLOPs promise.

# %%
one = joined[(joined["batch"] == 1) & (joined["text_tokens"] == 66)]
charts = []
for gpu in GPUS:
    series = []
    for method in METHODS:
        own = one[(one["gpu"] == gpu) & (one["method"].astype(str).str.startswith(method))]
        own = own.sort_values("visual_tokens_kept")
        mode = "lines" if len(own) > 2 else "markers"
        series.append(Series.of(method, own["visual_tokens_kept"], own["speedup"], mode=mode))
    flops = one[(one["gpu"] == gpu) & (one["method"].astype(str).str.startswith("random"))]
    flops = flops.sort_values("visual_tokens_kept")
    series.append(
        Series.of("by FLOPs", flops["visual_tokens_kept"], flops["fewer_flops"], reference=True)
    )
    charts.append(
        LineChart(
            gpu, Axis("visual tokens kept"), Axis("times faster to the first token"), tuple(series)
        )
    )
speedups = Panels("Faster to the first token, one request", tuple(charts))
draw(speedups)

# %% [markdown]
# ## Where does clustering pay?
#
# The eager loop of k-means starts kernels one by one for every image, so a batch does not help
# it. Blue is faster than no compression, orange slower, the line is the break-even.

# %%
maps = []
for gpu in GPUS:
    own = joined[
        (joined["gpu"] == gpu)
        & (joined["text_tokens"] == 66)
        & joined["method"].astype(str).str.startswith("cluster:impl=eager")
    ]
    grid = own.pivot_table(index="batch", columns="visual_tokens_kept", values="speedup")
    maps.append(
        HeatMap(
            gpu, Axis("clusters"), Axis("requests in the batch"), Axis("times faster"),
            columns=tuple(f"{n:g}" for n in grid.columns),
            rows=tuple(f"{n:g}" for n in grid.index),
            values=tuple(tuple(row) for row in grid.to_numpy().tolist()),
            level=1.0,
        )
    )  # fmt: skip
paying = Panels("Clustering in a loop of torch kernels", tuple(maps))
draw(paying)

# %%
pays = (
    joined[joined["visual_tokens_kept"] < FULL]
    .assign(pays=lambda frame: frame["speedup"] > 1)
    .groupby(["gpu", "method"], observed=True)["pays"]
    .mean()
    .unstack("gpu")
)
(100 * pays).round(1).rename_axis(columns="% of all points that are faster on")

# %% [markdown]
# ## The best for a budget of time
#
# Of the methods that need no training: the most visual tokens that a request of 66 prompt tokens
# may keep if the first token shall come in time. More tokens, better answers: `costmodel compare`
# has the published scores.

# %%
training_free = ["cluster:impl=compiled", "random", "visionzip"]
records = []
for gpu in GPUS:
    for target_ms in (20, 25, 30, 40, 60, 90):
        own = one[(one["gpu"] == gpu) & (one["ttft_s"] <= target_ms / 1e3)]
        row: dict[str, object] = {"gpu": gpu, "TTFT ms": target_ms}
        for method in training_free:
            found = own[own["method"].astype(str).str.startswith(method)]["visual_tokens_kept"]
            row[method] = int(found.max()) if len(found) else 0
        records.append(row)
budgets = pd.DataFrame(records)
budgets

# %% [markdown]
# ## What would another machine change?
#
# One rate of the A100 at a time, and what is left of the gain at 64 tokens. A faster host helps
# the loop of small kernels, a faster GPU makes the same loop look worse. (`costmodel sensitivity`
# does this on the command line, Sobol indices included.)

# %%
records = []
for method in ("cluster:k=64,impl=eager", "cluster:k=64,impl=compiled", "random:k=64"):
    case = costmodel.prepare("llava-1.5-7b", GPUS[0], text_tokens=66, compress=method)
    found = sensitivity(case, ["compute", "bandwidth", "launch"], [0.5, 2.0])
    row = {"method": method, "as it is": found.base.speedup}
    for change in found.changes:
        what = "host costs" if change.quantity == "launch" else change.quantity
        row[f"{what} x {change.factor:g}"] = change.speedup
    records.append(row)
machines = pd.DataFrame(records).set_index("method")
machines.round(2)

# %% [markdown]
# ## Decision

# %%
for gpu in GPUS:
    shares = pays[gpu]
    best = shares[[name for name in shares.index if name.startswith(tuple(training_free))]]
    text = ", ".join(
        f"{name.partition(':k')[0]} {100 * value:.0f} %" for name, value in best.items()
    )
    print(f"{gpu}: of all points faster than no compression: {text}")
eager = one[one["method"].astype(str).str.startswith("cluster:impl=eager")]
wins = eager[eager["speedup"] > 1].groupby("gpu", observed=True)["visual_tokens_kept"].max()
for gpu in GPUS:
    limit = f"up to {int(wins[gpu])} clusters" if gpu in wins else "at no number of clusters"
    print(f"{gpu}: clustering in a loop of torch kernels pays {limit} for a single request")
