r"""The weight-read floor: prompts so short that reading the weights takes longer than computing.

Below the knee the time of the language model's linear layers hardly depends on the number of
tokens, so that dropping more of them stops paying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import sympy

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.evaluation import evaluate
from costmodel.ops import Op
from costmodel.program import Program
from costmodel.symbols import sym
from costmodel.timing.device import Device, resolve_device
from costmodel.timing.model import load_time_model

__all__ = ["WeightFloor", "weight_floor"]

_LONG = 4096.0


@dataclass(frozen=True)
class WeightFloor:
    r"""Tokens at which linear layers turn from memory to compute bound.

    A product of m rows with weights of n columns and depth k takes :math:`2 m n k / P` to compute
    and at least :math:`\beta_w n k / B` to read its weights, which are equal at

    .. math:: m = \frac{P \beta_w}{2 B}

    with the peak P, bandwidth B and bytes of a weight :math:`\beta_w` [1]_.  Activations that are
    read and written move the knee up.

    Attributes
    ----------
    weights_only_tokens : float
        That knee; rows are the tokens of all requests of a batch.
    with_activations_tokens : float
        The same with the bytes of activations, solved from the program's operators; infinite
        where these alone take longer than computing.
    calibrated_tokens : float, optional
        Calibrated time of one row over that of each of 4,096 rows: where a line through the
        origin leaves the floor.  None for the ideal model.
    formula : str
        The first, in symbols.

    References
    ----------
    .. [1] S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance
       Model for Multicore Architectures", CACM 52(4), 2009.
    """

    weights_only_tokens: float
    with_activations_tokens: float
    calibrated_tokens: float | None
    formula: str = "P*bw/(2*B)"


def weight_floor(case: Case) -> WeightFloor:
    """Return the knee of a case's model, formats and GPU.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`; batch, tokens and compression do not matter.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> floor = weight_floor(prepare("llava-1.5-7b", "a100-80gb-sxm", text_tokens=64))
    >>> round(floor.weights_only_tokens), round(floor.with_activations_tokens)
    (153, 161)
    """
    program, _ = replace(case, request=None).program()
    device = resolve_device(case.gpu, load_host(), case.deployment)
    linear = [op for op in program.ops if op.stage == "llm" and _is_linear(op)]
    peak, bandwidth = device.linear_flops_per_s, device.bandwidth_bytes_per_s
    width = program.values[sym("bw")]
    calibrated = None
    if case.time_model == "calibrated":
        calibrated = _calibrated_knee(case, program, linear, device)
    return WeightFloor(
        peak * width / (2 * bandwidth), _knee(program, linear, peak, bandwidth), calibrated
    )  # fmt: skip


def _is_linear(op: Op) -> bool:
    return op.matmul and sym("bw") in op.traffic.weights.free_symbols


def _knee(program: Program, linear: list[Op], peak: float, bandwidth: float) -> float:
    """Solve FLOPs / P = bytes / B of all linear layers for the tokens."""
    tokens = sympy.Symbol("m", positive=True)
    fixed = {symbol: sympy.nsimplify(value) for symbol, value in program.values.items()}
    fixed |= {sym("b"): sympy.Integer(1), sym("s"): tokens}
    flops = sum(op.repeat * op.flops for op in linear).xreplace(fixed)
    moved = sum(op.repeat * op.traffic.total for op in linear).xreplace(fixed)
    balance = sympy.Poly(flops / sympy.Float(peak) - moved / sympy.Float(bandwidth), tokens)
    slope, constant = (float(balance.coeff_monomial(tokens**power)) for power in (1, 0))
    return -constant / slope if slope > 0 else float("inf")


def _calibrated_knee(case: Case, program: Program, linear: list[Op], device: Device) -> float:
    """Time of one row over the time of each of many."""
    only = Program(tuple(linear), (), (), program.values, program.derived, program.derived_decode)
    tokens = np.array([1.0, _LONG])
    evaluation = evaluate(only, "prefill", b=1.0, s=tokens)
    times = load_time_model(case.time_model).times(evaluation, device, case.deployment)
    one, many = evaluation.total(times.op_s)
    return float(one / (many / _LONG))
