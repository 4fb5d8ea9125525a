"""Methods of one case at several budgets, and how a figure says what it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from costmodel.case import Case
from costmodel.compression.method import Context, load_method, split
from costmodel.compression.method import request as make_request
from costmodel.errors import InputError, SpecError, UnsupportedError
from costmodel.estimation import estimate_case
from costmodel.results import Estimate

__all__ = ["Run", "image_features", "method_runs", "setting"]

Run = tuple[int, str, Estimate]
"""Visual tokens asked for, method with its parameters, estimate."""


def method_runs(
    case: Case, methods: Sequence[str], budgets: Sequence[int]
) -> tuple[list[Run], list[str]]:
    """Return estimates of methods at budgets, and what could not be done.

    Parameters
    ----------
    case : Case
        Its own compression is not used.
    methods : sequence of str
        ``METHOD[:key=value,...]``; the number to keep is filled in.
    budgets : sequence of int
        Visual tokens of each image to keep.

    Returns
    -------
    list of Run
        By method, then by budget.
    list of str
        Methods that can reach none of the budgets.

    Raises
    ------
    UnsupportedError
        If the request has no images, or no method reaches a budget.
    """
    image_features(case)
    context = Context(case.model, case.images, case.deployment)
    found: list[Run] = []
    missing = []
    for text in methods:
        # An unknown name is a mistake in the question, not something a method cannot do.
        load_method(text.partition(":")[0].strip().lower())
        before = len(found)
        for budget in budgets:
            try:
                method, given = split(text)
                request = make_request(method, {**method.params_for(budget, context), **given})
                found.append((budget, request.label, estimate_case(replace(case, request=request))))
            except (InputError, SpecError):
                continue
        if len(found) == before:
            missing.append(text)
    if not found:
        raise UnsupportedError("methods", ",".join(methods), f"one that keeps {budgets} tokens")
    return found, missing


def image_features(case: Case) -> int:
    """Return the visual tokens of the largest image that a method can work on.

    Raises
    ------
    UnsupportedError
        If the request has no images.
    """
    if not case.images:
        raise UnsupportedError(
            "figure", case.model.name, "a model and request with visual tokens to compress"
        )
    return max(group.layout.features // group.layout.units for group in case.images)


def setting(case: Case, *, batch: bool = True, text: bool = True) -> str:
    """Return what a figure holds fixed, as words.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> setting(prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64))
    'llava-1.5-7b on a100-80gb-sxm, batch 1, 64 text tokens, fp16, cuda-graph, calibrated times'
    """
    parts = [f"{case.model.name} on {case.gpu.name}"]
    if case.deployment.tp > 1:
        parts[0] += f" x {case.deployment.tp}"
    if batch:
        parts.append(f"batch {case.workload.batch}")
    if text:
        parts.append(f"{case.workload.text_tokens:,} text tokens")
    parts += [case.deployment.dtype, case.deployment.runtime, f"{case.time_model} times"]
    return ", ".join(parts)
