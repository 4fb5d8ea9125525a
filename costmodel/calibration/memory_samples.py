"""Timings of memory-bound kernels and collectives as samples, and how each is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from costmodel.calibration.elementwise_bytes import elementwise_sizes
from costmodel.calibration.fitting import Samples

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BORROWED",
    "COLLECTIVE_MODELS",
    "FIXED",
    "KEYED",
    "collective_samples",
    "memory_samples",
]

# Columns of a row do not matter to kernels that spread elements over all threads.
_BYTES_ONLY = {"oc": 1.0, "ta": 0.0, "tc": 0.0, "lm": 0.0}

FIXED: Mapping[str, Mapping[str, float]] = {
    "rmsnorm": {"ta": 1e-6, "tc": 0.3e-6},
    "layernorm": _BYTES_ONLY,
    "gelu": _BYTES_ONLY,
    "add": _BYTES_ONLY,
    "softmax": _BYTES_ONLY,
    "activation": {"oc": 2.0},
    "rotary": {"lx": 1.0, "lm": 1.0},
    "gather": {"lx": 1.0},
    "copy": _BYTES_ONLY,
}
"""Parameters that are not fitted, by kind.

RMSNorm was measured at one width, which cannot tell a row's fixed time from that of its
columns: two block reductions are taken as 1 us, 1024 columns as 0.3 us, a little less than
fits of activations and rotary embedding give.
"""

BORROWED: Mapping[str, str] = {"softmax": "layernorm", "reduction": "layernorm", "other": "add"}
"""Kinds that were not measured and the one with the same kind of kernel in PyTorch."""

COLLECTIVE_MODELS: Mapping[str, str] = {
    "all_reduce": "ring_all_reduce",
    "custom_all_reduce": "ring_all_reduce",
    "all_gather": "ring_all_gather",
    "reduce_scatter": "ring_reduce_scatter",
    "alltoall": "pairwise_alltoall",
    "send_recv": "link_send_recv",
}
"""Kernel time model of each operation."""

KEYED: Mapping[str, float] = {"an": 0.0, "ec": 1.0, "bn": 0.0}
"""Fixed for fits of one device count, where growth with devices cannot show."""

_LEAST_US = 3.0
_KEY = ["topology", "op", "n_gpus", "gpus_per_node"]


def memory_samples(frame: pd.DataFrame) -> dict[str, Samples]:
    """Return the samples of each kind in the timings of one stack.

    Parameters
    ----------
    frame : pandas.DataFrame
        Tidy memory-bound timings of one GPU, source and software.

    Returns
    -------
    dict of str to Samples
        Rows of at least 3 us, which are rounded by a sixth at most.  Groups are model,
        width and parallelism; where there is only one, half octaves of rows.
    """
    import pandas as pd

    moved = elementwise_sizes(frame)
    names = frame["model"].astype(str) + "/" + frame["cols"].astype(str)
    names = names + "/" + frame["tp"].astype(str)
    moved = moved[frame["time_us"] >= _LEAST_US]
    found = {}
    for kind, rows in moved.groupby("kind"):
        groups = pd.factorize(names[rows.index])[0]
        if len(set(groups)) < 2:
            groups = pd.factorize((2 * np.log2(rows["rows"])).round())[0]
        shapes = {
            name: rows[name].to_numpy(dtype=np.float64)
            for name in ("read_bytes", "write_bytes", "rows", "cols")
        }
        times = rows["time_s"].to_numpy(dtype=np.float64)
        found[str(kind)] = Samples(shapes, times, groups.astype(np.int64))
    return found


def collective_samples(
    frame: pd.DataFrame,
) -> Iterator[tuple[str, str, Mapping[str, float], Samples]]:
    """Yield what is fitted together in the timings of one stack.

    Within a node all device counts of an operation and topology are one fit;
    across nodes each (devices, devices per node) is its own.

    Parameters
    ----------
    frame : pandas.DataFrame
        Tidy collective timings of one GPU, source and software.

    Yields
    ------
    label : str
        Topology, and ``n/per node`` where that is fitted by itself.
    op : str
        Operation.
    fixed : mapping
        Parameters that are not fitted.
    samples : Samples
        One row per message size and device count, the median of repeated runs; groups are
        half octaves of size and the device count.
    """
    inside = frame["n_gpus"] == frame["gpus_per_node"]
    for (topology, op), rows in frame[inside].groupby(["topology", "op"], sort=True):
        fixed = KEYED if rows["n_gpus"].nunique() == 1 else {}
        yield str(topology), str(op), fixed, _collective(rows)
    for (topology, op, devices, per_node), rows in frame[~inside].groupby(_KEY, sort=True):
        yield f"{topology} {devices}/{per_node}", str(op), KEYED, _collective(rows)


def _collective(rows: pd.DataFrame) -> Samples:
    import pandas as pd

    # Repeated runs of one shape differ by up to a half where eight GPUs share a PCIe host.
    shapes = rows.groupby(["bytes", "n_gpus"], sort=True)["time_us"].median().reset_index()
    size = shapes["bytes"].to_numpy(dtype=np.float64)
    devices = shapes["n_gpus"].to_numpy(dtype=np.float64)
    octave = pd.Series((2 * np.log2(size)).round().astype(int).astype(str))
    groups = pd.factorize(octave + "/" + pd.Series(devices.astype(int).astype(str)))[0]
    times = shapes["time_us"].to_numpy(dtype=np.float64) * 1e-6
    return Samples({"bytes": size, "devices": devices}, times, groups.astype(np.int64))
