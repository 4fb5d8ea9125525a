"""Latencies that others measured, and what the calibrated model says for the same request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.estimation import estimate
from costmodel.results import Estimate

__all__ = ["BANDS", "RUNTIMES", "Entry", "Prediction", "entries", "load", "memory_bytes", "predict"]

BANDS = {"any_stack": "any lab and software", "same_stack": "same stack"}
"""Bands of an estimate, the wider first."""

RUNTIMES = {"eager": "eager", "compiled": "flash", "cuda-graph": "flash"}
"""Runtime -> attention that goes with it."""

_FILE = "published_latencies.yaml"


@dataclass(frozen=True)
class Entry:
    """A published time and the request it is for.

    Attributes
    ----------
    label : str
        Method, as published.
    model, gpu : str
        Names of this project.
    visual_tokens, text_tokens : int
        Prompt before compression.
    measured_ms : float
        Published time [ms].
    compress : str
        What the prediction is for; empty for no compression.
    alone : bool
        Whether that only stands in for the method.
    left_out : tuple of str
        Stages that are not in the time: vision tower and projector, and the method's own
        kernels where they run with these.
    dtype, weights_dtype : str
        Formats.
    timed : str
        What the clock saw, as far as it is known.
    """

    label: str
    model: str
    gpu: str
    visual_tokens: int
    text_tokens: int
    measured_ms: float
    compress: str
    alone: bool
    left_out: tuple[str, ...]
    dtype: str
    weights_dtype: str
    timed: str

    @property
    def group(self) -> str:
        """What kind of row it is, for the counts."""
        if self.alone:
            return "Tokens alone"
        return "Method modelled" if self.compress else "No compression"


@dataclass(frozen=True)
class Prediction:
    """Our time of an entry [ms], and its bands by kind [ms]."""

    time_ms: float
    bands_ms: Mapping[str, tuple[float, float]]

    def holds(self, band: str, measured_ms: float) -> bool:
        """Return whether a band contains a time [ms]."""
        low, high = self.bands_ms[band]
        return low <= measured_ms <= high


@cache
def load() -> dict[str, Any]:
    """Return the published figures with what was assumed about them."""
    return read_yaml_mapping(files("costmodel.reproduction") / "data" / _FILE, _FILE)


def entries(published: Mapping[str, Any]) -> list[Entry]:
    """Return the rows of one published table."""
    return [
        Entry(
            label=row["label"],
            model=row["model"],
            gpu=published["gpu"],
            visual_tokens=row["visual_tokens"],
            text_tokens=published["text_tokens"],
            measured_ms=row["measured_ms"],
            compress=row.get("compress", row.get("stand_in", "")),
            alone="stand_in" in row,
            left_out=_left_out(published["vision_tower"], row.get("own_kernels", "included")),
            dtype=published["dtype"],
            weights_dtype=row.get("weights_dtype", published["dtype"]),
            timed=published["timed"],
        )
        for row in published["rows"]
    ]


def _left_out(tower: str, own_kernels: str) -> tuple[str, ...]:
    stages = ("vision_encoder", "projector") if tower == "excluded" else ()
    return (*stages, "compression") if own_kernels == "excluded" else stages


def predict(entry: Entry, runtime: str) -> Prediction:
    """Return our time of an entry under a runtime of `RUNTIMES`."""
    result = _estimate(
        entry.model, entry.gpu, entry.visual_tokens, entry.text_tokens, entry.compress,
        entry.dtype, entry.weights_dtype, runtime,
    )  # fmt: skip
    times, interval = result.time_s, result.interval_s
    bands = {}
    for band in BANDS:
        # The bounds of a request are nearly sums over its stages, so that stages can be taken out.
        low, high = (
            bound - sum(interval["stages"][stage][band][side] for stage in entry.left_out)
            for side, bound in enumerate(interval["ttft"][band])
        )
        bands[band] = (1e3 * low, 1e3 * high)
    return Prediction(1e3 * (times["ttft"] - sum(times[stage] for stage in entry.left_out)), bands)


def memory_bytes(entry: Entry, runtime: str) -> float:
    """Return the memory of an entry on its GPU: weights, KV cache and activations [B]."""
    result = _estimate(
        entry.model, entry.gpu, entry.visual_tokens, entry.text_tokens, entry.compress,
        entry.dtype, entry.weights_dtype, runtime,
    )  # fmt: skip
    return float(result.memory_bytes["total"])


@cache
def _estimate(
    model: str,
    gpu: str,
    visual_tokens: int,
    text_tokens: int,
    compress: str,
    dtype: str,
    weights_dtype: str,
    runtime: str,
) -> Estimate:
    # Methods of one table often share a stand-in.
    return estimate(
        model, gpu, text_tokens=text_tokens, visual_tokens=visual_tokens,
        compress=compress or None, dtype=dtype, weights_dtype=weights_dtype, runtime=runtime,
        attention=RUNTIMES[runtime],
    )  # fmt: skip
