"""Columns of a sweep's result: names with units, and what each is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.errors import InputError, UnknownNameError
from costmodel.results import STAGES
from costmodel.tables.quantities import BANDS

__all__ = ["GROUPS", "LABELS", "OUTPUTS", "Output", "resolve_outputs"]

LABELS = (
    "model", "gpu", "method", "image", "dtype", "weights_dtype", "kv_dtype", "runtime",
    "attention", "time_model", "calibration",
)  # fmt: skip
"""Columns of text."""


@dataclass(frozen=True)
class Output:
    """A column that is computed.

    Attributes
    ----------
    name : str
        With its unit.
    quantity : str
        Name in `costmodel.tables.quantities`, or ``fits`` and ``retention``.
    meaning : str
        For people.
    """

    name: str
    quantity: str
    meaning: str


_ALL = (
    Output("ttft_s", "ttft", "time to the first token, the sum of the stages and the host's [s]"),
    *(Output(f"{stage}_s", stage, f"GPU time of the stage {stage} [s]") for stage in STAGES),
    Output("host_overhead_s", "host_overhead", "time the GPU waits for the host [s]"),
    Output("ttft_low_s", BANDS[0], "lower bound of the TTFT, any lab and software [s]"),
    Output("ttft_high_s", BANDS[1], "upper bound of the TTFT [s]"),
    Output("tpot_s", "tpot", "mean time per output token [s]"),
    *(Output(f"{stage}_flop", f"flops_{stage}", f"FLOPs of the stage {stage}") for stage in STAGES),
    Output("flops_total_flop", "flops_total", "FLOPs of the prefill: products and convolutions"),
    Output("weights_bytes", "weights", "weights on one device [B]"),
    Output("kv_cache_bytes", "kv_cache", "KV cache on one device [B]"),
    Output("activations_peak_bytes", "activations_peak", "most activations at once [B]"),
    Output("memory_total_bytes", "memory_total", "sum of the three on one device [B]"),
    Output("fits", "fits", "whether that is at most the memory of the device"),
    Output("retention", "retention", "visual tokens kept over those the images give"),
)
OUTPUTS = {output.name: output for output in _ALL}
"""By name of the column."""

_TIMES = ("ttft_s", *(f"{stage}_s" for stage in STAGES), "host_overhead_s")
_MEMORY = (
    "weights_bytes",
    "kv_cache_bytes",
    "activations_peak_bytes",
    "memory_total_bytes",
    "fits",
)
GROUPS = {
    "times": _TIMES,
    "bands": ("ttft_low_s", "ttft_high_s"),
    "flops": (*(f"{stage}_flop" for stage in STAGES), "flops_total_flop"),
    "memory": _MEMORY,
    "all": tuple(OUTPUTS),
}
"""Names that stand for several columns."""

DEFAULT = (*_TIMES, "flops_total_flop", "kv_cache_bytes", "memory_total_bytes", "fits")


def resolve_outputs(given: Sequence[str], *, bands: bool, decodes: bool) -> tuple[str, ...]:
    """Return the names of the columns, in one order whatever the order given.

    Parameters
    ----------
    given : sequence of str
        Names of columns and of `GROUPS`; empty for the default.
    bands : bool
        Whether to add the bounds of the TTFT.
    decodes : bool
        Whether output tokens are generated: the default then has ``tpot_s``.

    Raises
    ------
    UnknownNameError
        If a name is neither.

    Examples
    --------
    >>> resolve_outputs(["fits", "ttft_s"], bands=True, decodes=False)
    ('ttft_s', 'ttft_low_s', 'ttft_high_s', 'fits')
    """
    wanted: set[str] = set() if given else set(DEFAULT) | ({"tpot_s"} if decodes else set())
    for name in given:
        if name in GROUPS:
            wanted |= set(GROUPS[name])
        elif name in OUTPUTS:
            wanted.add(name)
        else:
            raise UnknownNameError("output", str(name), [*GROUPS, *OUTPUTS])
    if bands:
        wanted |= set(GROUPS["bands"])
    if len(wanted & set(GROUPS["bands"])) == 1:
        wanted |= set(GROUPS["bands"])
    if not wanted:
        raise InputError("outputs", list(given), "at least one column")
    return tuple(name for name in OUTPUTS if name in wanted)
