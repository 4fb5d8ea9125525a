"""An estimate under a convention, beside its true numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sympy import Expr, sympify

from costmodel.case import Case
from costmodel.compression.plan import CompressionPlan
from costmodel.conventions.convention import Convention, LayerRun, load_convention, uniform
from costmodel.conventions.rules import equivalent_tokens, kv_cache_bytes
from costmodel.conventions.viewer import ViewerConvention
from costmodel.conventions.viewer_hardware import viewer_device_of
from costmodel.conventions.viewer_ops import Formats
from costmodel.errors import UnsupportedError
from costmodel.program import Program
from costmodel.results import Estimate
from costmodel.specs.workload import DTYPE_BYTES

__all__ = ["convention_section", "visual_runs"]


def convention_section(case: Case, result: Estimate, name: str) -> dict[str, Any]:
    """Return the numbers of an estimate under a convention.

    Conventions see the language model alone, and of a compression only the visual tokens that
    remain in each layer.

    Parameters
    ----------
    case : Case
        The question of the estimate.
    result : Estimate
        Its true numbers.
    name : str
        A name of `costmodel.conventions.list_conventions`.

    Returns
    -------
    dict
        ``name``, ``title``, ``counts``, ``equation``, ``source``; ``flops`` of the whole prompt,
        ``flops_visual`` of the visual tokens alone, ``flops_per_layer`` (the mean), in the unit
        that ``counts`` names; ``true_flops`` of language model and head [FLOP] and
        ``true_ratio``, how often that is ``flops``; ``equivalent_tokens`` and
        ``kv_cache_bytes`` [B] by rule; ``baseline_flops`` without compression; and
        ``llm_viewer`` with its traffic, footprint [B] and time [s], null for other conventions.

    Raises
    ------
    UnknownNameError
        If there is no such convention.
    UnsupportedError
        For a model on several devices, which conventions do not know.
    """
    convention = load_convention(name)
    if case.deployment.tp > 1:
        raise UnsupportedError(
            "convention", name, f"one device (tp 1); conventions know no parts, tp is "
            f"{case.deployment.tp}",
        )  # fmt: skip
    text, batch, others = case.model.text, case.workload.batch, case.workload.text_tokens
    visual = visual_runs(case)
    runs = tuple(LayerRun(run.layers, run.tokens + others) for run in visual)
    whole = uniform(text, others + result.tokens["visual_in"])
    true = result.flops["llm_prefill"] + result.flops["lm_head"]
    baseline = result.baseline or result
    if convention.by_operators:
        flops, before = true, baseline.flops["llm_prefill"] + baseline.flops["lm_head"]
    else:
        flops, before = convention.flops(text, runs, batch), convention.flops(text, whole, batch)
    return {
        "name": name,
        "title": convention.title,
        "counts": convention.counts,
        "equation": convention.equation,
        "source": convention.url,
        "flops": flops,
        "flops_visual": convention.flops(text, visual, batch) if case.images else None,
        "flops_per_layer": flops / text.layers,
        "baseline_flops": before,
        "true_flops": true,
        "true_ratio": true / flops,
        "equivalent_tokens": equivalent_tokens(visual),
        "kv_cache_bytes": kv_cache_bytes(text, runs, DTYPE_BYTES[case.deployment.kv_dtype], batch),
        "llm_viewer": _viewer_section(convention, case, runs),
    }


def _viewer_section(
    convention: Convention, case: Case, runs: tuple[LayerRun, ...]
) -> dict[str, Any] | None:
    if not isinstance(convention, ViewerConvention):
        return None
    run = case.deployment
    known = viewer_device_of(case.gpu.name)
    formats = Formats(
        DTYPE_BYTES[run.weights_dtype], DTYPE_BYTES[run.dtype], DTYPE_BYTES[run.kv_dtype]
    )
    report = asdict(
        convention.report(
            case.model.text, runs, batch=case.workload.batch, formats=formats,
            device=known[1] if known else None,
        )
    )  # fmt: skip
    del report["flops"]
    return {"device": known[0] if known else None, **report}


def visual_runs(case: Case) -> tuple[LayerRun, ...]:
    """Return the visual tokens of one request in each decoder layer.

    Where a method computes on other tokens than the hidden state has, as virtual unmerging
    does, the hidden state counts.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> visual_runs(prepare("llava-1.5-7b", "a40", text_tokens=64, compress="random:k=64"))
    (LayerRun(layers=32, tokens=64.0),)
    """
    program, plan = case.program()
    if plan is None:
        return uniform(case.model.text, float(case.layout.tokens if case.layout else 0))
    return tuple(
        LayerRun(group.layers, _number(group.visual, program, plan))
        for group in plan.decoder_groups
    )


def _number(value: Expr | int, program: Program, plan: CompressionPlan) -> float:
    expression = sympify(value)
    known = {**program.values, **plan.values}
    # Derived symbols stand for expressions of others, which are replaced in turn.
    for _ in range(len(program.derived) + 1):
        if not expression.free_symbols:
            break
        expression = expression.subs(program.derived).subs(known)
    return float(expression)
