r"""Requests a GPU holds and serves when its memory is full: a bound without queueing.

With weights W, peak activations A of a prefill of P requests, and K bytes of cache for a request
of full length, a GPU of C bytes of which a share u may be used holds

.. math:: N = \left\lfloor \frac{u C - W - A - P E}{K} \right\rfloor

requests, where E is what a request holds during its prefill and evicts after it.  Prefilled P at a
time in :math:`T_P` and decoded together, o tokens each in steps of :math:`d(N)`, they leave at

.. math:: \lambda = \frac{N}{N T_P / P + (o - 1)\, d(N)}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sympy import Expr, sympify

from costmodel.case import Case
from costmodel.catalog.hardware import load_host
from costmodel.evaluation import FloatArray, evaluate, evaluate_expressions, resolve
from costmodel.memory import memory
from costmodel.program import Program
from costmodel.studies.prefill import prefill
from costmodel.symbols import sym
from costmodel.timing.device import resolve_device
from costmodel.timing.model import load_time_model

__all__ = ["Served", "served"]

_KIND = "any_stack"


@dataclass(frozen=True)
class Served:
    """A case at the limit of memory, over output tokens.

    Attributes
    ----------
    outputs : ndarray
        Tokens generated for each request.
    requests : ndarray
        Requests that decode together.
    prefill_s, prefill_band_s : float, tuple of float
        Time to prefill one request, several together, and its 90 % band [s].
    step_s, step_band_s : ndarray, tuple of ndarray
        One decode step of all requests at their mean length, and its 90 % band [s].
    cache_bytes : ndarray
        Of one request at its full length [B].
    """

    outputs: FloatArray
    requests: FloatArray
    prefill_s: float
    prefill_band_s: tuple[float, float]
    step_s: FloatArray
    step_band_s: tuple[FloatArray, FloatArray]
    cache_bytes: FloatArray

    @property
    def decode_s(self) -> FloatArray:
        """Share of a request in the decode steps of all [s]."""
        return (self.outputs - 1) * self.step_s / np.maximum(self.requests, 1)

    @property
    def requests_per_s(self) -> FloatArray:
        """Requests that leave per second; 0 where not one fits."""
        return _rate(self.requests, self.prefill_s, self.decode_s)

    @property
    def band_per_s(self) -> tuple[FloatArray, FloatArray]:
        """Band of `requests_per_s`: all times at the slow, and at the fast ends of theirs."""
        fast, slow = (
            _rate(
                self.requests, self.prefill_band_s[side],
                self.decode_s * self.step_band_s[side] / self.step_s,
            )
            for side in (0, 1)
        )  # fmt: skip
        return slow, fast


def served(
    case: Case,
    outputs: npt.ArrayLike,
    *,
    prefill_batch: int = 8,
    usable: float = 0.9,
    requests: npt.ArrayLike | None = None,
) -> Served:
    """Return what a GPU holds and serves.

    Parameters
    ----------
    case : Case
        From `costmodel.prepare`, with a calibrated time model.
    outputs : array_like
        Tokens generated for each request.
    prefill_batch : int
        Requests prefilled together (P).
    usable : float
        Share of the memory that may be used (u).
    requests : array_like, optional
        Decode so many together, instead of as many as fit.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> found = served(prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64), [64])
    >>> int(found.requests[0])
    85
    """
    numbers = np.asarray(outputs, dtype=np.float64)
    program, plan = case.program()
    alone = memory(program, b=1, o=numbers)
    peak = memory(program, b=prefill_batch, o=0)
    free = usable * case.gpu.capacity_bytes - float(alone.weights.flat[0])
    free -= float(peak.activations_peak) + prefill_batch * _evicted_bytes(
        program, [(g.layers, g.entering, g.cached) for g in plan.decoder_groups] if plan else []
    )
    if requests is None:
        held = np.maximum(np.floor(free / alone.kv_cache), 0.0)
    else:
        held = np.broadcast_to(np.asarray(requests, dtype=np.float64), numbers.shape)
    first = prefill(case, batch=prefill_batch)
    decode = evaluate(program, "decode", b=np.maximum(held, 1), o=numbers)
    device = resolve_device(case.gpu, load_host(), case.deployment)
    steps = load_time_model(case.time_model).times(decode, device, case.deployment)
    low, high = (side / prefill_batch for side in first.bands[_KIND])
    return Served(
        outputs=numbers,
        requests=held,
        prefill_s=float(first.ttft_s) / prefill_batch,
        prefill_band_s=(float(low), float(high)),
        step_s=decode.total(steps.op_s) + steps.host_overhead_s,
        step_band_s=(steps.low_s[_KIND], steps.high_s[_KIND]),
        cache_bytes=np.broadcast_to(alone.kv_cache, numbers.shape),
    )


def _rate(requests: FloatArray, prefill_s: float, decode_s: FloatArray) -> FloatArray:
    return np.where(requests > 0, 1 / (prefill_s + decode_s), 0.0)


def _evicted_bytes(program: Program, groups: list[tuple[int, Expr | int, Expr | int]]) -> float:
    """Keys and values of visual tokens that a request drops at the end of its prefill [B]."""
    if not groups:
        return 0.0
    values = resolve(program, "prefill")
    sizes = [sympify(size) for _, entering, cached in groups for size in (entering, cached)]
    found = [float(size) for size in evaluate_expressions(sizes, values)]
    tokens = sum(
        layers * max(before - after, 0.0)
        for (layers, _, _), before, after in zip(groups, found[::2], found[1::2], strict=True)
    )
    row = 2 * sym("G") * sym("D") / sym("N") * sym("bkv")
    return tokens * float(evaluate_expressions([row], values)[0])
