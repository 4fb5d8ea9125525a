"""The facade: one call from names to a frozen result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from costmodel.catalog.hardware import load_gpu, load_host
from costmodel.catalog.models_io import load_model
from costmodel.compression.method import Context, ImageGroup, Request, parse
from costmodel.compression.plan import CompressionPlan, TokenCount
from costmodel.errors import InputError, SpecError, UnsupportedError
from costmodel.evaluation import Evaluation, evaluate, evaluate_expressions, resolve
from costmodel.memory import Memory, largest_batch, memory
from costmodel.ops import ZERO, Op
from costmodel.program import Program, build_program
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.specs.workload import MAX_TOKENS, Deployment, Workload, check_count
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.model import BOUNDS, PassTimes, load_time_model
from costmodel.vision_tokens import (
    ImageSize,
    VideoSize,
    VisualLayout,
    assumed_visual_layout,
    image_layouts,
    parse_image,
    parse_video,
)
from costmodel.vision_tokens.layout import combine

__all__ = ["STAGES", "Case", "Estimate", "OpRow", "compare", "estimate", "prepare", "stage_of"]

STAGES = ("vision_encoder", "projector", "compression", "llm_prefill", "lm_head")
"""Stages of a prefill, in order; they sum to the total."""


def stage_of(op: Op) -> str:
    """Return the stage of a prefill that an operator counts in."""
    return "llm_prefill" if op.stage == "llm" else op.stage


@dataclass(frozen=True)
class Case:
    """A fully resolved question: names looked up, options checked.

    Attributes
    ----------
    model : ModelSpec
    gpu : HardwareProfile
    workload : Workload
    deployment : Deployment
    time_model : str
    images : tuple of ImageGroup
        Images of one request, equal layouts grouped; empty without images.
    request : Request, optional
        Compression; None for none.
    """

    model: ModelSpec
    gpu: HardwareProfile
    workload: Workload
    deployment: Deployment
    time_model: str
    images: tuple[ImageGroup, ...]
    request: Request | None = None

    @property
    def layout(self) -> VisualLayout | None:
        """Layout of all images of one request; None without images."""
        parts = [group.layout for group in self.images for _ in range(group.units)]
        return combine(parts) if parts else None

    def program(self) -> tuple[Program, CompressionPlan | None]:
        """Build the program, and the plan of the compression if there is one."""
        plan = None
        if self.request is not None and self.request.method.name != "none":
            if not self.images:
                raise UnsupportedError(
                    "compress", self.request.label,
                    f"none: {self.model.name} has no visual tokens here",
                )  # fmt: skip
            plan = self.request.plan(Context(self.model, self.images, self.deployment))
        program = build_program(self.model, self.layout, self.workload, self.deployment, plan)
        return program, plan


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
        Bands of TTFT; null where the time model has none.
    ops, ops_decode : tuple of OpRow
        Operators of prefill, and of one decode step.
    provenance : dict
        Time model, sources, versions.
    notes : tuple of str
        Assumptions and warnings, for people.
    baseline : Estimate, optional
        The same without compression; None for a baseline itself.
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
    baseline: Estimate | None = field(default=None, repr=False)

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


def estimate(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    *,
    text_tokens: int,
    compress: str | Request | None = None,
    **options: Any,
) -> Estimate:
    """Estimate FLOPs, bytes, time and memory of one request batch.

    Parameters
    ----------
    model : str or ModelSpec
        Known name, path of a config.json or its folder, or a spec.
    gpu : str or HardwareProfile
        Known name, path of a YAML profile, or a profile.
    text_tokens : int
        Prompt tokens that are not visual.
    compress : str, optional
        ``METHOD[:key=value,...]``.
    **options
        As in `prepare`.

    Returns
    -------
    Estimate
        With `Estimate.baseline`, the same without compression.

    Raises
    ------
    CostModelError
        If a name, option or combination is not valid.

    Examples
    --------
    >>> result = estimate("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    >>> int(result.flops["llm_prefill"])
    8504035246080
    """
    case = prepare(model, gpu, text_tokens=text_tokens, compress=compress, **options)
    return estimate_case(case)


def prepare(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    *,
    text_tokens: int,
    images: Sequence[str | tuple[int, int]] = (),
    videos: Sequence[str | tuple[int, int, int]] = (),
    visual_tokens: int | None = None,
    output_tokens: int = 0,
    batch: int = 1,
    compress: str | Request | None = None,
    time_model: str = "ideal",
    **deployment: Any,
) -> Case:
    """Look up names and check options.

    Parameters
    ----------
    model, gpu, text_tokens, compress
        As in `estimate`.
    images : sequence of "WIDTHxHEIGHT" or (width, height), optional
        Images of one request [pixels]; the model's default image if neither
        images, videos nor visual tokens are given.
    videos : sequence of "WIDTHxHEIGHTxFRAMES" or (width, height, frames), optional
        Videos of one request.
    visual_tokens : int, optional
        Visual tokens per request instead of what images give; 0 for none.
    output_tokens : int
        Tokens generated per request.
    batch : int
        Requests computed together.
    time_model : str
        Name of a time model.
    **deployment
        Options of `costmodel.specs.workload.Deployment.of`: dtype,
        weights_dtype, kv_dtype, runtime, attention, tp, vision_layers, head_tokens.

    Returns
    -------
    Case
    """
    spec = model if isinstance(model, ModelSpec) else load_model(model)
    profile = gpu if isinstance(gpu, HardwareProfile) else load_gpu(gpu)
    request = parse(compress) if isinstance(compress, str) else compress
    sizes = [parse_image(i) if isinstance(i, str) else ImageSize(*i) for i in images]
    clips = [parse_video(v) if isinstance(v, str) else VideoSize(*v) for v in videos]
    load_time_model(time_model)
    resolved = Deployment.of(**deployment)
    workload = Workload(
        batch=batch,
        text_tokens=text_tokens,
        output_tokens=output_tokens,
        images=tuple((size.width, size.height) for size in sizes),
        videos=tuple((clip.width, clip.height, clip.frames) for clip in clips),
        visual_tokens=visual_tokens,
    )
    groups = _images(spec, workload, sizes, clips)
    if spec.vision is None and resolved.vision_layers is not None:
        raise UnsupportedError(
            "vision-layers", resolved.vision_layers, f"no value: {spec.name} has no vision tower"
        )
    if not groups and workload.visual_tokens is None and sizes:
        raise InputError("image", str(sizes[0]), "an image that gives visual tokens")
    return Case(spec, profile, workload, resolved, time_model, groups, request)


def _images(
    spec: ModelSpec, workload: Workload, sizes: list[ImageSize], clips: list[VideoSize]
) -> tuple[ImageGroup, ...]:
    if spec.image_rule is None:
        for name, given in (("image", sizes), ("video", clips)):
            if given:
                raise UnsupportedError(
                    name, str(given[0]), f"no {name}: {spec.name} is a text-only model"
                )
        if workload.visual_tokens:
            raise UnsupportedError(
                "visual-tokens", workload.visual_tokens, f"0: {spec.name} is a text-only model"
            )
        return ()
    if workload.visual_tokens is not None:
        if sizes or clips:
            raise InputError(
                "visual-tokens", workload.visual_tokens,
                "either --visual-tokens or --image / --video, not both",
            )  # fmt: skip
        if workload.visual_tokens == 0:
            return ()
        return (ImageGroup(1, assumed_visual_layout(spec.image_rule, workload.visual_tokens)),)
    if not sizes and not clips and spec.default_image is not None:
        sizes = [ImageSize(*spec.default_image)]
    found: dict[VisualLayout, int] = {}
    for layout in image_layouts(spec.image_rule, sizes, clips):
        found[layout] = found.get(layout, 0) + 1
    return tuple(ImageGroup(units, layout) for layout, units in found.items())


def estimate_case(case: Case) -> Estimate:
    """Estimate a prepared case together with its baseline."""
    compressed = case.request is not None and case.request.method.name != "none"
    baseline = _single(replace(case, request=None))
    if not compressed:
        return replace(baseline, baseline=baseline)
    return replace(_single(case), baseline=baseline)


def compare(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    methods: Sequence[str],
    *,
    visual_tokens_kept: int,
    text_tokens: int,
    **options: Any,
) -> list[tuple[str, Estimate | CostModelFailure]]:
    """Estimate several methods at the same number of kept visual tokens.

    Parameters
    ----------
    model, gpu, text_tokens, **options
        As in `estimate`.
    methods : sequence of str
        ``METHOD[:key=value,...]``; parameters that set the number kept are filled in.
    visual_tokens_kept : int
        Visual tokens each image keeps.

    Returns
    -------
    list of (str, Estimate or CostModelFailure)
        In the order of `methods`; a failure where a method cannot reach the number.

    Raises
    ------
    CostModelError
        If the question is not valid, a method is unknown, or none can reach the number.
    """
    from costmodel.compression.method import request as make_request
    from costmodel.compression.method import split

    check_count("visual-tokens-kept", visual_tokens_kept, low=1, high=MAX_TOKENS)
    base = prepare(model, gpu, text_tokens=text_tokens, **options)
    if not base.images:
        raise UnsupportedError(
            "visual-tokens-kept", visual_tokens_kept, f"a model and request with images; "
            f"{base.model.name} has no visual tokens here",
        )  # fmt: skip
    context = Context(base.model, base.images, base.deployment)
    rows: list[tuple[str, Estimate | CostModelFailure]] = []
    for text in methods:
        method, given = split(text)
        try:
            wanted = method.params_for(visual_tokens_kept, context)
            if clash := sorted(wanted.keys() & given.keys()):
                raise SpecError(f"compress {text!r}: visual-tokens-kept already sets {clash[0]!r}")
            request = make_request(method, {**wanted, **given})
            rows.append((request.label, estimate_case(replace(base, request=request))))
        except (InputError, UnsupportedError) as error:
            rows.append((text, CostModelFailure(str(error))))
    if not any(isinstance(outcome, Estimate) for _, outcome in rows):
        reasons = "; ".join(f"{text}: {outcome}" for text, outcome in rows) or "none was given"
        raise UnsupportedError(
            "methods", ",".join(methods), f"at least one method that can do this ({reasons})"
        )
    return rows


@dataclass(frozen=True)
class CostModelFailure:
    """Why a method has no estimate in a comparison."""

    reason: str

    def __str__(self) -> str:
        return self.reason


# --- one estimate --------------------------------------------------------------


def _single(case: Case) -> Estimate:
    program, plan = case.program()
    device = resolve_device(case.gpu, load_host(), case.deployment)
    model = load_time_model(case.time_model)
    prefill = evaluate(program, "prefill")
    decode = evaluate(program, "decode")
    prefill_times = model.times(prefill, device, case.deployment)
    decode_times = model.times(decode, device, case.deployment)
    memory_now = memory(program)
    rows = _rows(prefill, prefill_times)
    decode_rows = _rows(decode, decode_times)
    return Estimate(
        inputs=_inputs(case, plan),
        tokens=_tokens(case, plan, program),
        params=_params(program),
        flops=_flops(rows),
        bytes_moved=_bytes(rows),
        memory_bytes=_memory(memory_now, program, device),
        time_s=_times(rows, prefill_times, decode_rows, decode_times),
        interval_s=_interval(prefill_times),
        provenance=_provenance(case, prefill_times),
        notes=_notes(case, plan),
        ops=rows,
        ops_decode=decode_rows,
    )


def _rows(evaluation: Evaluation, times: PassTimes) -> tuple[OpRow, ...]:
    return tuple(
        _row(op, index, evaluation, times) for index, op in enumerate(evaluation.ops)
    )  # fmt: skip


def _row(op: Op, index: int, evaluation: Evaluation, times: PassTimes) -> OpRow:
    repeat = float(evaluation.repeat[index])
    return OpRow(
        name=op.name,
        stage=stage_of(op),
        kind=op.kind,
        part=op.part,
        counted=op.matmul,
        repeat=repeat,
        launches=float(evaluation.launches[index]) * repeat,
        host_syncs=float(evaluation.host_syncs[index]) * repeat,
        shape={name: float(size) for name, size in evaluation.shapes[index].items()},
        flops=float(evaluation.flops[index]) * repeat,
        bytes={
            kind: float(rows[index]) * repeat for kind, rows in evaluation.traffic.items()
        },
        time_s=float(times.op_s[index]) * repeat,
        bound_by=BOUNDS[int(times.bound[index])],
        provenance=times.provenance[index],
        note=op.note,
        op=op,
    )  # fmt: skip


def _sum(rows: Sequence[OpRow], value: Callable[[OpRow], float]) -> float:
    return float(sum(value(row) for row in rows))


def _by_stage(rows: Sequence[OpRow], value: Callable[[OpRow], float]) -> dict[str, float]:
    return {stage: _sum([row for row in rows if row.stage == stage], value) for stage in STAGES}


def _flops(rows: Sequence[OpRow]) -> dict[str, float]:
    counted = [row for row in rows if row.counted]
    result = _by_stage(counted, lambda row: row.flops)
    language = [row for row in counted if row.stage == "llm_prefill"]
    attention = [row for row in language if row.part == "attention"]
    result["llm_attention"] = _sum(attention, lambda row: row.flops)
    result["llm_linear"] = result["llm_prefill"] - result["llm_attention"]
    result["total"] = sum(result[stage] for stage in STAGES)
    return result


def _bytes(rows: Sequence[OpRow]) -> dict[str, float]:
    result = _by_stage(rows, lambda row: sum(row.bytes.values()))
    language = [row for row in rows if row.stage == "llm_prefill"]
    attention = [row for row in language if row.part == "attention"]
    result["llm_attention"] = _sum(attention, lambda row: sum(row.bytes.values()))
    result["llm_linear"] = result["llm_prefill"] - result["llm_attention"]
    result["total"] = sum(result[stage] for stage in STAGES)
    return result


def _times(
    rows: Sequence[OpRow],
    prefill: PassTimes,
    decode_rows: Sequence[OpRow],
    decode: PassTimes,
) -> dict[str, float]:
    result = _by_stage(rows, lambda row: row.time_s)
    result["host_overhead"] = float(prefill.host_overhead_s)
    result["ttft"] = sum(result.values())
    result["tpot"] = _sum(decode_rows, lambda row: row.time_s) + float(decode.host_overhead_s)
    return result


def _interval(times: PassTimes) -> dict[str, Any]:
    def band(kind: str) -> list[float] | None:
        if kind not in times.low_s:
            return None
        return [float(times.low_s[kind]), float(times.high_s[kind])]

    kinds = ("same_stack", "any_stack")
    return {"ttft": {kind: band(kind) for kind in kinds}, "level": times.level}


def _params(program: Program) -> dict[str, float]:
    modules = ("vision_encoder", "projector", "compression", "llm", "lm_head")
    sums = [
        sum((item.count for item in program.weights if item.stage == module), start=ZERO)
        for module in modules
    ]
    values = evaluate_expressions(sums, resolve(program, "prefill"))
    result = {module: float(value) for module, value in zip(modules, values, strict=True)}
    return result | {"total": sum(result.values())}


def _memory(now: Memory, program: Program, device: Device) -> dict[str, Any]:
    total = float(now.total)
    capacity = device.capacity_bytes
    return {
        "weights": float(now.weights),
        "kv_cache": float(now.kv_cache),
        "kv_cache_groups": [
            {"layers": layers, "bytes": float(size)} for layers, size in now.kv_cache_groups
        ],
        "activations_peak": float(now.activations_peak),
        "activations_peak_op": now.peak_op,
        "total": total,
        "device": capacity,
        "fits": total <= capacity,
        "missing": max(total - capacity, 0.0),
        "largest_batch": largest_batch(program, capacity),
    }


def _tokens(case: Case, plan: CompressionPlan | None, program: Program) -> dict[str, Any]:
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
        "prefill": case.workload.text_tokens + kept.mean,
    }


def _inputs(case: Case, plan: CompressionPlan | None) -> dict[str, Any]:
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
        "compress_params": case.request.params.model_dump() if case.request is not None else {},
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


def _provenance(case: Case, times: PassTimes) -> dict[str, Any]:
    import importlib.metadata

    return {
        "costmodel": importlib.metadata.version("costmodel"),
        "time_model": case.time_model,
        "time": sorted(set(times.provenance)),
        "model_sources": [source.url for source in case.model.sources],
        "gpu_sources": sorted({source.url for source in case.gpu.sources.values()}),
    }


def _notes(case: Case, plan: CompressionPlan | None) -> tuple[str, ...]:
    notes: list[str] = []
    text, run = case.model.text, case.deployment
    layout = case.layout
    visual = float(layout.tokens) if layout is not None else 0.0
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
            notes.append(f"{plan.method} cannot be captured in a CUDA graph; it runs eagerly")
    return tuple(notes)
