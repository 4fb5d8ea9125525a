"""Pictures of the study of STF and MBTF."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from costmodel.charts import Axis, BarChart, HeatMap, LineChart, Panels, Series
from costmodel.evaluation import FloatArray
from costmodel.studies.batch_runs import BatchRuns

__all__ = ["over_batches", "stages", "taps_and_windows"]

_STAGES = {
    "vision tower": ("vision_encoder",),
    "projector or fusion": ("projector", "compression"),
    "language model and head": ("llm_prefill", "lm_head"),
    "host": ("host_overhead",),
}


def over_batches(runs: Mapping[str, BatchRuns], paper_ratio: float, devices: int) -> Panels:
    """Time, speed-up, memory and throughput over the batch; the first run is the baseline.

    Parameters
    ----------
    runs : mapping of str to BatchRuns
        By variant; the time of the first and the last has its band.
    paper_ratio : float
        FLOPs without over with the method, as the paper counts them.
    devices : int
        GPUs that each serve their own requests.
    """
    batch = Axis("batch per GPU", log=True)
    first, *_, last = runs
    base = runs[first]

    def lines(value: Callable[[BatchRuns], FloatArray]) -> tuple[Series, ...]:
        return tuple(
            Series.of(name, one.batches, value(one), mode="lines+markers")
            for name, one in runs.items()
        )

    def limit(name: str, value: float) -> Series:
        ends = [base.batches[0], base.batches[-1]]
        return Series.of(name, ends, [value] * 2, reference=True, labels=("", name))

    banded = tuple(
        Series.of(
            name, one.batches, 1e3 * one.ttft_s,
            (1e3 * one.band_s[0], 1e3 * one.band_s[1]) if name in (first, last) else None,
            mode="lines+markers",
        )
        for name, one in runs.items()
    )  # fmt: skip
    capacity = base.case.gpu.capacity_bytes / 1e9
    return Panels(
        f"STF and MBTF over the batch, {base.case.gpu.name}",
        (
            LineChart("Time to the first token", batch, Axis("TTFT", "ms", log=True), banded),
            LineChart(
                "Speed-up", batch, Axis("TTFT without over with"),
                (*lines(lambda one: base.ttft_s / one.ttft_s),
                 limit("FLOPs of the paper", paper_ratio)),
            ),
            LineChart(
                "Memory of one GPU", batch, Axis("weights, KV cache, activations", "GB"),
                (*lines(lambda one: one.memory.total / 1e9),
                 limit(f"{capacity:.1f} GB of the GPU", capacity)),
            ),
            LineChart(
                f"{devices} GPUs, each its own requests", batch, Axis("first tokens", "1/s"),
                lines(lambda one: devices * one.requests_per_s),
            ),
        ),
        note=f"{base.case.deployment.runtime}; bands: 90 %, any lab and software",
    )  # fmt: skip


def stages(runs: Mapping[str, BatchRuns], batches: Sequence[int]) -> BarChart:
    """Time per image by stage, at the smallest and the largest batch."""
    shown = [0, len(batches) - 1]
    categories = tuple(f"{name}, batch {batches[i]}" for i in shown for name in runs)
    parts = {
        label: tuple(
            1e3 * sum(float(one.time_s[stage][i]) for stage in members) / batches[i]
            for i in shown
            for one in runs.values()
        )
        for label, members in _STAGES.items()
    }
    return BarChart(
        "Where the time to the first token goes", Axis("time per image", "ms"), categories, parts,
        horizontal=True,
    )  # fmt: skip


def taps_and_windows(grid: Mapping[tuple[int, int], Mapping[str, float]], batch: int) -> HeatMap:
    """Speed-up over tapped layers and windows."""
    taps = sorted({key[0] for key in grid})
    windows = sorted({key[1] for key in grid})
    return HeatMap(
        f"Time to the first token of LLaVA-1.5 over that of MBTF+STF, batch {batch}",
        Axis("tapped layers of the tower"), Axis("window"), Axis("speed-up"),
        tuple(str(count) for count in taps),
        tuple(f"{w}x{w}, {grid[taps[0], w]['visual_tokens']:.0f} tokens" for w in windows),
        tuple(tuple(grid[t, w][f"speedup_batch_{batch}"] for t in taps) for w in windows),
        hover=tuple(
            tuple(
                f"{grid[t, w]['fusion_gmac_per_image']:.1f} GMAC per image, "
                f"{grid[t, w]['weights_gb']:.2f} GB of weights"
                for t in taps
            )
            for w in windows
        ),
    )  # fmt: skip
