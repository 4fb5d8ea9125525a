"""A hardware profile of a CPU from the best that was measured on it.

The cost model describes GPUs, so some fields have no meaning on a CPU; the notes of the profile
say what stands in for them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .files import replace_file
from .machine import Machine
from .store import Store

__all__ = ["best_bandwidth", "best_rates", "cpu_profile", "write_cpu_profile"]

_ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_ACCUMULATE = "fp32"
_LEAST_SHARE_OF_CACHE = 0.25

Rows = Iterable[Mapping[str, Any]]


def best_rates(rows: Rows) -> dict[str, float]:
    """Return the highest rate of matrix products by number format [FLOP/s].

    The fastest sample counts, since the profile's peak is what nothing exceeds.
    """
    best: dict[str, float] = {}
    for row in rows:
        rate = 2.0 * row["m"] * row["n"] * row["k"] / (row["time_us_min"] * 1e-6)
        best[row["dtype"]] = max(rate, best.get(row["dtype"], 0.0))
    return best


def best_bandwidth(rows: Rows) -> tuple[float, bool] | None:
    """Return the highest rate of copies, bytes read and written [B/s].

    Parameters
    ----------
    rows : iterable of mapping
        Rows of ``memory_bound``.

    Returns
    -------
    tuple of float and bool, or None
        The rate, and whether it is of memory: copies that went round more than the cache
        count, and others only where there are none.  None without copies.
    """
    copies = [row for row in rows if row["op"] == "copy"]
    beyond = [row for row in copies if row["rotates_beyond_cache"]]
    if not copies:
        return None
    rates = (
        2.0 * row["rows"] * row["cols"] * _ELEMENT_BYTES[row["dtype"]] / (row["time_us"] * 1e-6)
        for row in beyond or copies
    )
    return max(rates), bool(beyond)


def cpu_profile(
    machine: Machine, gemm: Rows, memory_bound: Rows, date: datetime.date
) -> str | None:
    """Return a profile as YAML, or None where products or copies are missing.

    Parameters
    ----------
    machine : Machine
        The CPU.
    gemm, memory_bound : iterable of mapping
        Rows that were measured on it.
    date : date
        Of the measurement.
    """
    rates, copied = best_rates(gemm), best_bandwidth(memory_bound)
    if not rates or copied is None:
        return None
    bandwidth, beyond = copied
    host = machine.host
    gigabytes = f"{{value: {_number(bandwidth / 1e9)}, unit: GB/s, source: copy}}"
    peaks = "".join(
        f"  - {{engine: vector, dtype: {dtype}, accumulate: {_ACCUMULATE}, "
        f"value: {_number(rate / 1e9)}, unit: GFLOP/s, source: gemm}}\n"
        for dtype, rate in sorted(rates.items(), reverse=True)
    )
    threads = f"{machine.processors} thread{'s' if machine.processors > 1 else ''}"
    clock = host["clock_mhz"] or 1.0
    where = "" if beyond else " They fitted into the cache, so the memory is slower than this."
    return f"""\
name: cpu
title: {_text(f"{host['cpu']}, {threads}")}
aliases: []
vendor: {_text(host["cpu"].split()[0])}
architecture: CPU
chip: {_text(host["cpu"])}
compute_capability: none
multiprocessors: {machine.processors}
boost_clock: {{value: {_number(clock)}, unit: MHz, source: system}}
l2_cache: {{value: {_number(machine.cache_bytes / 2**20)}, unit: MiB, source: system}}
tdp: {{value: 1.0, unit: W, source: placeholder}}
memory:
  kind: DRAM
  capacity: {{value: {_number(machine.memory_bytes / 2**20)}, unit: MiB, source: system}}
  bandwidth: {gigabytes}
interconnect:
  pcie_per_direction: {gigabytes}
peaks:
{peaks.rstrip()}
notes: >-
  A processor, measured with {machine.software}. multiprocessors are the threads used, l2_cache
  is the last-level cache, the link is the memory, tdp is a placeholder.
sources:
  gemm:
    title: measured by costmodel measure on {date}
    url: https://docs.pytorch.org/docs/stable/generated/torch.mm.html
    date: {date}
    note: Fastest sample of all matrix products of the format.
  copy:
    title: measured by costmodel measure on {date}
    url: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.copy_.html
    date: {date}
    note: Fastest median of copies, bytes read and written.{where}
  system:
    title: what the system says, read by costmodel measure on {date}
    url: https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu
    date: {date}
  placeholder:
    title: not known, and used by no time
    url: https://www.kernel.org/doc/html/latest/power/powercap/powercap.html
    date: {date}
"""


def write_cpu_profile(path: Path, machine: Machine, store: Store) -> list[Path]:
    """Write the profile where there is enough to make one; return what was written."""

    def rows(kind: str) -> list[dict[str, Any]]:
        # Rows of other threads or versions are of another machine to a cost model.
        return [row for row in store.rows_there(kind) if row["software"] == machine.software]

    made = cpu_profile(machine, rows("gemm"), rows("memory_bound"), datetime.date.today())
    if made is None:
        return []
    replace_file(path, made.encode())
    return [path]


def _number(value: float) -> str:
    """Return a float as YAML reads it: with a point, and no exponent."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if value >= 1 else f"{value:.6f}"


def _text(value: str) -> str:
    return '"' + value.replace("\\", " ").replace('"', " ") + '"'
