"""What each stage of a prefill costs, summed from the operators of an estimate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from costmodel.results import STAGES, Estimate, OpRow

__all__ = ["StageCost", "dominant_bound", "stage_costs"]


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage.

    Attributes
    ----------
    stage : str
        Its name.
    part_of : str
        The row it is part of; empty for the total.
    flops : float
        Matrix products and convolutions [FLOP].
    bytes_moved : float
        [B].
    time_s : float
        [s].
    share : float
        Share of TTFT, 0 to 1.
    bound_by : str
        What limits the operators that take most of its time; empty if it takes none.
    """

    stage: str
    part_of: str
    flops: float
    bytes_moved: float
    time_s: float
    share: float
    bound_by: str


def stage_costs(result: Estimate) -> tuple[StageCost, ...]:
    """Return the stages in order, the parts of the language model, overhead and total.

    Rows whose `StageCost.part_of` is ``total`` sum to the total.

    Parameters
    ----------
    result : Estimate
        The estimate.

    Returns
    -------
    tuple of StageCost
    """
    ttft_s = result.time_s["ttft"]

    def cost(stage: str, part_of: str, ops: list[OpRow], extra_s: float = 0.0) -> StageCost:
        time_s = sum(op.time_s for op in ops) + extra_s
        return StageCost(
            stage=stage,
            part_of=part_of,
            flops=sum(op.flops for op in ops if op.counted),
            bytes_moved=sum(sum(op.bytes.values()) for op in ops),
            time_s=time_s,
            share=time_s / ttft_s if ttft_s else 0.0,
            bound_by=dominant_bound(ops, extra_s),
        )

    rows = []
    for stage in STAGES:
        ops = [op for op in result.ops if op.stage == stage]
        rows.append(cost(stage, "total", ops))
        if stage == "llm_prefill":
            attention = [op for op in ops if op.part == "attention"]
            linear = [op for op in ops if op.part != "attention"]
            rows.append(cost("llm_linear", stage, linear))
            rows.append(cost("llm_attention", stage, attention))
    host_s = result.time_s["host_overhead"]
    rows.append(cost("host_overhead", "total", [], host_s))
    rows.append(cost("total", "", list(result.ops), host_s))
    return tuple(rows)


def dominant_bound(ops: Iterable[OpRow], host_s: float = 0.0) -> str:
    """Return the bound under which most of the time passes; empty if none passes."""
    seconds = {"host": host_s}
    for op in ops:
        seconds[op.bound_by] = seconds.get(op.bound_by, 0.0) + op.time_s
    longest = max(seconds, key=lambda bound: seconds[bound])
    return longest if seconds[longest] > 0 else ""
