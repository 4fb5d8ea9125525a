"""What was asked, in the words of a result: tokens, inputs, provenance, notes."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from sympy import sympify

from costmodel.case import Case
from costmodel.compression.composition import Chain, Compression
from costmodel.compression.plan import CompressionPlan, TokenCount
from costmodel.evaluation import evaluate_expressions, resolve
from costmodel.program import Program
from costmodel.symbols import sym
from costmodel.timing.model import PassTimes

__all__ = ["inputs", "notes_of", "provenance", "tokens"]


def tokens(case: Case, plan: CompressionPlan | None, program: Program) -> dict[str, Any]:
    r"""Return visual tokens in and kept, text, output and prompt, per request.

    ``prefill`` is the prompt that enters the first layer of the language model;
    ``visual_equivalent`` the mean over its layers of the visual tokens each computes,
    the usual measure of methods that drop them on the way:

    .. math:: \bar{n} = \frac{1}{L} \sum_i l_i n_i
    """
    layout = case.layout
    tokens = layout.tokens if layout is not None else 0
    kept = plan.kept if plan is not None else TokenCount.static(tokens)
    return {
        "visual_in": tokens,
        "visual_kept": kept.mean,
        "visual_kept_p50": kept.p50,
        "visual_kept_p95": kept.p95,
        "visual_features": layout.features if layout is not None else 0,
        "visual_markers": layout.markers if layout is not None else 0,
        "vision_sequences": layout.tower_sequences if layout is not None else 0,
        "text": case.workload.text_tokens,
        "output": case.workload.output_tokens,
        "prefill": case.workload.text_tokens + _entering(program),
        "visual_equivalent": _equivalent(plan, program) if plan is not None else float(tokens),
    }


def _entering(program: Program) -> float:
    """Visual tokens that enter the language model, where some may be dropped later."""
    visual = program.derived[sym("v")]
    return float(evaluate_expressions([visual], resolve(program, "prefill"))[0])


def _equivalent(plan: CompressionPlan, program: Program) -> float:
    """Mean over the layers of the visual tokens in their queries and outputs."""
    groups = plan.decoder_groups
    counts = evaluate_expressions(
        [sympify(group.visual) for group in groups], resolve(program, "prefill")
    )
    layers = sum(group.layers for group in groups)
    pairs = zip(groups, counts, strict=True)
    return float(sum(group.layers * count for group, count in pairs) / layers)


def inputs(case: Case, plan: CompressionPlan | None) -> dict[str, Any]:
    """Return the resolved question."""
    work, run = case.workload, case.deployment
    vision = case.model.vision
    executed = run.vision_layers or (vision.layers_executed if vision else 0)
    if plan is not None and plan.tower_layers is not None:
        executed = max(executed, plan.tower_layers)
    sizes = work.images
    if not (sizes or work.videos) and work.visual_tokens is None and case.model.default_image:
        sizes = (case.model.default_image,)
    return {
        "model": case.model.name,
        "gpu": case.gpu.name,
        "batch": work.batch,
        "images": [f"{w}x{h}" for w, h in sizes],
        "videos": [f"{w}x{h}x{frames}" for w, h, frames in work.videos],
        "visual_tokens": work.visual_tokens,
        "text_tokens": work.text_tokens,
        "output_tokens": work.output_tokens,
        "compress": case.request.label if case.request is not None else "none",
        "compress_params": _params(case.request),
        "time_model": case.time_model,
        "runtime": run.runtime,
        "attention": run.attention,
        "dtype": run.dtype,
        "weights_dtype": run.weights_dtype,
        "kv_dtype": run.kv_dtype,
        "tp": run.tp,
        "vision_layers": executed,
        "head_tokens": run.head_tokens,
        "image_notes": list(case.layout.notes) if case.layout is not None else [],
    }


def _params(request: Compression | None) -> Any:
    """Parameters of the method; of several, a list with their names."""
    if isinstance(request, Chain):
        return [
            {"method": one.method.name, "params": one.params.model_dump()}
            for one in request.requests
        ]
    return request.params.model_dump() if request is not None else {}


def provenance(case: Case, times: PassTimes) -> dict[str, Any]:
    """Return what the numbers rest on: versions, time model, sources."""
    return {
        "costmodel": importlib.metadata.version("costmodel"),
        "time_model": case.time_model,
        "time": sorted(set(times.provenance)),
        "model_sources": [source.url for source in case.model.sources],
        "evidence": times.evidence,
        "gpu_sources": sorted({source.url for source in case.gpu.sources.values()}),
    }


def notes_of(case: Case, plan: CompressionPlan | None, program: Program) -> tuple[str, ...]:
    """Return assumptions and warnings, for people."""
    notes: list[str] = []
    text, run = case.model.text, case.deployment
    visual = _entering(program)
    if plan is not None and plan.insertion.where != "llm":
        visual = plan.kept.p95
    total = case.workload.text_tokens + round(visual) + case.workload.output_tokens
    if text.max_position_embeddings and total > text.max_position_embeddings:
        notes.append(f"{total} tokens exceed the model's {text.max_position_embeddings} positions")
    if text.sliding_window and total > text.sliding_window:
        notes.append(f"sliding window of {text.sliding_window} tokens is not modelled")
    if run.tp > 1:
        notes.append(
            f"FLOPs, bytes and memory are of one of {run.tp} devices; the vision side is replicated"
        )
    if case.time_model == "ideal":
        notes.append("ideal times are a lower bound: no launch overhead, peak rates throughout")
    if plan is not None:
        notes += plan.notes
        if not plan.graph_safe and run.runtime == "cuda-graph":
            notes += [
                f"{name} cannot be captured in a CUDA graph; it runs eagerly"
                for name in plan.uncaptured or (plan.method,)
            ]
    return tuple(notes)
