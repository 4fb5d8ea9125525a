"""The result of an estimate: frozen, SI units, one row per operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from costmodel.ops import Op

__all__ = ["STAGES", "Estimate", "Failure", "OpRow", "stage_of"]

STAGES = ("vision_encoder", "projector", "compression", "llm_prefill", "lm_head")
"""Stages of a prefill, in order; they sum to the total."""


def stage_of(op: Op) -> str:
    """Return the stage of a prefill that an operator counts in."""
    return "llm_prefill" if op.stage == "llm" else op.stage


@dataclass(frozen=True)
class OpRow:
    """One operator of the result; totals over its repeats.

    Attributes
    ----------
    name, stage, kind, part : str
        Which operator.
    counted : bool
        Whether its FLOPs are in the stage totals (matrix products and convolutions).
    repeat, launches, host_syncs : float
        Executions, kernels started and host waits per pass.
    shape : dict of str to float
        Sizes of one execution.
    flops : float
        [FLOP].
    bytes : dict of str to float
        By kind [B].
    time_s : float
        [s].
    bound_by : str
        compute, memory, link, host or launch.
    provenance : str
        What the time rests on.
    note : str
        A remark.
    op : Op
        The symbolic operator.
    """

    name: str
    stage: str
    kind: str
    part: str
    counted: bool
    repeat: float
    launches: float
    host_syncs: float
    shape: dict[str, float]
    flops: float
    bytes: dict[str, float]
    time_s: float
    bound_by: str
    provenance: str
    note: str
    op: Op = field(repr=False, compare=False)

    @property
    def formula(self) -> dict[str, str]:
        """FLOPs and bytes of one execution as expressions."""
        return {"flops": str(self.op.flops), "bytes": str(self.op.traffic.total)}


@dataclass(frozen=True)
class Estimate:
    """What one request batch costs; SI units throughout.

    Attributes
    ----------
    inputs : dict
        The resolved question.
    tokens : dict
        Visual tokens in and kept, text, prefill, per request.
    params : dict
        Parameters by module, whole model.
    flops, bytes_moved : dict
        By stage of the prefill, one device, all requests of the batch.
    memory_bytes : dict
        On one device.
    time_s : dict
        By stage, TTFT, and time per output token.
    interval_s : dict
        Bands of TTFT, its stages and TPOT; null where the time model has none.
    ops, ops_decode : tuple of OpRow
        Operators of prefill, and of one decode step.
    provenance : dict
        Time model, sources, versions.
    notes : tuple of str
        Assumptions and warnings, for people.
    host_s : dict
        Exposed host time of each stage of the prefill with cheap, usual and dear launches [s];
        the second numbers sum to ``host_overhead`` of `time_s`.
    savings_interval : dict
        Bands of the ratios ``ttft_s_ratio`` and ``tpot_s_ratio`` of `savings`, by kind of band;
        empty for a baseline and where the time model has none.
    baseline : Estimate, optional
        The same without compression; None for a baseline itself.
    convention : dict, optional
        The same under another counting convention, where one was asked for; see
        `costmodel.conventions.applying.convention_section`.
    """

    inputs: dict[str, Any]
    tokens: dict[str, Any]
    params: dict[str, float]
    flops: dict[str, float]
    bytes_moved: dict[str, float]
    memory_bytes: dict[str, Any]
    time_s: dict[str, float]
    interval_s: dict[str, Any]
    provenance: dict[str, Any]
    notes: tuple[str, ...]
    ops: tuple[OpRow, ...] = field(repr=False)
    ops_decode: tuple[OpRow, ...] = field(repr=False)
    host_s: dict[str, list[float]] = field(default_factory=dict)
    savings_interval: dict[str, Any] = field(default_factory=dict)
    baseline: Estimate | None = field(default=None, repr=False)
    convention: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def savings(self) -> dict[str, float]:
        """Differences and ratios against the baseline."""
        other = self.baseline or self
        pairs = {
            "flops": (other.flops["total"], self.flops["total"]),
            "bytes_moved": (other.bytes_moved["total"], self.bytes_moved["total"]),
            "kv_cache_bytes": (other.memory_bytes["kv_cache"], self.memory_bytes["kv_cache"]),
            "memory_bytes": (other.memory_bytes["total"], self.memory_bytes["total"]),
            "ttft_s": (other.time_s["ttft"], self.time_s["ttft"]),
            "tpot_s": (other.time_s["tpot"], self.time_s["tpot"]),
        }
        result: dict[str, float] = {}
        for name, (before, after) in pairs.items():
            result[name] = before - after
            result[f"{name}_ratio"] = before / after if after else 1.0
        return result


@dataclass(frozen=True)
class Failure:
    """Why a method has no estimate in a comparison."""

    reason: str

    def __str__(self) -> str:
        return self.reason
