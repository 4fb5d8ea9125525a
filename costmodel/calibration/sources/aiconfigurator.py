"""Performance tables of AIConfigurator [1]_, parquet or (older) text with commas.

Times are in milliseconds; messages of collectives are counted in elements.  The
file's name says which table it is, and its folders which software::

    systems/data/<system>/<framework>/<version>/gemm_perf.parquet

Left out, and counted: attention with a sliding window, with several beams, or with a KV cache
of another format than the arithmetic, for which the tidy schema has no column.

References
----------
.. [1] https://github.com/ai-dynamo/aiconfigurator, ``src/aiconfigurator/systems/data``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.attention_kinds import attention_parts
from costmodel.calibration.dtypes import DTYPES, dtype_name
from costmodel.calibration.files import read_head
from costmodel.calibration.gpus import gpu_below
from costmodel.calibration.reading import Head, Hints, Part, Reading
from costmodel.calibration.report import Tally
from costmodel.calibration.tables import read_table
from costmodel.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "TITLE", "matches", "read"]

TITLE = "AIConfigurator's *_perf tables, parquet or text"
SUFFIXES = (".parquet", ".txt", ".csv")

_US_PER_MS = 1e3
_DATA = "data"
_COMMON = ("framework", "version", "device", "op_name", "kernel_source", "backend")
_ATTENTION = ("batch_size", "isl", "num_heads", "head_dim", "latency")
_ATTENTION_EXTRA = (
    "attn_dtype", "num_key_value_heads", "kv_cache_dtype", "step", "window_size", "beam_width",
)  # fmt: skip
_COLLECTIVE = ("num_gpus", "message_size", "latency")
_MESSAGE_DTYPES = ("nccl_dtype", "allreduce_dtype", "dtype")


def _number(frame: pd.DataFrame, name: str, missing: float = np.nan) -> pd.Series[Any]:
    import pandas as pd

    if name not in frame:
        return pd.Series(missing, index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce")


def _words(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    import pandas as pd

    if name not in frame:
        return pd.Series("", index=frame.index, dtype="str")
    return frame[name].astype("str").where(frame[name].notna(), "")


def _gemm(frame: pd.DataFrame, tally: Tally) -> list[Part]:
    return [Part("gemm", frame.assign(dtype=_words(frame, "gemm_dtype"), op="gemm"))]


def _sift(frame: pd.DataFrame, tally: Tally) -> pd.DataFrame:
    """Leave out attention that the tidy schema has no columns for."""
    own, cache = (_words(frame, name).map(dtype_name) for name in ("attn_dtype", "kv_cache_dtype"))
    reasons = {
        "window_size: a sliding window, which tidy attention has no column for": (
            _number(frame, "window_size", 0) > 0
        ),
        "beam_width: several beams, which tidy attention has no column for": (
            _number(frame, "beam_width", 1) > 1
        ),
        "kv_cache_dtype: other than attn_dtype, which tidy attention has no column for": (
            (cache != "") & (own != "") & (cache != own)
        ),
    }
    keep = np.ones(len(frame), dtype=bool)
    for reason, found in reasons.items():
        bad = found.to_numpy(dtype=bool) & keep
        tally.add(reason, frame.index.to_numpy()[bad])
        keep &= ~bad
    return frame[keep]


def _attention(frame: pd.DataFrame, *, causal: bool, decode: bool) -> list[Part]:
    heads, kv_heads = _number(frame, "num_heads"), _number(frame, "num_key_value_heads", 0)
    isl, step = _number(frame, "isl"), _number(frame, "step", 0).fillna(0)
    return attention_parts(
        frame.assign(
            dtype=_words(frame, "attn_dtype"),
            kernel=_words(frame, "kernel_source"),
            causal=causal,
            batch=frame["batch_size"],
            q_len=1 if decode else isl,
            kv_len=isl + step,
            heads=heads,
            kv_heads=kv_heads.where(kv_heads != 0, heads),
        )
    )


def _context(frame: pd.DataFrame, tally: Tally) -> list[Part]:
    return _attention(_sift(frame, tally), causal=True, decode=False)


def _encoder(frame: pd.DataFrame, tally: Tally) -> list[Part]:
    return _attention(_sift(frame, tally), causal=False, decode=False)


def _generation(frame: pd.DataFrame, tally: Tally) -> list[Part]:
    return _attention(_sift(frame, tally), causal=True, decode=True)


def _collective(frame: pd.DataFrame, tally: Tally, op: str | None = None) -> list[Part]:
    name = next((name for name in _MESSAGE_DTYPES if name in frame), "dtype")
    dtypes = _words(frame, name).map(dtype_name)
    unknown = ~dtypes.isin(list(DTYPES)).to_numpy(dtype=bool)
    reason = f"{name}: unknown format, and messages are counted in elements of it"
    tally.add(reason, frame.index.to_numpy()[unknown])
    frame, dtypes = frame[~unknown], dtypes[~unknown]
    sizes = dtypes.map(lambda name: DTYPES[name].activation_bytes)
    backend = _words(frame, "backend")
    columns = {
        "op": op or frame["op_name"],
        "dtype": dtypes,
        "topology": "single-node",
        "n_gpus": frame["num_gpus"],
        "gpus_per_node": frame["num_gpus"],
        "bytes": _number(frame, "message_size") * sizes,
        "software": (frame["software"] + " " + backend).str.strip(),
    }
    return [Part("collective", frame.assign(**columns))]


def _custom_allreduce(frame: pd.DataFrame, tally: Tally) -> list[Part]:
    return _collective(frame, tally, "custom_all_reduce")


@dataclass(frozen=True)
class _Table:
    stem: str
    needed: tuple[str, ...]
    extra: tuple[str, ...]
    parts: Callable[[pd.DataFrame, Tally], list[Part]]


_TABLES = (
    _Table("gemm_perf", ("gemm_dtype", "m", "n", "k", "latency"), (), _gemm),
    _Table("context_attention_perf", _ATTENTION, _ATTENTION_EXTRA, _context),
    _Table("generation_attention_perf", (*_ATTENTION, "step"), _ATTENTION_EXTRA, _generation),
    _Table("encoder_attention_perf", _ATTENTION, _ATTENTION_EXTRA, _encoder),
    _Table("custom_allreduce_perf", _COLLECTIVE, _MESSAGE_DTYPES, _custom_allreduce),
    _Table("nccl_perf", ("op_name", *_COLLECTIVE), _MESSAGE_DTYPES, _collective),
)


def _table(path: Path, head: Head) -> _Table | None:
    have = set(head.columns)
    return next((t for t in _TABLES if t.stem in path.name and have.issuperset(t.needed)), None)


def matches(path: Path, head: Head) -> bool:
    """Return whether name and columns are those of one table."""
    return _table(path, head) is not None


def read(path: Path, hints: Hints) -> Reading:
    """Return the rows of one table.

    Raises
    ------
    SpecError
        If the file is none of the tables.
    """
    table, tally = _table(path, read_head(path)), Tally(path)
    if table is None:
        raise SpecError(f"{path}: is none of AIConfigurator's tables")
    frame = read_table(path, {*_COMMON, *table.needed, *table.extra}, tally)
    frame = frame.assign(
        time_us=_number(frame, "latency") * _US_PER_MS,
        source=hints.source or "aiconfigurator",
        software=hints.software or _software(path, frame),
    )
    gpu = hints.gpu or gpu_below(path, _DATA)
    if "device" in frame:
        frame = frame.rename(columns={"device": "gpu"})
    elif gpu:
        frame = frame.assign(gpu=gpu)
    return Reading(table.parts(frame, tally), tally.problems())


def _software(path: Path, frame: pd.DataFrame) -> Any:
    """Framework and version by the folders, which name NCCL's own, else by the columns."""
    if gpu_below(path, _DATA):
        return "/".join(path.parts[-3:-1])
    return (_words(frame, "framework").str.lower() + "/" + _words(frame, "version")).str.strip("/")
