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
# # Capacity planning: how many GPUs for LLaVA-1.5, and what would compression change?
#
# A service answers questions about images: 64 prompt tokens beside the image, 128 tokens of answer,
# 20 requests a second at the busiest time. 95 % of the users shall see the first token within
# 400 ms. Should it run on A100s or on RTX A6000s, with all 576 visual tokens or with fewer?
#
# Change the next cell to your own case and run the notebook again; the rest follows, the decision
# at the end included.

# %%
import pandas as pd

import costmodel
from costmodel.case import Case
from costmodel.charts import Axis, LineChart, Panels, Series
from costmodel.estimation import estimate_case
from costmodel.report.chart_drawing import draw
from costmodel.serving.capacity import Replica, Target, capacity, most_requests, replicas_for

MODELS = ("llava-1.5-7b", "llava-1.5-13b")
GPUS = ("a100-80gb-sxm", "rtx-a6000")
TEXT_TOKENS, OUTPUT_TOKENS = 64, 128
REQUESTS_PER_S = 20.0
TARGET = Target(ttft_s=0.4, quantile=0.95)
# What an hour of one GPU costs you. These two are placeholders of the usual order.
PRICE_PER_HOUR = {"a100-80gb-sxm": 1.80, "rtx-a6000": 0.80}
# Average pooling needs a model trained for it; VisionZip and random sampling do not.
METHODS = (None, "avgpool:window=2", "visionzip:k=64", "random:k=64")

# %% [markdown]
# ## Does it fit, and how many requests at once?
#
# Weights are there once; every request that is being answered keeps the keys and values of its
# prompt and its answer. A tenth of the memory is left to the serving engine.


# %%
def prepared(model: str, gpu: str, method: str | None) -> Case:
    """Return one of the cases of this notebook."""
    return costmodel.prepare(
        model, gpu, text_tokens=TEXT_TOKENS, output_tokens=OUTPUT_TOKENS, compress=method
    )


def label(method: str | None) -> str:
    """Return the name of a method."""
    return (method or "none").partition(":")[0]


records = []
for model in MODELS:
    for gpu in GPUS:
        for method in METHODS:
            case = prepared(model, gpu, method)
            replica = Replica.of(case)
            one = estimate_case(case)
            records.append({
                "model": model, "gpu": gpu, "method": label(method),
                "visual tokens": int(one.tokens["visual_kept"]),
                "weights GB": one.memory_bytes["weights"] / 1e9,
                "KV MB per request": one.memory_bytes["kv_cache"] / 1e6,
                "requests at once": len(replica.step_s),
                "TTFT alone ms": replica.prefill_s * 1e3,
                "TPOT alone ms": replica.step_s[0] * 1e3,
            })  # fmt: skip
fits = pd.DataFrame(records)
fits.round(1)

# %% [markdown]
# Both models fit on both cards, with room for dozens of requests. Whether that is enough depends on
# how long each of them stays.
#
# ## What one GPU serves
#
# Arrivals are random, prefills go first and one at a time, and all other requests decode
# together. `costmodel.serving` bounds the wait: the Pollaczek-Khinchine mean, and for the quantile
# Lundberg's inequality, which holds for every load (the tests hold both against a simulation).
# Three columns: with the times at the fast edge of their 90 % band for any lab and software, as
# predicted, and at the slow edge. `limited by` is what fails first when the load grows: `memory`
# means that so many requests decode at once, slowed down by the prefills of others, that their
# caches no longer fit; `ttft` that the wait is too long.

# %%
records = []
for model in MODELS:
    for gpu in GPUS:
        for method in METHODS:
            case = prepared(model, gpu, method)
            row = {"model": model, "gpu": gpu, "method": label(method)}
            for bound, name in (("low", "fast"), ("predicted", "predicted"), ("high", "slow")):
                replica = Replica.of(case, bound=bound)
                row[f"req/s {name}"] = most_requests(replica, TARGET)
                if bound == "predicted":
                    row["limited by"] = capacity(
                        replica, 1.02 * row["req/s predicted"] + 1e-6, TARGET
                    ).missed
                row[f"GPUs {name}"] = replicas_for(replica, REQUESTS_PER_S, TARGET)
            records.append(row)
serving = pd.DataFrame(records).astype(
    {f"GPUs {n}": "Int64" for n in ("fast", "predicted", "slow")}
)
serving.round(2)

# %% [markdown]
# ## How the wait grows
#
# Each curve ends where memory does. Fewer visual tokens move that end in two ways: prefills take
# less time, and a request's cache less memory.

# %%
charts = []
for gpu in GPUS:
    series = []
    for method in METHODS:
        replica = Replica.of(prepared(MODELS[0], gpu, method))
        most = 0.97 / replica.prefill_s
        rates = [most * step / 60 for step in range(1, 61)]
        loads = [capacity(replica, rate, Target(ttft_s=1e6)) for rate in rates]
        kept = [(r, f.ttft_quantile_s) for r, f in zip(rates, loads, strict=True) if not f.missed]
        x, y = zip(*kept, strict=True)
        series.append(Series.of(label(method), x, [1e3 * value for value in y]))
    ends = max(max(one.x) for one in series)
    series.append(Series.of("target", [0, ends], [1e3 * TARGET.ttft_s] * 2, reference=True))
    charts.append(
        LineChart(
            f"{MODELS[0]} on one {gpu}",
            Axis("requests per second", "1/s"),
            Axis("95 % of first tokens within", "ms", limits=(0, 500)),
            tuple(series),
        )
    )
draw(Panels("The wait for the first token against the load", tuple(charts)))

# %% [markdown]
# ## What it costs

# %%
serving["per hour"] = [
    row["GPUs predicted"] * PRICE_PER_HOUR[row["gpu"]] for _, row in serving.iterrows()
]
serving["per hour, slow"] = [
    row["GPUs slow"] * PRICE_PER_HOUR[row["gpu"]] for _, row in serving.iterrows()
]
bill = serving.pivot_table(
    index=["model", "method"], columns="gpu", values=["per hour", "per hour, slow"], sort=False
)
bill.round(2)

# %% [markdown]
# ## Decision
#
# Plan with the slow edge: it is what another lab's software may do, and a queue forgives a fast
# server but not a slow one.

# %%
decisions = {}
for model in MODELS:
    own = serving[serving["model"] == model].dropna(subset=["per hour, slow"])
    plain = own[own["method"] == "none"]
    if own.empty:
        print(
            f"{model}: no plan meets the target even with more GPUs; relax it or use more per model"
        )
        continue
    best = own.loc[own["per hour, slow"].idxmin()]
    decisions[model] = best
    equal = own[(own["per hour, slow"] == best["per hour, slow"]) & (own["gpu"] == best["gpu"])]
    text = (
        f"{model}: {best['GPUs slow']} x {best['gpu']} with {' or '.join(equal['method'])} "
        f"({best['GPUs predicted']} if the times hold), {best['per hour, slow']:.2f} per hour"
    )
    if not plain.empty:
        uncut = plain.loc[plain["per hour, slow"].idxmin()]
        saved = 1 - best["per hour, slow"] / uncut["per hour, slow"]
        text += (
            f"; without compression {uncut['GPUs slow']} x {uncut['gpu']} at "
            f"{uncut['per hour, slow']:.2f}: compression saves {saved:.0%} of the bill"
        )
    else:
        text += "; without compression no number of GPUs meets the target"
    print(text)
pd.DataFrame(decisions).T[["gpu", "method", "GPUs predicted", "GPUs slow", "per hour, slow"]]

# %% [markdown]
# What this does not decide is quality: look at `costmodel compare ... --visual-tokens-kept 64` for
# the published scores of each method at its number of tokens before you take the cheapest row.
