"""Measured figures beside a prediction for the same request, where one can be made."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.reproduction.latencies import Entry, entries, load, memory_bytes, predict
from costmodel.reproduction.published import Published, published_costs
from costmodel.reproduction.training_runs import training_run

__all__ = ["Measured", "measured"]

RUNTIME = "eager"
"""How all of them are predicted: as the papers' own code on transformers runs."""

_SCALE = {"ms": 1.0, "s": 1e3}
_NONE = {
    "total time": "a whole evaluation, with loading, image preparation and answers",
    "throughput gain on P40": "there is no profile of a Tesla P40",
    "TTFT saved on P40": "there is no profile of a Tesla P40",
    "memory saved on P40": "there is no profile of a Tesla P40",
}


@dataclass(frozen=True)
class Measured:
    """Our prediction of a measured figure, in its unit.

    Attributes
    ----------
    value : float or None
        None where no prediction can be made.
    band : tuple of float, optional
        90 % band for any lab and software.
    how : str
        What was predicted, or why nothing was.
    timed : str
        What the clock saw, as far as the source says.
    """

    value: float | None
    band: tuple[float, float] | None
    how: str
    timed: str = ""


def measured(row: Published) -> Measured:
    """Return our prediction for the request of a measured figure.

    Times are of the runtime `RUNTIME`.  Memory is of weights, KV cache and activations, without
    the reserve of an allocator, and has no band.
    """
    if row.metric in _NONE:
        return Measured(None, None, f"no prediction: {_NONE[row.metric]}")
    run = training_run(row)
    if run is not None:
        return Measured(run.value, run.band, run.how, run.timed)
    entry = _entry_of(row)
    if entry is None:
        return Measured(None, None, "no prediction: the request is not known")
    request = _describe(entry)
    if row.unit == "GB":
        value = memory_bytes(entry, RUNTIME) / 1e9
        return Measured(value, None, f"{request}; weights, KV cache and activations only")
    ours = predict(entry, RUNTIME)
    low, high = (bound / _SCALE[row.unit] for bound in ours.bands_ms["any_stack"])
    return Measured(ours.time_ms / _SCALE[row.unit], (low, high), request, entry.timed)


def _describe(entry: Entry) -> str:
    method = entry.compress or "no compression"
    alone = ", which stands in for its tokens alone" if entry.alone else ""
    weights = "" if entry.weights_dtype == entry.dtype else f", {entry.weights_dtype} weights"
    tokens = f"{entry.visual_tokens} + {entry.text_tokens} tokens"
    return f"{entry.model} on {entry.gpu}, {tokens}{weights}, {RUNTIME}, {method}{alone}"


def _entry_of(row: Published) -> Entry | None:
    """Return the request of a row: that of the latency of its source, method and tokens."""
    same = (row.source, row.method, row.model, row.tokens)
    for timed in published_costs():
        if timed.unit in _SCALE and (timed.source, timed.method, timed.model, timed.tokens) == same:
            entry = _timed(timed)
            if entry is not None:
                return entry
    return None


def _timed(row: Published) -> Entry | None:
    time_ms = round(_SCALE[row.unit] * row.value, 6)
    for table in load()["tables"]:
        if table["paper"] != row.paper:
            continue
        for entry in entries(table):
            if (entry.label, entry.measured_ms) == (row.method, time_ms):
                return entry
    return None
