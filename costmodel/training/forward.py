"""The forward pass of one micro batch, by the parts that a recipe trains or freezes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from costmodel.accounting import flops_by_stage, interval, op_rows, parameters, times_by_stage
from costmodel.case import prepare
from costmodel.catalog.hardware import load_host
from costmodel.description import notes_of, tokens
from costmodel.errors import UnsupportedError
from costmodel.evaluation import evaluate
from costmodel.results import STAGES
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.timing.device import resolve_device
from costmodel.timing.model import load_time_model

__all__ = ["Forward", "forward_pass"]

_PART_OF = {
    "vision_encoder": "vision",
    "projector": "projector",
    "compression": "compression",
    "llm_prefill": "llm",
    "lm_head": "llm",
}
"""Stage of an estimate -> part of a recipe, beside a compression's own work."""


@dataclass(frozen=True)
class Forward:
    """One forward pass of a micro batch on one GPU.

    Attributes
    ----------
    flops, time_s : dict of str to float
        By part: vision, projector, compression, llm [FLOP, s].  What the host holds up is in llm.
    band_s : dict of str to (float, float), optional
        90 % band of `time_s` for any lab and software; None where there is none.
    parameters : dict of str to float
        By part, and ``total``.
    tokens_per_sample : float
        Tokens at the language model's first layer.
    peak_flops_per_s : float
        Peak rate of the GPU in the format of the activations.
    notes : tuple of str
    """

    flops: dict[str, float]
    time_s: dict[str, float]
    band_s: dict[str, tuple[float, float]] | None
    parameters: dict[str, float]
    tokens_per_sample: float
    peak_flops_per_s: float
    notes: tuple[str, ...]

    def seconds(self, side: int | None = None) -> dict[str, float]:
        """Return the time by part, or one side of its band [s]."""
        if side is None or self.band_s is None:
            return self.time_s
        return {part: band[side] for part, band in self.band_s.items()}


def forward_pass(
    model: ModelSpec, gpu: HardwareProfile, *, text_tokens: int, batch: int, **options: Any
) -> Forward:
    """Return the forward pass of a request batch; options as in `costmodel.case.prepare`.

    Examples
    --------
    >>> from costmodel.catalog.hardware import load_gpu
    >>> from costmodel.catalog.models_io import load_model
    >>> found = forward_pass(
    ...     load_model("llava-1.5-7b"), load_gpu("a100-80gb-sxm"), text_tokens=24, batch=2
    ... )
    >>> found.tokens_per_sample
    600.0
    """
    case = prepare(model, gpu, text_tokens=text_tokens, batch=batch, **options)
    dtype = case.deployment.dtype
    peak = gpu.peak_flops_per_s(dtype)  # type: ignore[arg-type]
    if peak is None:
        raise UnsupportedError("dtype", dtype, f"one of {', '.join(gpu.dtypes())} on {gpu.name}")
    program, plan = case.program()
    device = resolve_device(gpu, load_host(), case.deployment)
    evaluation = evaluate(program, "prefill")
    times = load_time_model(case.time_model).times(evaluation, device, case.deployment)
    rows = op_rows(evaluation, times)
    flops = flops_by_stage(rows)
    # Nothing is decoded, so the time of a token does not matter.
    seconds = times_by_stage(rows, times, (), times)
    parts = dict.fromkeys(_PART_OF.values(), 0.0)
    done, taken = dict(parts), dict(parts)
    for stage in STAGES:
        done[_PART_OF[stage]] += flops[stage]
        taken[_PART_OF[stage]] += seconds[stage]
    taken["llm"] += seconds["host_overhead"]
    said = tokens(case, plan, program)
    return Forward(
        flops=done,
        time_s=taken,
        band_s=_bands(interval(times)["stages"], parts),
        parameters=_parameters(parameters(program), parts),
        tokens_per_sample=float(said["prefill"]),
        peak_flops_per_s=peak,
        notes=(*notes_of(case, plan, program), *times.notes),
    )


def _bands(
    stages: dict[str, Any], parts: dict[str, float]
) -> dict[str, tuple[float, float]] | None:
    if not stages:
        return None
    found = {part: [0.0, 0.0] for part in parts}
    for stage, bands in stages.items():
        for side in (0, 1):
            found[_PART_OF[stage]][side] += bands["any_stack"][side]
    return {part: (low, high) for part, (low, high) in found.items()}


def _parameters(counts: dict[str, float], parts: dict[str, float]) -> dict[str, float]:
    found = dict(parts)
    for stage, count in counts.items():
        found[_PART_OF.get(stage, stage)] = found.get(_PART_OF.get(stage, stage), 0.0) + count
    return found
