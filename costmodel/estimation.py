"""The facade: one call from names to a frozen result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from costmodel.accounting import (
    Passes,
    bytes_by_stage,
    flops_by_stage,
    host_by_stage,
    interval,
    memory_section,
    op_rows,
    parameters,
    savings_interval,
    stage_provenance,
    times_by_stage,
)
from costmodel.case import Case, prepare
from costmodel.catalog.hardware import load_host
from costmodel.compression.budgets import method_names, request_for
from costmodel.compression.composition import Compression
from costmodel.compression.method import Context, Request, load_method
from costmodel.conventions.applying import convention_section
from costmodel.description import inputs, notes_of, provenance, tokens
from costmodel.errors import InputError, SpecError, UnsupportedError
from costmodel.evaluation import evaluate
from costmodel.memory import memory
from costmodel.results import Estimate, Failure
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.specs.workload import MAX_TOKENS, check_count
from costmodel.timing.device import resolve_device
from costmodel.timing.difference import Side
from costmodel.timing.model import load_time_model

__all__ = ["Case", "Estimate", "Failure", "compare", "estimate", "estimate_case", "prepare"]


def estimate(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    *,
    text_tokens: int,
    compress: str | Compression | Sequence[str | Request] | None = None,
    convention: str | None = None,
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
    compress : str or sequence of str, optional
        ``METHOD[:key=value,...]``; several act one after the other, each on the tokens that
        the one before it leaves.
    convention : str, optional
        Add the numbers under a counting convention, as `Estimate.convention`.
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
    result = estimate_case(case)
    if convention is None:
        return result
    return replace(result, convention=convention_section(case, result, convention))


def estimate_case(case: Case) -> Estimate:
    """Estimate a prepared case together with its baseline."""
    compressed = case.request is not None and case.request.compresses
    baseline, before = _single(replace(case, request=None))
    if not compressed:
        return replace(baseline, baseline=baseline)
    result, after = _single(case)
    return replace(result, baseline=baseline, savings_interval=savings_interval(before, after))


def compare(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    methods: Sequence[str],
    *,
    visual_tokens_kept: int,
    text_tokens: int,
    **options: Any,
) -> list[tuple[str, Estimate | Failure]]:
    """Estimate several methods at the same number of kept visual tokens.

    Parameters
    ----------
    model, gpu, text_tokens, **options
        As in `estimate`.
    methods : sequence of str
        ``METHOD[:key=value,...]``; parameters that set the number kept are filled in.  Several
        with ``then`` between act one after the other: the last is set so that the number
        remains of what the others leave.
    visual_tokens_kept : int
        Visual tokens each image keeps.

    Returns
    -------
    list of (str, Estimate or Failure)
        In the order of `methods`; a failure where a method cannot reach the number or its
        parameters are not valid.

    Raises
    ------
    CostModelError
        If the question is not valid, a method is unknown, or none has a result.
    """
    check_count("visual-tokens-kept", visual_tokens_kept, low=1, high=MAX_TOKENS)
    base = prepare(model, gpu, text_tokens=text_tokens, **options)
    if not base.images:
        raise UnsupportedError(
            "visual-tokens-kept", visual_tokens_kept, f"a model and request with images; "
            f"{base.model.name} has no visual tokens here",
        )  # fmt: skip
    context = Context(base.model, base.images, base.deployment)
    rows: list[tuple[str, Estimate | Failure]] = []
    for text in methods:
        # An unknown name is a mistake in the question, not something a method cannot do.
        for name in method_names(text):
            load_method(name)
        try:
            request = request_for(text, visual_tokens_kept, context)
            rows.append((request.label, estimate_case(replace(base, request=request))))
        except (InputError, SpecError) as error:
            rows.append((text, Failure(str(error))))
    if not any(isinstance(outcome, Estimate) for _, outcome in rows):
        reasons = "; ".join(f"{text}: {outcome}" for text, outcome in rows) or "none was given"
        raise UnsupportedError(
            "methods", ",".join(methods), f"at least one method that can do this ({reasons})"
        )
    return rows


def _single(case: Case) -> tuple[Estimate, Passes]:
    program, plan = case.program()
    device = resolve_device(case.gpu, load_host(), case.deployment)
    model = load_time_model(case.time_model)
    prefill = evaluate(program, "prefill")
    decode = evaluate(program, "decode")
    prefill_times = model.times(prefill, device, case.deployment)
    decode_times = model.times(decode, device, case.deployment)
    passes = {"ttft": Side(prefill, prefill_times), "tpot": Side(decode, decode_times)}
    memory_now = memory(program)
    rows = op_rows(prefill, prefill_times)
    decode_rows = op_rows(decode, decode_times)
    result = Estimate(
        inputs=inputs(case, plan),
        tokens=tokens(case, plan, program),
        params=parameters(program),
        flops=flops_by_stage(rows),
        bytes_moved=bytes_by_stage(rows),
        memory_bytes=memory_section(memory_now, program, device),
        time_s=times_by_stage(rows, prefill_times, decode_rows, decode_times),
        interval_s=interval(prefill_times, decode_times),
        provenance=provenance(case, prefill_times) | {"stages": stage_provenance(rows)},
        notes=(*notes_of(case, plan, program), *prefill_times.notes),
        host_s=host_by_stage(passes["ttft"]),
        ops=rows,
        ops_decode=decode_rows,
    )
    return result, passes
