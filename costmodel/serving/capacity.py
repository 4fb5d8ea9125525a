r"""GPUs for a rate of requests and a target for the time to the first token.

Every replica (one GPU, or several with tensor parallelism) takes an equal random share of Poisson
arrivals.  It prefills waiting requests first and one at a time, in time S, and decodes all others
together in the rest of its time, so that a step of c requests that takes d(c) alone takes

.. math:: \frac{d(c)}{1 - \rho}, \qquad \rho = \lambda S.

By Little's law [1]_ the mean number of requests that decode is the smallest c with

.. math:: \lambda \, o \, \frac{d(c)}{1 - \rho} \le c

for o output tokens.  It varies as a Poisson number does where service is shared [2]_; memory must
hold its 99 % quantile.  The time to the first token is S, the wait for earlier prefills, and the
rest of one decode step (`costmodel.serving.queueing`).

References
----------
.. [1] J. Little, A proof for the queuing formula L = lambda W, Operations Research 9 (1961).
.. [2] F. Kelly, Reversibility and Stochastic Networks, Wiley 1979, section 3.3 (insensitivity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from costmodel.case import Case
from costmodel.errors import InputError, UnknownNameError
from costmodel.estimation import estimate_case
from costmodel.memory import memory
from costmodel.points import evaluate_grid
from costmodel.results import Estimate
from costmodel.serving.queueing import mean_wait_s, wait_quantile_s

__all__ = ["Capacity", "Replica", "Target", "capacity", "most_requests", "replicas_for"]

BOUNDS = ("low", "predicted", "high")
_MOST_CONCURRENT = 4096
_MOST_REPLICAS = 1_000_000
_SURE = 2.326  # 99 % quantile of the normal distribution
_ROUNDS = 60


@dataclass(frozen=True)
class Target:
    """What users must get.

    Attributes
    ----------
    ttft_s : float
        Time to the first token that `quantile` of the requests must not exceed [s].
    quantile : float
        Share of the requests.
    tpot_s : float, optional
        Mean time per output token that must not be exceeded [s].
    """

    ttft_s: float
    quantile: float = 0.95
    tpot_s: float | None = None


@dataclass(frozen=True, eq=False)
class Replica:
    """What one replica can do.

    Attributes
    ----------
    gpus : int
        Devices of it.
    prefill_s : float
        Time to the first token of a request alone [s].
    step_s : ndarray
        Time of one decode step of 1, 2, ... requests, averaged over their outputs [s]; as
        many entries as requests fit into memory, at most 4096.
    output_tokens : int
        Of each request.
    memory_bound : bool
        Whether memory, not `step_s`, ends at its last entry.
    """

    gpus: int
    prefill_s: float
    step_s: npt.NDArray[np.float64]
    output_tokens: int
    memory_bound: bool = True

    @classmethod
    def of(cls, case: Case, *, bound: str = "predicted", reserve: float = 0.1) -> Replica:
        """Return the replica that serves requests like that of a case, prefilled one by one.

        Parameters
        ----------
        case : Case
            From `costmodel.prepare`, with its output tokens and of any batch.
        bound : {"low", "predicted", "high"}
            Edge of the 90 % band for any lab and software that times are taken at.  Bands of decode
            steps are evaluated at one and at the most requests; between them their ratio follows
            the logarithm of the batch.
        reserve : float
            Share of the memory that is kept free for the engine.

        Returns
        -------
        Replica
            Without entries in `step_s` if not one request fits.

        Raises
        ------
        UnknownNameError
            If the bound is unknown.
        InputError
            If `reserve` is no share, or a bound is asked of a time model that has none.

        Examples
        --------
        >>> from costmodel.case import prepare
        >>> case = prepare("llava-1.5-7b", "rtx-a6000", text_tokens=64, output_tokens=128)
        >>> replica = Replica.of(case)
        >>> len(replica.step_s), replica.gpus
        (79, 1)
        """
        if bound not in BOUNDS:
            raise UnknownNameError("bound", bound, BOUNDS)
        if not 0 <= reserve < 1:
            raise InputError("reserve", reserve, "a share from 0 to below 1")
        single = replace(case, workload=case.workload.model_copy(update={"batch": 1}))
        estimate = estimate_case(single)
        if bound != "predicted" and estimate.interval_s["ttft"]["any_stack"] is None:
            raise InputError("bound", bound, "predicted: this time model has no bands")
        program, _ = single.program()
        used = memory(program)
        room = single.gpu.memory.capacity.si * (1 - reserve)
        room -= float(used.weights) + float(used.activations_peak)
        fits = max(int(room // float(used.kv_cache)), 0)
        count = min(fits, _MOST_CONCURRENT)
        steps = np.empty(0)
        if count and single.workload.output_tokens:
            batches = np.arange(1, count + 1)
            steps = evaluate_grid(single, batch=batches).time_s["tpot"]
            most = single.workload.model_copy(update={"batch": count})
            ends = estimate, estimate_case(replace(single, workload=most))
            ratios = [_bound_s(end, "tpot", bound) / end.time_s["tpot"] for end in ends]
            steps = steps * np.interp(np.log(batches), [0.0, max(np.log(count), 1e-9)], ratios)
        elif count:
            steps = np.zeros(count)
        return cls(
            gpus=single.deployment.tp,
            prefill_s=_bound_s(estimate, "ttft", bound),
            step_s=steps,
            output_tokens=single.workload.output_tokens,
            memory_bound=fits <= _MOST_CONCURRENT,
        )


def _bound_s(estimate: Estimate, which: str, bound: str) -> float:
    """Return a time, or an edge of its band for any lab and software [s]."""
    if bound == "predicted":
        return estimate.time_s[which]
    low, high = estimate.interval_s[which]["any_stack"]
    return float(low if bound == "low" else high)


@dataclass(frozen=True)
class Capacity:
    """How one replica fares under a load.

    Attributes
    ----------
    requests_per_s : float
        Its load [1/s].
    prefill_share : float
        Share of the time it prefills.
    concurrent, concurrent_99 : float
        Requests that decode at once: mean and 99 % quantile.
    tpot_s : float
        Mean time per output token, prefills of others included [s].
    ttft_mean_s : float
        Mean time to the first token [s].
    ttft_quantile_s : float
        Upper bound of its quantile [s].
    missed : str
        First thing that is not met: ``memory``, ``rate`` (more work than time), ``ttft`` or
        ``tpot``; empty if all is.
    """

    requests_per_s: float
    prefill_share: float
    concurrent: float
    concurrent_99: float
    tpot_s: float
    ttft_mean_s: float
    ttft_quantile_s: float
    missed: str


def capacity(replica: Replica, requests_per_s: float, target: Target) -> Capacity:
    """Return how one replica fares under a load.

    Parameters
    ----------
    replica : Replica
    requests_per_s : float
        Poisson arrivals at this replica [1/s].
    target : Target

    Returns
    -------
    Capacity

    Raises
    ------
    InputError
        If the rate is negative or not finite, or a target is not positive.

    Examples
    --------
    >>> busy = Replica(1, 0.1, np.full(64, 0.03), 100)
    >>> found = capacity(busy, 4.0, Target(ttft_s=1.0))
    >>> found.concurrent, round(found.tpot_s, 6), found.missed
    (20.0, 0.05, '')
    >>> capacity(busy, 11.0, Target(ttft_s=1.0)).missed
    'rate'
    """
    _check(target)
    prefill_s, steps = replica.prefill_s, replica.step_s
    share = requests_per_s * prefill_s
    ideal = mean_wait_s(requests_per_s, prefill_s)
    if not steps.size:
        return _failed(requests_per_s, share, "memory")
    if share >= 1:
        return _failed(requests_per_s, share, "rate")
    work = requests_per_s * replica.output_tokens * steps / (1 - share)
    enough = np.flatnonzero(work <= np.arange(1, steps.size + 1))
    if not enough.size:
        return _failed(requests_per_s, share, "memory" if replica.memory_bound else "rate")
    # Between two whole numbers the load decides: few requests are often fewer than one.
    step_s = float(steps[enough[0]])
    mean = float(work[enough[0]])
    most = mean + _SURE * math.sqrt(mean)
    tpot_s = step_s / (1 - share) if replica.output_tokens else 0.0
    busy_s = step_s if replica.output_tokens else 0.0
    wait_s = wait_quantile_s(target.quantile, requests_per_s, prefill_s, step_s=busy_s)
    found = Capacity(
        requests_per_s, share, mean, most, tpot_s,
        prefill_s + ideal + busy_s / 2 * min(1.0, mean), prefill_s + wait_s, "",
    )  # fmt: skip
    return replace(found, missed=_missed(found, target, steps.size))


def replicas_for(replica: Replica, requests_per_s: float, target: Target) -> int | None:
    """Return how many replicas serve a rate, None if no number does.

    Parameters
    ----------
    replica : Replica
    requests_per_s : float
        Of all together [1/s].
    target : Target

    Returns
    -------
    int or None

    Examples
    --------
    >>> busy = Replica(1, 0.1, np.full(64, 0.03), 100)
    >>> replicas_for(busy, 40.0, Target(ttft_s=1.0)), replicas_for(busy, 1.0, Target(ttft_s=0.05))
    (7, None)
    """

    def serves(count: int) -> bool:
        return not capacity(replica, requests_per_s / count, target).missed

    if not serves(_MOST_REPLICAS):
        return None
    low, high = 0, 1
    while not serves(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if serves(middle) else (middle, high)
    return high


def most_requests(replica: Replica, target: Target) -> float:
    """Return the highest rate that one replica serves within a target [1/s].

    Parameters
    ----------
    replica : Replica
    target : Target

    Returns
    -------
    float
        0 if it cannot serve a single request in time.

    Examples
    --------
    >>> busy = Replica(1, 0.1, np.full(64, 0.03), 100)
    >>> best = most_requests(busy, Target(ttft_s=1.0))
    >>> capacity(busy, best, Target(ttft_s=1.0)).missed
    ''
    """
    low, high = 0.0, 1 / replica.prefill_s
    if capacity(replica, low, target).missed:
        return 0.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (low, middle) if capacity(replica, middle, target).missed else (middle, high)
    return low


def _missed(found: Capacity, target: Target, fits: int) -> str:
    if max(found.concurrent_99, 1.0) > fits:
        return "memory"
    if found.ttft_quantile_s > target.ttft_s:
        return "ttft"
    if target.tpot_s is not None and found.tpot_s > target.tpot_s:
        return "tpot"
    return ""


def _failed(requests_per_s: float, share: float, missed: str) -> Capacity:
    return Capacity(
        requests_per_s, share, math.inf, math.inf, math.inf, math.inf, math.inf, missed
    )  # fmt: skip


def _check(target: Target) -> None:
    for name in ("ttft_s", "tpot_s"):
        value = getattr(target, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(name, value, "a positive time")
