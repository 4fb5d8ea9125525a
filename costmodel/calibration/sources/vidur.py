"""Profiling tables of Vidur [1]_: ``mlp.csv``, ``attention.csv`` and the network's tables.

Columns ``time_stats.<operator>.<statistic>`` are in milliseconds.  A row of
``mlp.csv`` times every operator of a layer, whose shapes follow from the model's
sizes and the tensor parallelism.  Folders name the device and the model::

    data/profiling/compute/<gpu>/<organisation>/<model>/mlp.csv
    data/profiling/network/<gpu>_<links>/all_reduce.csv

References
----------
.. [1] A. Agrawal et al., "Vidur: A Large-Scale Simulation Framework for LLM
   Inference", MLSys 2024, arXiv:2405.05465; https://github.com/microsoft/vidur,
   ``vidur/profiling``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.calibration.attention_kinds import attention_parts
from costmodel.calibration.files import read_head
from costmodel.calibration.gpus import gpu_below
from costmodel.calibration.reading import Head, Hints, Part, Reading
from costmodel.calibration.report import Tally
from costmodel.calibration.schema import SPREAD
from costmodel.calibration.tables import read_table
from costmodel.calibration.vidur_shapes import GEMMS, MEMORY_BOUND, kv_heads, per_worker
from costmodel.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "TITLE", "matches", "read"]

TITLE = "Vidur's mlp.csv, attention.csv and network tables"
SUFFIXES = (".csv",)

_US_PER_MS = 1e3
_DTYPE = "fp16"
"""Its profilers convert every model to float16 (``mlp_wrapper.py``) and default to it."""

_COMPUTE, _NETWORK = "compute", "network"

_MLP_SIZES = (
    "n_head", "n_kv_head", "n_embd", "n_expanded_embd", "use_gated_mlp", "num_tokens",
    "num_tensor_parallel_workers",
)  # fmt: skip
_ATTENTION_SIZES = (
    "n_embd", "n_kv_head", "num_tensor_parallel_workers", "batch_size", "prefill_chunk_size",
    "kv_cache_size", "is_prefill",
)  # fmt: skip
_NETWORK_SIZES = ("collective", "num_workers", "size", "devices_per_node", "rank")
_QUERY_HEADS = ("n_q_head", "n_head")
_MIXED = "is_mixed_batch"


def _operators(columns: tuple[str, ...]) -> list[str]:
    """Return the operators whose median is a column."""
    parts = [name.split(".") for name in columns]
    return [part[1] for part in parts if len(part) == 3 and (part[0], part[2]) == _MEDIAN]


_MEDIAN = ("time_stats", "median")


def _stats(frame: pd.DataFrame, operator: str) -> dict[str, Any]:
    """Return the tidy times [us] of one operator."""
    import pandas as pd

    names = {"time_us": "median"} | {f"time_us_{part}": part for part in SPREAD}
    columns = {tidy: f"time_stats.{operator}.{part}" for tidy, part in names.items()}
    return {
        tidy: pd.to_numeric(frame[name], errors="coerce") * _US_PER_MS
        for tidy, name in columns.items()
        if name in frame
    }


def _stat_columns(operators: list[str]) -> list[str]:
    return [f"time_stats.{name}.{part}" for name in operators for part in ("median", *SPREAD)]


def _frame(path: Path, hints: Hints, folder: str, columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    found = {
        "gpu": hints.gpu or gpu_below(path, folder),
        "source": hints.source or "vidur",
        "software": hints.software or "sarathi-vllm/torch",
        "dtype": hints.dtype or _DTYPE,
    }
    frame = pd.DataFrame(dict(columns)).assign(**found)
    return frame if found["gpu"] else frame.drop(columns="gpu")


def _numbers(frame: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return sizes as numbers; words of truth as 1 and 0."""
    import pandas as pd

    truth = {"true": "1", "false": "0"}
    texts = {name: frame[name].astype(str).str.strip().str.lower() for name in columns}
    return pd.DataFrame(
        {name: pd.to_numeric(text.replace(truth), errors="coerce") for name, text in texts.items()}
    )


def _mlp(path: Path, head: Head, hints: Hints, tally: Tally) -> list[Part]:
    operators = _operators(head.columns)
    frame = read_table(path, [*_MLP_SIZES, *_stat_columns(operators)], tally)
    sizes = _numbers(frame, _MLP_SIZES)
    common = {
        "model": path.parent.name if gpu_below(path, _COMPUTE) else "",
        "tp": sizes["num_tensor_parallel_workers"],
    }
    parts: dict[str, list[pd.DataFrame]] = {"gemm": [], "memory_bound": []}
    for operator in operators:
        stats = _stats(frame, operator)
        # Models without an operator, such as a second norm, have an empty column for it.
        if stats["time_us"].isna().all():
            tally.add(f"time_stats.{operator}: no value in the whole file", [1], dropped=False)
        elif operator in GEMMS:
            n, k = (size(sizes) for size in GEMMS[operator])
            shape = {"op": operator, **common, "m": sizes["num_tokens"], "n": n, "k": k}
            parts["gemm"].append(_frame(path, hints, _COMPUTE, shape | stats))
        elif operator in MEMORY_BOUND:
            shape = {"op": operator, **common, "gated": sizes["use_gated_mlp"]}
            shape |= {"rows": sizes["num_tokens"], "cols": MEMORY_BOUND[operator](sizes)}
            parts["memory_bound"].append(_frame(path, hints, _COMPUTE, shape | stats))
        else:
            reason = f"time_stats.{operator}: an operator of unknown shape"
            tally.add(reason, frame.index.to_numpy())
    import pandas as pd

    return [Part(kind, pd.concat(frames)) for kind, frames in parts.items() if frames]


def _attention(path: Path, head: Head, hints: Hints, tally: Tally) -> list[Part]:
    import pandas as pd

    heads = next(name for name in _QUERY_HEADS if name in head.columns)
    operators = ["attn_prefill", "attn_decode"]
    extra = ["attention_backend", _MIXED]
    frame = read_table(path, [heads, *extra, *_ATTENTION_SIZES, *_stat_columns(operators)], tally)
    if _MIXED in frame:
        mixed = frame[_MIXED].astype(str).str.lower().isin(["true", "1"]).to_numpy(dtype=bool)
        reason = f"{_MIXED}: sequences of several lengths in one row"
        tally.add(reason, frame.index.to_numpy()[mixed])
        frame = frame[~mixed]
    sizes = _numbers(frame, (heads, *_ATTENTION_SIZES)).rename(columns={heads: "n_head"})
    prefill = sizes["is_prefill"] == 1
    new = sizes["prefill_chunk_size"].where(prefill, 1)
    backend = frame.get("attention_backend")
    columns = {
        "kernel": "" if backend is None else backend.astype(str).str.split(".").str[-1].str.lower(),
        "causal": True,
        "batch": sizes["batch_size"],
        "q_len": new,
        "kv_len": sizes["kv_cache_size"] + new,
        "heads": per_worker(sizes["n_head"], sizes),
        "kv_heads": per_worker(kv_heads(sizes), sizes),
        "head_dim": sizes["n_embd"] / sizes["n_head"],
    }
    found = [
        _frame(
            path,
            hints,
            _COMPUTE,
            {
                name: value if isinstance(value, str | bool) else value[rows]
                for name, value in (columns | _stats(frame, operator)).items()
            },
        )
        for operator, rows in zip(operators, (prefill, ~prefill), strict=True)
        if rows.any()
    ]
    return attention_parts(pd.concat(found)) if found else []


def _network(path: Path, head: Head, hints: Hints, tally: Tally) -> list[Part]:
    operators = _operators(head.columns)
    frame = read_table(path, [*_NETWORK_SIZES, *_stat_columns(operators)], tally)
    if len(operators) != 1:
        raise SpecError(f"{path}: expected the times of one collective, found {operators}")
    columns = {
        "op": frame["collective"],
        "topology": path.parent.name if gpu_below(path, _NETWORK) else "",
        "n_gpus": frame["num_workers"],
        "gpus_per_node": frame["devices_per_node"],
        "bytes": frame["size"],
        "rank": frame["rank"],
    }
    software = hints.software or "torch.distributed NCCL"
    found = _frame(path, hints, _NETWORK, columns | _stats(frame, operators[0]))
    return [Part("collective", found.assign(software=software, dtype=hints.dtype or ""))]


Reader = Callable[[Path, Head, Hints, Tally], list[Part]]

_TABLES: tuple[tuple[tuple[str, ...], tuple[str, ...], Reader], ...] = (
    (_MLP_SIZES, tuple(GEMMS), _mlp),
    (_ATTENTION_SIZES, ("attn_prefill", "attn_decode"), _attention),
    (_NETWORK_SIZES, (), _network),
)
"""Columns of sizes, operators of which one must be timed, and reader of each table."""


def _reader(head: Head) -> Reader | None:
    have, operators = set(head.columns), set(_operators(head.columns))
    for sizes, some, reader in _TABLES:
        if have.issuperset(sizes) and operators and (not some or operators.intersection(some)):
            return reader
    return None


def matches(path: Path, head: Head) -> bool:
    """Return whether the table has Vidur's sizes and ``time_stats`` columns."""
    return _reader(head) is not None


def read(path: Path, hints: Hints) -> Reading:
    """Return the rows of one table; a row of ``mlp.csv`` becomes one for each operator.

    Raises
    ------
    SpecError
        If the file is none of the tables.
    """
    head, tally = read_head(path), Tally(path)
    reader = _reader(head)
    if reader is None:
        raise SpecError(f"{path}: is none of Vidur's tables")
    return Reading(reader(path, head, hints, tally), tally.problems())
