"""Points per second of a sweep: in memory, with bands, and from a spec to a parquet file.

One point is (batch, text tokens, kept visual tokens) -> the time to the first token with its
stages (vision, projector, compression, language model, head) and the exposed host time, of one
model, GPU and method.  One thread: the variables of BLAS libraries are set before NumPy loads.
The floor copies as many bytes as a point has in the same run.  Every file is written by a
process of its own, whose peak memory is reported.  Figures are reported, never judged.
"""

# ruff: noqa: E402 - BLAS reads its variables when NumPy loads
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import costmodel
from costmodel.tables.quantities import BANDS, TIMES

POINT = (
    "(batch, text tokens, kept visual tokens) -> TTFT with vision, projector, compression, LLM, "
    "head and host time, of one model, GPU and method"
)
SIZES = {1_000_000: (16, 8), 10_000_000: (32, 2), 100_000_000: (64, 1)}
"""Largest batch and step of the kept tokens, by points."""

FREE_BYTES_PER_POINT = 60


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least time [s] of `repeats` runs, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def spec(options: argparse.Namespace, points: int) -> dict[str, Any]:
    """Return a spec with about as many points."""
    batch, step = SIZES.get(points, (16, 8))
    kept = range(64, 576, step)
    text = max(1, math.ceil(points / batch / len(kept)))
    return {
        "model": options.model, "gpu": options.gpu, "method": options.compress,
        "runtime": options.runtime, "precision": options.precision,
        "visual_tokens_kept": {"range": [kept[0], kept[-1], step]},
        "batch": {"range": [1, batch, 1]},
        "text_tokens": {"range": [16, 15 + text, 1]},
        "outputs": "times",
    }  # fmt: skip


def in_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Return points per second of all stages, with bands, of scattered points, and the floor."""
    compress = f"{options.compress}:k=64"
    case = costmodel.prepare(
        options.model, options.gpu, text_tokens=64, compress=compress, runtime=options.runtime
    )
    axes: dict[str, Any] = {
        "batch": range(1, 33), "text_tokens": range(16, 2016), "visual_tokens": range(64, 576),
    }  # fmt: skip
    start = time.perf_counter()
    table = costmodel.tabulate(case, dtype=options.precision, **axes)
    build_s = time.perf_counter() - start
    rows = options.points // 2000
    batch, kept, text = (np.array(values, dtype=np.intp) for values in axes.values())
    kept, text = text, kept
    batch, visual = (x[:rows] for x in (np.repeat(batch, len(kept)), np.tile(kept, len(batch))))
    outs = {n: np.empty((rows, len(text)), options.precision) for n in (*TIMES, *BANDS)}
    plain = {name: outs[name] for name in TIMES}
    count = rows * len(text)
    found = {"all stages": seconds(lambda: table.rows(plain, batch, visual, text), options.repeats)}
    copies = {name: np.empty_like(out) for name, out in plain.items()}

    def copy() -> None:
        for name, out in plain.items():
            np.copyto(copies[name], out)

    found["floor: a copy"] = seconds(copy, options.repeats)
    few = options.points // 4
    rng = np.random.default_rng(0)
    drawn = [rng.choice(values, few) for values in (batch, text, visual)]
    found["scattered points"] = (count / few) * seconds(
        lambda: table.quantities(TIMES, *drawn), options.repeats
    )
    start = time.perf_counter()
    table.ttft_band(1, 16, 64)
    bands_s = time.perf_counter() - start
    share = max(1, rows // 4)
    banded = {name: out[:share] for name, out in outs.items()}
    found["all stages, bands"] = (rows / share) * seconds(
        lambda: table.rows(banded, batch[:share], visual[:share], text), options.repeats
    )
    width = np.dtype(options.precision).itemsize
    return {
        "points": count,
        "build_s": {"times": build_s, "bands": bands_s},
        "bytes_per_point": {"all stages": len(TIMES) * width},
        "bytes_per_s": 2 * len(TIMES) * width * count / found["floor: a copy"],
        "points_per_s": {name: count / time_s for name, time_s in found.items()},
        "share_of_floor": found["floor: a copy"] / found["all stages"],
    }


def peak_rss_bytes() -> int:
    """Return the most memory that this process has had [B], not what it was started with."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def child(given: dict[str, Any]) -> dict[str, Any]:
    """Write one file, in a process of its own."""
    from costmodel.sweep import run_sweep

    start = time.perf_counter()
    summary = run_sweep(
        given["spec"], given["output"], limit=None, workers=given["workers"],
        scheduler=given.get("scheduler"),
    )  # fmt: skip
    whole_s = time.perf_counter() - start
    return {
        "points": summary.points, "workers": given["workers"], "seconds": whole_s,
        "points_per_s": summary.points / whole_s, "bytes_per_point": summary.bytes / summary.points,
        "peak_rss_bytes": peak_rss_bytes(),
    }  # fmt: skip


def written(options: argparse.Namespace, points: int, **more: Any) -> dict[str, Any]:
    """Return the figures of a file of so many points."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        free = shutil.disk_usage(folder).free
        if free < points * FREE_BYTES_PER_POINT:
            sys.exit(f"{folder}: {free / 1e9:.1f} GB free, not enough for {points:,} points")
        given = {"spec": spec(options, points), "output": f"{folder}/out.parquet", "workers": 1}
        text = json.dumps(given | more)
        done = subprocess.run(
            [sys.executable, __file__, "--child", text], check=True, capture_output=True, text=True
        )
    return dict(json.loads(done.stdout))


def on_dask(options: argparse.Namespace, points: int) -> dict[str, Any]:
    """Return the figures with two workers of a cluster on this machine."""
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0
    ) as cluster:
        found = written(options, points, scheduler=cluster.scheduler_address)
    return found | {"workers": "2, dask"}


def profile(options: argparse.Namespace) -> dict[str, float]:
    """Return where the time goes from spec to file, per point [s]."""
    from costmodel.sweep.executors import computer_of
    from costmodel.sweep.running import prepare_sweep

    start = time.perf_counter()
    prepared = prepare_sweep(spec(options, 1_000_000))
    plan_s = time.perf_counter() - start
    form = prepared.format_of(".parquet")
    job = prepared.job(form)
    computer = computer_of(job)
    tasks = list(prepared.tasks())[:3]
    points = sum(part.points for part, _ in tasks)
    start = time.perf_counter()
    computer.part(*tasks[0])
    build_s = time.perf_counter() - start
    compute_s = seconds(
        lambda: [computer.part(*task, fresh=False) for task in tasks], options.repeats
    )
    columns = computer.part(*tasks[0])
    labels = job.labels(*tasks[0])
    encode_s = seconds(lambda: form.encode(columns, labels), options.repeats)
    data = form.encode(columns, labels).data
    with tempfile.NamedTemporaryFile(dir=options.folder) as file:
        write_s = seconds(lambda: file.write(data), options.repeats)
    here = tasks[0][0].points
    return {
        "plan_s": plan_s, "tables_s": build_s, "compute_s_per_point": compute_s / points,
        "encode_s_per_point": encode_s / here, "write_s_per_point": write_s / here,
    }  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    memory = in_memory(options)
    counts = [n for n in SIZES if n <= options.most]
    files = [written(options, n) for n in counts]
    for n in counts[:2]:
        files.append(written(options, n, workers=2))
        if options.dask:
            files.append(on_dask(options, n))
    alone = [row for row in files if row["workers"] == 1]
    return {
        "points_per_second": memory["points_per_s"]["all stages"],
        "bytes_per_point": alone[-1]["bytes_per_point"],
        "peak_rss_bytes": alone[-1]["peak_rss_bytes"],
        "point": POINT,
        "parquet_points_per_second": max(row["points_per_s"] for row in alone),
        "bands_points_per_second": memory["points_per_s"]["all stages, bands"],
        "share_of_floor": memory["share_of_floor"],
        "model": options.model, "gpu": options.gpu, "compress": options.compress,
        "runtime": options.runtime, "precision": options.precision,
        "in_memory": memory, "files": files, "profile": profile(options),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llava-1.5-7b")
    parser.add_argument("--gpu", default="a100-80gb-sxm")
    parser.add_argument("--compress", default="cluster", help="a method that keeps any number")
    parser.add_argument("--runtime", default="cuda-graph")
    parser.add_argument("--precision", default="float64", choices=["float64", "float32"])
    parser.add_argument("--points", type=int, default=8_000_000, help="in memory")
    parser.add_argument("--most", type=int, default=10_000_000, help="of the files; up to 1e8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dask", action="store_true", help="also on a dask cluster")
    parser.add_argument("--folder", help="where files are written and removed again")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(json.loads(options.child))))
        return
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    memory = found["in_memory"]
    print(f"one point: {found['point']}")
    print(f"{'one thread, in memory':<24}{'points/s':>14}")
    for name, rate in memory["points_per_s"].items():
        print(f"{name:<24}{rate:>14,.0f}")
    print(f"all stages: {memory['share_of_floor']:.2f} of the copy's speed")
    print(f"{'spec to parquet':<14}{'workers':>10}{'points/s':>12}{'B/point':>9}{'peak MB':>9}")
    for row in found["files"]:
        print(
            f"{row['points']:<14,}{row['workers']:>10}{row['points_per_s']:>12,.0f}"
            f"{row['bytes_per_point']:>9.1f}{row['peak_rss_bytes'] / 1e6:>9.0f}"
        )
    for name, value in found["profile"].items():
        print(f"{name:<24}{value:.3g}")


if __name__ == "__main__":
    main()
