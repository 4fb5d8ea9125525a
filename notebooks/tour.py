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
# # A tour: what do 512 fewer visual tokens buy?
#
# LLaVA-1.5-7B turns every image into 576 visual tokens. Cluster & Aggregate keeps 64 of them.
# How much time does that save, on which GPU, and why is it less than the FLOPs suggest?

# %%
import numpy as np
import pandas as pd
import plotly.graph_objects as go

import costmodel

# %% [markdown]
# ## One estimate

# %%
result = costmodel.estimate("llava-1.5-7b", "rtx-a6000", text_tokens=64, compress="cluster:k=64")
stages = pd.DataFrame(
    {"before_ms": result.baseline.time_s, "after_ms": result.time_s}
).mul(1e3)  # fmt: skip
stages.round(3)

# %%
savings = result.savings
ideal = costmodel.estimate(
    "llava-1.5-7b", "rtx-a6000", text_tokens=64, compress="cluster:k=64", time_model="ideal"
).savings
print(f"FLOPs {savings['flops_ratio']:.2f}x less")
print(f"TTFT on the datasheet roofline {ideal['ttft_s_ratio']:.2f}x less")
print(f"TTFT with calibrated kernels {savings['ttft_s_ratio']:.2f}x less")
low, high = result.interval_s["ttft"]["any_stack"]
print(f"90 % band of the compressed TTFT: {low * 1e3:.0f} to {high * 1e3:.0f} ms")

# %% [markdown]
# The three ratios differ. The operators say why: after compression, most of the language model is
# bound by reading its weights, which does not depend on the number of tokens, and the clustering
# itself starts hundreds of kernels.

# %%
ops = pd.DataFrame(
    {
        "stage": op.stage,
        "time_ms": op.time_s * 1e3,
        "bound_by": op.bound_by,
        "flops": op.formula["flops"],
    }
    for op in sorted(result.ops, key=lambda op: -op.time_s)[:8]
)
ops

# %% [markdown]
# ## Where is the floor?
#
# The same formulas over an array of visual token counts. Below the knee, where the matrix
# products stop being bound by arithmetic, dropping more tokens saves almost nothing.

# %%
tokens = np.arange(1, 1025)
figure = go.Figure()
floors = {}
for gpu in ("a100-80gb-sxm", "rtx-a6000"):
    case = costmodel.prepare("llava-1.5-7b", gpu, text_tokens=64)
    curve = costmodel.evaluate_grid(case, visual_tokens=tokens)
    prefill_ms = curve.time_s["llm_prefill"] * 1e3
    figure.add_scatter(x=tokens, y=prefill_ms, name=gpu)
    profile = costmodel.load_gpu(gpu)
    floors[gpu] = result.memory_bytes["weights"] / profile.bandwidth_bytes_per_s * 1e3
figure.update_layout(
    xaxis_title="visual tokens in the prompt", yaxis_title="language model prefill [ms]"
)
pd.Series(floors, name="reading all weights once [ms]").round(2)

# %% [markdown]
# ## Which method, at 144 tokens?

# %%
rows = costmodel.compare(
    "llava-1.5-7b",
    "a100-80gb-sxm",
    ["none", "random", "cluster", "cluster:impl=compiled", "avgpool", "stf"],
    visual_tokens_kept=144,
    text_tokens=64,
)
pd.DataFrame(
    {
        "method": label,
        "own GFLOP": estimate.flops["compression"] / 1e9,
        "own launches": sum(op.launches for op in estimate.ops if op.stage == "compression"),
        "TTFT ms": estimate.time_s["ttft"] * 1e3,
        "KV cache MB": estimate.memory_bytes["kv_cache"] / 1e6,
    }
    for label, estimate in rows
).round(2)

# %% [markdown]
# By FLOPs the methods hardly differ. Written as a loop of torch kernels, the clustering starts
# more than a thousand of them and waits for the host in every iteration: it costs more than it
# saves. Compiled and for all images at once it pays. **Decision:** at 144 tokens pool or fuse if
# the model may be trained, sample if it may not; cluster only with such an implementation.
