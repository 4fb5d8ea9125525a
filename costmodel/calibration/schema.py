"""The tidy schema of timings: which columns each kind of measurement has, as data.

One row is one measured shape on one device with one software stack.  Times are
in microseconds, because files are; fits convert to seconds once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KINDS", "SPREAD", "Column", "Kind", "Timings"]

ColumnType = Literal["text", "int", "float", "flag"]


@dataclass(frozen=True)
class Column:
    """One column of the tidy schema.

    Attributes
    ----------
    name : str
        Name in files.
    type : {"text", "int", "float", "flag"}
        What a value is; ints are exact and at least `low`.
    unit : str
        Unit of the values, ``"1"`` for counts, empty for text and flags.
    meaning : str
        What it stands for.
    default : object
        Value where a file lacks the column; None makes the column needed.
    low : int
        Smallest valid value of an int.
    key : bool
        Whether it tells measurements apart, unlike times.
    """

    name: str
    type: ColumnType
    unit: str
    meaning: str
    default: str | int | float | bool | None = None
    low: int = 1
    key: bool = True

    @property
    def needed(self) -> bool:
        """Whether a file must have it."""
        return self.default is None


@dataclass(frozen=True)
class Kind:
    """One kind of measurement.

    Attributes
    ----------
    name : str
        Kind of operator it times.
    columns : tuple of Column
        In the order of a tidy frame.
    tell : tuple of str
        Columns that only this kind of file has; empty where no tidy file has it.
    fit : bool
        Whether rows carry shapes, which a fit needs.
    """

    name: str
    columns: tuple[Column, ...]
    tell: tuple[str, ...]
    fit: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(column.name for column in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the columns that tell measurements apart."""
        return tuple(column.name for column in self.columns if column.key)


@dataclass(frozen=True, eq=False)
class Timings:
    """Valid rows of one kind from one file.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    frame : pandas.DataFrame
        Exactly the columns of the kind; ``gpu`` holds names of hardware profiles.  The
        index is the row's number in the file, from 1, header not counted.
    path : Path
        The file.
    sha256 : str
        Its SHA-256, hexadecimal.
    """

    kind: str
    frame: pd.DataFrame
    path: Path
    sha256: str

    def __len__(self) -> int:
        return len(self.frame)


def _text(name: str, meaning: str, default: str | None = None) -> Column:
    return Column(name, "text", "", meaning, default)


def _size(name: str, meaning: str, default: int | None = None, low: int = 1) -> Column:
    return Column(name, "int", "1", meaning, default, low)


def _time(name: str, meaning: str, default: float | None = None) -> Column:
    return Column(name, "float", "us", meaning, default, key=False)


_WHERE = (
    _text("gpu", "device; any alias in files, the profile's name once read"),
    _text("source", "who measured", ""),
    _text("software", "library and version that ran", ""),
)
_DTYPE = _text("dtype", "number format, for example bf16, fp8 or w4a16")
_MODEL = (_text("model", "model the shape comes from", ""), _size("tp", "tensor parallelism", 1))
_NAN = float("nan")
SPREAD = ("mean", "min", "max", "std")
"""Endings of the optional columns ``time_us_mean`` ... that say how runs scatter."""
_TIMES = (
    _time("time_us", "median of one execution"),
    *(_time(f"time_us_{part}", f"{part} over the runs", _NAN) for part in SPREAD),
)
_ATTENTION = (
    _text("kernel", "implementation", ""),
    Column("causal", "flag", "", "whether a query sees only earlier keys"),
    _size("batch", "sequences"),
    _size("q_len", "new tokens of each sequence"),
    _size("kv_len", "all tokens of each sequence, the new ones included"),
    _size("heads", "query heads"),
    _size("kv_heads", "key and value heads"),
    _size("head_dim", "width of a head"),
)


def _kind(name: str, own: Iterable[Column], tell: str, dtype: Column = _DTYPE) -> Kind:
    return Kind(name, (*_WHERE, dtype, *own, *_TIMES), tuple(tell.split()))


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind(
            "gemm",
            (
                _text("op", "layer of the model", "gemm"),
                *_MODEL,
                _size("batch", "products in one call, each of its own operands", 1),
                _size("m", "rows of x in y[m,n] = x[m,k] w[k,n]"),
                _size("n", "columns of w"),
                _size("k", "columns of x"),
            ),
            "m n k",
        ),
        _kind("attention_prefill", _ATTENTION, "q_len kv_len"),
        _kind("attention_encoder", _ATTENTION, "q_len kv_len"),
        _kind("attention_decode", _ATTENTION, "q_len kv_len"),
        _kind(
            "memory_bound",
            (
                _text("op", "for example add, mlp_act, input_layernorm, softmax"),
                *_MODEL,
                Column("gated", "flag", "", "whether the activation multiplies two halves", False),
                _size("rows", "rows of the output"),
                _size("cols", "columns of the output"),
            ),
            "rows cols",
        ),
        _kind(
            "collective",
            (
                _text("op", "for example all_reduce"),
                _text("topology", "how the devices are linked", ""),
                _size("n_gpus", "devices", low=2),
                _size("gpus_per_node", "of them in one node"),
                Column("bytes", "int", "B", "message of one device"),
                _size("rank", "rank that measured, -1 if unknown", -1, low=-1),
            ),
            "n_gpus bytes",
            Column("dtype", "text", "", "number format; bytes count, so it may be empty", ""),
        ),
        _kind(
            "whole_model",
            (
                _text("model", "name of a known model, or a label where config says what it is"),
                _text("config", "its config.json, on one line", ""),
                _text("runtime", "eager, compiled or cuda-graph"),
                _text("attention", "flash, sdpa or eager", "flash"),
                _text("compress", "METHOD:key=value,... as of the command line", ""),
                _text("stage", "ttft, tpot or a stage of an estimate", "ttft"),
                _size("batch", "requests computed together", 1),
                _size("visual_tokens", "visual tokens of a request, uncompressed", low=0),
                _size("text_tokens", "other tokens of the prompt"),
                _size("output_tokens", "tokens generated before", 0, low=0),
                Column("memory_bytes", "float", "B", "peak memory of the device", _NAN, key=False),
            ),
            "visual_tokens text_tokens",
        ),
        _kind(
            "compression",
            (
                _text("method", "compression method, as of the command line"),
                _text("variant", "its implementation", ""),
                _text("runtime", "eager, compiled or cuda-graph", "eager"),
                _size("batch", "images", 1),
                _size("tokens", "visual tokens of each image before"),
                _size("kept", "visual tokens of each image after"),
                _size("width", "elements of a token that goes in"),
                _text("params", "key=value,... of the implementation", ""),
                Column("launches", "int", "1", "operators, -1 if unknown", -1, -1, key=False),
            ),
            "method tokens kept",
        ),
        _kind(
            "launch",
            (
                _text("runtime", "eager, compiled or cuda-graph"),
                _text("op", "launch, start, gap or sync: see HostFit; others: see host_fits"),
                _size("kernels", "kernels that were started together", 1),
            ),
            "runtime op",
            Column("dtype", "text", "", "number format, of no influence", ""),
        ),
        Kind(
            "kernel",
            (
                Column("gpu", "text", "", "device, if the file says", ""),
                *_WHERE[1:],
                _text("name", "kernel"),
                Column("calls", "int", "1", "executions", key=False),
                _time("time_us", "median of one execution, else the mean"),
                _time("total_us", "sum over the executions"),
                Column("bytes", "float", "B", "device memory traffic of all", _NAN, key=False),
            ),
            (),
            fit=False,
        ),
    )
}
"""Every kind of measurement by name."""
