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
# # Calibrating your own card: can its predictions be planned with?
#
# No datasheet says how long a kernel takes. Time a few hundred on your machine, fit them, and find
# out how well whole requests are predicted that nobody timed. On a GPU the two commands are
#
# ```text
# costmodel measure --device cuda --suite gemm,attention,memory_bound,launch -o kernels
# costmodel measure --device cuda --suite prefill --model llava-1.5-7b --dtype bf16 -o requests
# ```
#
# The timings below were taken the same way with `--device cpu` and the small `llava-small`, and are
# part of this project. Point `FOLDER` at your own.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

import pandas as pd

from costmodel.calibration.judging import validate_timings
from costmodel.calibration.user import calibrate
from costmodel.calibration.writing import write_calibration
from costmodel.charts import Axis, LineChart, Series
from costmodel.report.chart_drawing import draw

FOLDER = Path(str(files("costmodel.hardware_profiles"))) / "measurements" / "xeon-1-thread"
PROFILE = FOLDER / "cpu.yaml"
KERNELS = sorted(
    FOLDER / f"{name}.parquet"
    for name in (
        "gemm", "attention_prefill", "attention_encoder", "attention_decode", "memory_bound",
    )
)  # fmt: skip
REQUESTS, AGAIN = FOLDER / "requests.parquet", FOLDER / "requests_again.parquet"

# %% [markdown]
# ## What was timed, and how steady the clock was
#
# Every row is a median with its spread. Where samples of one kernel scatter by a third, no fit will
# be better than that.

# %%
rows = pd.concat(
    pd.read_parquet(path).assign(
        kind=lambda frame, name=path.stem: frame.get("op", pd.Series(name, frame.index))
        if name == "memory_bound" else name
    )
    for path in KERNELS
)  # fmt: skip
rows["spread %"] = 100 * rows["time_us_std"] / rows["time_us"]
timed = rows.groupby("kind").agg(
    rows=("time_us", "size"),
    shortest_us=("time_us", "min"),
    longest_us=("time_us", "max"),
    spread_pct=("spread %", "median"),
)
timed.round(1)

# %% [markdown]
# ## How far off is the datasheet?
#
# The roofline of the profile, kernel by kernel. Its peaks are the best that this machine was seen
# to do, which most shapes do not reach.

# %%
before = validate_timings(KERNELS, gpu=PROFILE)
pd.DataFrame(
    {
        "kind": group.stack.kind,
        "shapes": len(group.points),
        "roofline MAPE %": 100
        * (group.points["roofline_s"] / group.points["time_s"] - 1).abs().mean(),
    }
    for group in before.groups
).round(1)

# %% [markdown]
# ## Fit
#
# A few physical parameters for each kind, and errors on shapes that were left out of the fit, never
# on those it saw.

# %%
result = calibrate(KERNELS, PROFILE, name="mine")
own = Path(tempfile.mkdtemp()) / "mine.yaml"
write_calibration(result.calibration, own)
fits = pd.DataFrame(
    {
        "kind": one.fit.kind,
        "kernel": one.stack.kernel,
        "rows": one.fit.rows,
        "MAPE %": one.fit.error.mape_pct if one.fit.error else None,
        "p90 %": one.fit.error.p90_pct if one.fit.error else None,
        "bias %": one.fit.error.bias_pct if one.fit.error else None,
        "not identified": ", ".join(one.at_bound) or "-",
    }
    for one in result.fitted
)
fits.round(1)

# %% [markdown]
# ## Whole requests, which no kernel was timed for
#
# Time to the first token of a LLaVA with random weights, at token counts between those of the
# kernels, measured twice: the difference of the two runs is the best that a prediction can do.

# %%
KEYS = ["batch", "text_tokens", "compress"]


def requests(path: Path) -> pd.DataFrame:
    """Return the judged requests of a file, in eager code."""
    found = validate_timings([path], gpu=PROFILE, calibration=own)
    frames = [group.points for group in found.groups if group.stack.kind == "ttft eager"]
    return pd.concat(frames).set_index(KEYS)


first, second = requests(REQUESTS), requests(AGAIN)
both = first.join(second["time_s"].rename("again_s"), how="inner").reset_index()
both["measured_s"] = (both["time_s"] + both["again_s"]) / 2
both["error %"] = 100 * (both["predicted_s"] / both["measured_s"] - 1)
both["runs differ %"] = 100 * (both["again_s"] / both["time_s"] - 1)
both["in band"] = both["measured_s"].between(both["low_s"], both["high_s"])
both[[*KEYS, "measured_s", "predicted_s", "low_s", "high_s", "error %", "runs differ %", "in band"]]

# %%
sampled = both["compress"].str.extract(r"^random:k=(\d+)$")[0].astype(float)
plain = both[(both["compress"] == "") | sampled.notna()]
plain = plain.assign(prompt=sampled.fillna(plain["visual_tokens"]) + plain["text_tokens"])
plain = plain.sort_values("prompt")
chart = LineChart(
    "Requests that no kernel was timed for",
    Axis("tokens of the prompt"),
    Axis("time to first token", "ms"),
    (
        Series.of(
            "predicted", plain["prompt"], 1e3 * plain["predicted_s"],
            (1e3 * plain["low_s"], 1e3 * plain["high_s"]),
        ),
        Series.of("run 1", plain["prompt"], 1e3 * plain["time_s"], mode="markers"),
        Series.of("run 2", plain["prompt"], 1e3 * plain["again_s"], mode="markers"),
    ),
)  # fmt: skip
draw(chart)

# %% [markdown]
# ## The true model
#
# LLaVA-1.5-7B itself, in bf16 with random weights, on both threads of the same machine: 14 GB of
# weights stay in no cache. All prompts but that of 208 tokens have lengths that no kernel was timed
# at. Kernels took a minute and a half, the requests a quarter of an hour.

# %%
TRUE = FOLDER.parent / "xeon-2-threads"
fitted = calibrate(
    [TRUE / path.name for path in KERNELS], TRUE / "cpu.yaml", name="mine-7b"
).calibration
true_own = Path(tempfile.mkdtemp()) / "mine-7b.yaml"
write_calibration(fitted, true_own)
groups = validate_timings(
    [TRUE / "requests.parquet"], gpu=TRUE / "cpu.yaml", calibration=true_own
).groups
seven = pd.concat(group.points.assign(stage=group.stack.kind) for group in groups)
seven["error %"] = 100 * (seven["predicted_s"] / seven["time_s"] - 1)
seven["in band"] = seven["time_s"].between(seven["low_s"], seven["high_s"])
shown = ["stage", "compress", "text_tokens", "time_s", "predicted_s", "low_s", "high_s"]
seven[[*shown, "error %", "in band"]].round(3)

# %% [markdown]
# ## Decision

# %%
LIMIT_PCT = 15.0
error, bias = both["error %"].abs().mean(), both["error %"].mean()
scatter, inside = both["runs differ %"].abs().mean(), both["in band"].mean()
weak = fits[fits["MAPE %"] > 20]["kind"].tolist()
verdict = "Plan with it" if error <= LIMIT_PCT else "Do not plan with it yet"
print(
    f"{verdict}: requests are predicted within {error:.1f} % on average (bias {bias:+.1f} %), two "
    f"runs of the clock differ by {scatter:.1f} %, and {inside:.0%} lie inside the 90 % band."
)
if inside < 0.8:
    print("The bands are too narrow here: add the measured bias before you promise a deadline.")
if weak:
    print(f"Kinds that need more shapes before they carry a decision: {', '.join(weak)}.")
