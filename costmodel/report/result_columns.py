"""Columns of results: what they mean, and the unit in which a figure shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.charts import Axis
from costmodel.errors import InputError
from costmodel.results import STAGES, Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "STAGE_COLUMNS",
    "axis_of",
    "baseline",
    "family",
    "frame_of",
    "is_value",
    "scaled",
    "short_name",
]

STAGE_COLUMNS = {
    "vision_encoder_s": "vision encoder",
    "projector_s": "projector",
    "compression_s": "compression",
    "llm_prefill_s": "language model",
    "lm_head_s": "output head",
    "host_overhead_s": "waiting for the host",
}
"""Stages of a prefill in order, which sum to ``ttft_s``."""

_TITLES = {
    **STAGE_COLUMNS,
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "ttft_low_s": "time to first token, lower bound",
    "ttft_high_s": "time to first token, upper bound",
    "flops_total_flop": "work of the prefill",
    "kv_cache_bytes": "KV cache",
    "memory_total_bytes": "memory",
    "visual_tokens_kept": "visual tokens in the language model",
    "text_tokens": "text tokens",
    "batch": "requests computed together",
    "tp": "tensor-parallel GPUs",
}
_UNITS = {"_s": ("ms", 1e3), "_bytes": ("GB", 1e-9), "_flop": ("TFLOP", 1e-12), "_pct": ("%", 1.0)}


_COUNTS = ("k", "kept", "budget")
_OTHER_VALUES = ("fits", "retention", "visual_tokens_asked")
"""Results without a unit, and a setting that another one follows."""


def is_value(column: str) -> bool:
    """Return whether a column holds results rather than settings, as its name tells.

    Examples
    --------
    >>> is_value("ttft_s"), is_value("batch")
    (True, False)
    """
    return column.endswith(tuple(_UNITS)) or column in _OTHER_VALUES


def axis_of(column: str, *, log: bool = False) -> Axis:
    """Return the axis that shows a column.

    Examples
    --------
    >>> axis_of("ttft_s").label, axis_of("decode_energy_j").label
    ('time to first token [ms]', 'decode energy j')
    """
    unit, _ = _unit(column)
    stem = column[: -len(_suffix(column))] if _suffix(column) else column
    return Axis(_TITLES.get(column, stem.replace("_", " ")), unit, log=log)


def scaled(frame: pd.DataFrame, column: str) -> Any:
    """Return a column in the unit of its axis."""
    return frame[column].astype("float64") * _unit(column)[1]


def family(label: object) -> str:
    """Return a method with its parameters but the number of tokens that it keeps.

    Examples
    --------
    >>> family("cluster:k=64,impl=fused"), family("cluster:k=64"), family("none")
    ('cluster:impl=fused', 'cluster', 'none')
    """
    name, _, text = str(label).partition(":")
    kept = [part for part in text.split(",") if part and part.split("=")[0] not in _COUNTS]
    return f"{name}:{','.join(kept)}" if kept else name


def short_name(label: object) -> str:
    """Return the method of a label, without parameters.

    Examples
    --------
    >>> short_name("cluster:k=64,impl=fused")
    'cluster'
    """
    return str(label).partition(":")[0]


def _suffix(column: str) -> str:
    return next((suffix for suffix in _UNITS if column.endswith(suffix)), "")


def _unit(column: str) -> tuple[str, float]:
    return _UNITS.get(_suffix(column), ("", 1.0))


def baseline(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the row without compression, which savings are against.

    Raises
    ------
    InputError
        If there is no row of the method ``none``.
    """
    plain = frame[frame["method"].map(short_name) == "none"]
    if plain.empty:
        known = ", ".join(sorted(set(frame["method"].map(short_name))))
        raise InputError("method", known, "a row of the method none, which savings are against")
    most = int(plain["visual_tokens_kept"].to_numpy().argmax())
    return {str(name): value for name, value in plain.iloc[most].items()}


def frame_of(results: list[tuple[str, Estimate]]) -> pd.DataFrame:
    """Return estimates as rows with the columns of a sweep.

    Parameters
    ----------
    results : list of (str, Estimate)
        Method with its parameters, and its estimate.

    Returns
    -------
    pandas.DataFrame
        ``visual_tokens_kept`` is the mean over the layers for methods that drop tokens inside.
    """
    import pandas as pd

    return pd.DataFrame([_row(label, result) for label, result in results])


def _row(label: str, result: Estimate) -> dict[str, Any]:
    inputs, times = result.inputs, result.time_s
    band = result.interval_s["ttft"]["any_stack"] or (float("nan"), float("nan"))
    return {
        "model": inputs["model"],
        "gpu": inputs["gpu"],
        "method": label,
        "dtype": inputs["dtype"],
        "runtime": inputs["runtime"],
        "tp": inputs["tp"],
        "batch": inputs["batch"],
        "text_tokens": result.tokens["text"],
        "visual_tokens_kept": result.tokens["visual_equivalent"],
        "ttft_s": times["ttft"],
        **{f"{stage}_s": times[stage] for stage in (*STAGES, "host_overhead")},
        "tpot_s": times["tpot"],
        "ttft_low_s": band[0],
        "ttft_high_s": band[1],
        "flops_total_flop": result.flops["total"],
        "kv_cache_bytes": result.memory_bytes["kv_cache"],
        "memory_total_bytes": result.memory_bytes["total"],
    }
