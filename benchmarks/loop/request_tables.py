"""Tables of whole requests: first token, stages, memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.loop.requests import ANY_STACK, again, compared, judged, summary
from benchmarks.loop.runs import REQUESTS, Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["memory_rows", "prefill_rows", "request_table", "stage_rows"]


def request_table(
    run: Run,
    first: dict[str, Path],
    later: dict[str, Path],
    gpu: str | Path,
    own: Path,
    shipped: str | None,
) -> pd.DataFrame:
    """Return all requests with both predictions: ``own_...`` and ``shipped_...``."""
    import pandas as pd

    if REQUESTS not in first:
        return pd.DataFrame()
    table = compared(again(judged(first[REQUESTS], gpu, own), later.get(REQUESTS), gpu))
    if shipped is not None:
        other = again(judged(first[REQUESTS], gpu, shipped), later.get(REQUESTS), gpu)
        other = compared(other, ANY_STACK)
        table = table.assign(
            shipped_s=other["predicted_s"], shipped_low_s=other[ANY_STACK[0]],
            shipped_high_s=other[ANY_STACK[1]], shipped_error_pct=other["error_pct"],
            shipped_inside=other["inside"],
        )  # fmt: skip
    key = ["model", "compress", "visual_tokens", "text_tokens"]
    raw = run.frame(REQUESTS)
    if "prompt_tokens" not in raw:
        return table.assign(prompt=math.nan)
    prompts = raw[[*key, "prompt_tokens"]].dropna().drop_duplicates(key)
    return table.merge(prompts.rename(columns={"prompt_tokens": "prompt"}), on=key, how="left")


def prefill_rows(requests: pd.DataFrame) -> list[dict[str, Any]]:
    """Return first tokens of one request against prompts, without other methods."""
    if requests.empty:
        return []
    plain = requests[
        (requests["stage"] == "ttft") & (requests["batch"] == 1)
        & requests["compress"].str.match("random|$")
    ]  # fmt: skip
    plain = plain.drop_duplicates(["model", "runtime", "prompt"]).sort_values(
        ["model", "runtime", "prompt"]
    )
    return [_shown(row) for row in plain.to_dict("records")]


def _shown(row: dict[Any, Any]) -> dict[str, Any]:
    told = {True: "yes", False: "no", None: "-"}
    return {
        **{str(name): value for name, value in row.items() if name != "config"},
        "prompt": int(row["prompt"]) if not math.isnan(row["prompt"]) else "-",
        "own_s": row["predicted_s"], "own_low_s": row["low_s"], "own_high_s": row["high_s"],
        "own_error_pct": row["error_pct"], "own_inside": told[row["inside"]],
        "shipped_inside": told[row.get("shipped_inside")],
    }  # fmt: skip


def stage_rows(requests: pd.DataFrame) -> list[dict[str, Any]]:
    """Return errors by model, runtime and stage [%]."""
    if requests.empty:
        return []
    rows: list[dict[str, Any]] = []
    for (model, runtime, stage), some in requests.groupby(["model", "runtime", "stage"]):
        row = {"model": model, "runtime": runtime, "stage": stage, **summary(some)}
        if "shipped_s" in some:
            other = some.assign(error_pct=some["shipped_error_pct"], inside=some["shipped_inside"])
            row |= {f"shipped_{name}": value for name, value in summary(other).items()}
        rows.append(row)
    return rows


def memory_rows(requests: pd.DataFrame) -> list[dict[str, Any]]:
    """Return measured and predicted peaks of requests without other methods [B]."""
    if requests.empty:
        return []
    known = requests[requests["memory_bytes"].notna() & requests["compress"].str.match("random|$")]
    known = known.assign(
        error_pct=100 * (known["predicted_memory_bytes"] / known["memory_bytes"] - 1)
    ).sort_values(["model", "runtime", "batch", "prompt"])
    names = ["model", "runtime", "batch", "memory_bytes", "predicted_memory_bytes", "error_pct"]
    return [
        {**{name: row[name] for name in names}, "prompt": _shown(row)["prompt"]}
        for row in known.to_dict("records")
    ]
