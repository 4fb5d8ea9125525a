"""A prepared case over arrays of points: the same formulas, evaluated at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.errors import InputError, UnknownNameError
from costmodel.evaluation import Evaluation, FloatArray, evaluate
from costmodel.memory import Memory, memory
from costmodel.results import STAGES, stage_of
from costmodel.timing.device import resolve_device
from costmodel.timing.model import load_time_model

__all__ = ["AXES", "Grid", "evaluate_grid"]

AXES = {"batch": "b", "text_tokens": "T", "output_tokens": "o", "visual_tokens": "V"}
"""Names of axes beside the symbols of a program; `visual_tokens` are those that
enter the language model, the vision side stays as prepared."""


@dataclass(frozen=True)
class Grid:
    """Results over a grid of points; every array has the points' shape.

    Attributes
    ----------
    axes : dict of str to ndarray
        The axes, broadcast to the points.
    time_s : dict of str to ndarray
        By stage, ``host_overhead``, ``ttft`` and ``tpot`` [s].
    flops : dict of str to ndarray
        By stage and ``total``; matrix products and convolutions [FLOP].
    memory : Memory
        Weights, KV cache and peak activations [B].
    """

    axes: dict[str, FloatArray]
    time_s: dict[str, FloatArray]
    flops: dict[str, FloatArray]
    memory: Memory


def evaluate_grid(case: Case, **axes: Any) -> Grid:
    """Evaluate a prepared case over arrays.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`.
    **axes : array_like
        ``batch``, ``text_tokens``, ``output_tokens``, ``visual_tokens`` or a symbol of
        the program (``k`` of a method that keeps k tokens), broadcast against each other.

    Returns
    -------
    Grid

    Raises
    ------
    UnknownNameError
        If an axis is no symbol of the program.
    InputError
        If a value is negative, not finite, or an axis is empty.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> case = prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64)
    >>> result = evaluate_grid(case, visual_tokens=[64, 144, 576])
    >>> [int(flops) for flops in result.flops["llm_prefill"]]
    [1666447310848, 2716701032448, 8504035246080]
    """
    program, _ = case.program()
    known = {symbol.name for symbol in program.values} | {s.name for s in program.derived}
    overrides = {}
    for name, value in axes.items():
        symbol = AXES.get(name, name)
        if symbol not in known:
            raise UnknownNameError("axis", name, [*AXES, *known])
        overrides[symbol] = _checked(name, value)
    device = resolve_device(case.gpu, load_host(), case.deployment)
    model = load_time_model(case.time_model)
    prefill = evaluate(program, "prefill", **overrides)
    decode = evaluate(program, "decode", **overrides)
    times = model.times(prefill, device, case.deployment)
    decode_times = model.times(decode, device, case.deployment)
    seconds = _by_stage(prefill, times.op_s, counted_only=False)
    seconds["host_overhead"] = times.host_overhead_s
    seconds["ttft"] = _sum(seconds)
    seconds["tpot"] = decode.total(decode_times.op_s) + decode_times.host_overhead_s
    flops = _by_stage(prefill, prefill.flops, counted_only=True)
    flops["total"] = _sum(flops)
    return Grid(
        axes={name: np.broadcast_to(overrides[AXES.get(name, name)], prefill.points)
              for name in axes},
        time_s=seconds,
        flops=flops,
        memory=memory(program, **overrides),
    )  # fmt: skip


def _checked(name: str, value: Any) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(name, value, "finite numbers of at least 0, and at least one")
    return array


def _by_stage(
    evaluation: Evaluation, per_execution: FloatArray, *, counted_only: bool
) -> dict[str, FloatArray]:
    return {
        stage: evaluation.total(
            per_execution,
            [
                stage_of(op) == stage and (op.matmul or not counted_only)
                for op in evaluation.ops
            ],
        )
        for stage in STAGES
    }  # fmt: skip


def _sum(parts: Mapping[str, FloatArray]) -> FloatArray:
    total: FloatArray = np.sum(list(parts.values()), axis=0)
    return total
