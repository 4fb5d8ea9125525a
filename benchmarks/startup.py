"""Time the command from a cold start, against the imports it cannot do without.

Every run is a fresh process.  The floor is `import numpy, sympy`; a ratio near 1 means that the
command adds little of its own.  Times are reported, never judged.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("costmodel"))
ESTIMATE = "estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64 --compress cluster:k=64"
CASES: dict[str, list[str]] = {
    "python": [sys.executable, "-c", "pass"],
    "import numpy, sympy": [sys.executable, "-c", "import numpy, sympy"],
    "import costmodel": [sys.executable, "-c", "import costmodel"],
    "costmodel --help": [COMMAND, "--help"],
    "costmodel estimate": [COMMAND, *ESTIMATE.split()],
}
FLOOR = "import numpy, sympy"


def seconds(command: list[str]) -> float:
    """Return the wall time of one run of `command` in a fresh process."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    elapsed_s = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"failed with {done.returncode}: {' '.join(command)}")
    return elapsed_s


def measure(repeats: int) -> dict[str, list[float]]:
    """Return the times [s] of each case; the first, unrecorded run of each warms the disk cache.

    The cases take turns, so that a slow moment of the machine does not fall on one of them.
    """
    for command in CASES.values():
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(repeats):
        for name, command in CASES.items():
            times[name].append(seconds(command))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each case (default: 7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()

    times = measure(max(1, options.repeats))
    floor_s = statistics.median(times[FLOOR])
    rows = [
        {
            "case": name,
            "median_s": statistics.median(runs),
            "min_s": min(runs),
            "ratio_to_floor": statistics.median(runs) / floor_s,
        }
        for name, runs in times.items()
    ]
    if options.json:
        print(json.dumps({"repeats": options.repeats, "floor": FLOOR, "rows": rows}, indent=2))
        return
    print(f"{'fresh process':<24}{'median s':>10}{'min s':>10}{'x floor':>10}")
    for row in rows:
        print(
            f"{row['case']:<24}{row['median_s']:>10.3f}{row['min_s']:>10.3f}"
            f"{row['ratio_to_floor']:>10.2f}"
        )


if __name__ == "__main__":
    main()
