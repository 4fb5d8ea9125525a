"""Points per second of the calibrated model, one at a time against looked up in exact tables.

One thread: the variables of BLAS libraries are set before NumPy loads.  The floor is what any
way of looking up must do, one gather from an array of the largest table's size and a copy of
the points, in the same run; memory is that of the whole process.  Figures are reported, never
judged.
"""

# ruff: noqa: E402 - BLAS reads its variables when NumPy loads
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import costmodel
from costmodel.tables.table import Table, tabulate

AXES: dict[str, Any] = {
    "batch": range(1, 65),
    "text_tokens": range(16, 4417),
    "visual_tokens": range(64, 577),
}
CHUNK = 8192
Points = dict[str, npt.NDArray[np.int32]]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least time [s] of `repeats` runs, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_rss_bytes() -> int:
    """Return the most memory the process has had [B]; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def points(count: int) -> Points:
    """Return points drawn evenly from the axes."""
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(values[0], values[-1] + 1, count).astype(np.int32)
        for name, values in AXES.items()
    }


def floor_s(count: int, entries: int, repeats: int) -> float:
    """Return the time of one gather and one copy for each point [s]."""
    rng = np.random.default_rng(1)
    table, where = rng.random(entries), rng.integers(0, entries, count)
    result, copy = np.empty(count), np.empty(count, dtype=np.intp)

    def work() -> None:
        for first in range(0, count, CHUNK):
            rows = slice(first, first + CHUNK)
            np.copyto(copy[rows], where[rows])
            table.take(copy[rows], out=result[rows], mode="clip")

    return seconds(work, repeats)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    case = costmodel.prepare(
        options.model, options.gpu, text_tokens=64, compress=options.compress,
        runtime=options.runtime,
    )  # fmt: skip
    start_rss = peak_rss_bytes()
    at, few = points(options.points), points(options.direct_points)
    drawn_rss = peak_rss_bytes()
    tables: dict[str, Table] = {}
    builds: dict[str, float] = {}
    for dtype in ("float64", "float32"):
        start = time.perf_counter()
        tables[dtype] = tabulate(case, **AXES, dtype=dtype)
        builds[dtype] = time.perf_counter() - start
    wide, narrow = tables["float64"], tables["float32"]
    without = tabulate(case, **AXES, max_entries=0)
    work: list[tuple[str, Points, Callable[[], object]]] = [
        ("direct", few, lambda: without.ttft_s(**few)),
        ("TTFT, float64", at, lambda: wide.ttft_s(**at)),
        ("TTFT, float32", at, lambda: narrow.ttft_s(**at)),
        ("stages", at, lambda: wide.stages(**at)),
    ]
    results = [
        (name, len(given["batch"]), seconds(call, options.repeats)) for name, given, call in work
    ]
    table_bytes = {dtype: table.nbytes for dtype, table in tables.items()}
    times_rss = peak_rss_bytes()
    start = time.perf_counter()
    wide.ttft_band(64, 16, 64)
    builds["bands"] = time.perf_counter() - start
    table_bytes["bands"] = wide.nbytes - table_bytes["float64"]
    banded_s = seconds(lambda: wide.ttft_band(*at.values()), options.repeats)
    results.append(("bands", options.points, banded_s))
    floor = floor_s(options.points, 64 * 4913, options.repeats)
    return {
        "model": options.model, "gpu": options.gpu, "compress": options.compress,
        "runtime": options.runtime, "points": options.points,
        "domain_points": int(np.prod([len(values) for values in AXES.values()])),
        "floor_points_per_s": options.points / floor,
        "build_s": builds,
        "table_bytes": table_bytes,
        "bytes_per_point": {"in": 12, "out": {"float64": 8, "float32": 4}},
        "peak_rss_bytes": {
            "start": start_rss, "with points": drawn_rss, "TTFT and stages": times_rss,
            "with bands": peak_rss_bytes(),
        },
        "rows": [
            {
                "case": name,
                "points_per_s": count / time_s,
                "share_of_floor": (count / time_s) / (options.points / floor),
            }
            for name, count, time_s in results
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llava-1.5-7b")
    parser.add_argument("--gpu", default="a100-80gb-sxm")
    parser.add_argument("--compress", default="cluster:k=64")
    parser.add_argument("--runtime", default="compiled")
    parser.add_argument("--points", type=int, default=4_000_000)
    parser.add_argument("--direct-points", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['domain_points']:,} points in the domain, {found['points']:,} drawn")
    print(f"{'one thread':<18}{'points/s':>14}{'of the floor':>14}")
    print(f"{'floor':<18}{found['floor_points_per_s']:>14,.0f}{1:>14.3f}")
    for row in found["rows"]:
        print(f"{row['case']:<18}{row['points_per_s']:>14,.0f}{row['share_of_floor']:>14.3f}")
    for name, build_s in found["build_s"].items():
        print(f"tables, {name}: {build_s:.1f} s")
    for name, size in found["table_bytes"].items():
        print(f"tables, {name}: {size / 1e6:.1f} MB")
    for name, size in found["peak_rss_bytes"].items():
        print(f"peak memory, {name}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
