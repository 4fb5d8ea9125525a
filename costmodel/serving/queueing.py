r"""Waiting for the prefill of requests that arrive at random: one server, Poisson arrivals.

Requests arrive at rate :math:`\lambda` and are prefilled one after the other in a time S.  With
:math:`\rho = \lambda E[S] < 1` the mean wait is Pollaczek and Khinchine's [1]_ (5.15),

.. math:: E[W] = \frac{\lambda E[S^2]}{2 (1 - \rho)},

and the tail obeys Lundberg's inequality [2]_ (5.17),

.. math:: P(W > t) \le \min(\rho, e^{-\theta t}), \qquad
          \lambda (E[e^{\theta S}] - 1) = \theta, \; \theta > 0,

which holds for every t, and whose exponent is the exact one.  A server that decodes while nobody
waits must end its step first: the wait grows by the rest of that step, independent of W [3]_.

References
----------
.. [1] L. Kleinrock, Queueing Systems, Volume 1, Wiley 1975, section 5.6.
.. [2] S. Asmussen and H. Albrecher, Ruin Probabilities, 2nd edition, World Scientific 2010,
   section IV.5 and its duality with waiting, section III.3.
.. [3] S. Fuhrmann and R. Cooper, Stochastic decompositions in the M/G/1 queue with generalized
   vacations, Operations Research 33 (1985), https://doi.org/10.1287/opre.33.5.1117
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from costmodel.errors import InputError

__all__ = ["mean_wait_s", "tail_decay_per_s", "wait_quantile_s"]

_ROUNDS = 200


def mean_wait_s(
    rate_per_s: float, service_s: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Return the mean wait before service begins [s].

    Parameters
    ----------
    rate_per_s : float
        Arrivals [1/s].
    service_s : array_like
        Possible service times [s].
    weights : array_like, optional
        Their probabilities; equal by default.

    Returns
    -------
    float
        Infinity where the server cannot keep up.

    Raises
    ------
    InputError
        If a number is negative, not finite or of another count.

    Examples
    --------
    A server that is busy half of the time lets one wait half a service:

    >>> round(mean_wait_s(5.0, 0.1), 12)
    0.05
    """
    rate, times, shares = _checked(rate_per_s, service_s, weights)
    load = rate * float(times @ shares)
    return math.inf if load >= 1 else rate * float(times**2 @ shares) / (2 * (1 - load))


def tail_decay_per_s(
    rate_per_s: float, service_s: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    r"""Return the rate :math:`\theta` at which the tail of the wait decays [1/s].

    Parameters
    ----------
    rate_per_s, service_s, weights
        As in `mean_wait_s`.

    Returns
    -------
    float
        0 where the server cannot keep up, infinity where nobody arrives.

    Examples
    --------
    >>> theta = tail_decay_per_s(5.0, 0.1)
    >>> round(5.0 * (math.exp(0.1 * theta) - 1) / theta, 12)
    1.0
    """
    rate, times, shares = _checked(rate_per_s, service_s, weights)
    load = rate * float(times @ shares)
    if rate == 0 or load == 0:
        return math.inf
    if load >= 1:
        return 0.0

    def excess(theta: float) -> float:
        # expm1 of more than 700 is beyond the floats, and far beyond the root.
        return rate * float(np.expm1(np.minimum(theta * times, 700.0)) @ shares) - theta

    low, high = 0.0, 1.0 / float(times.max())
    while excess(high) < 0:
        low, high = high, 2 * high
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low


def wait_quantile_s(
    quantile: float,
    rate_per_s: float,
    service_s: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    step_s: float = 0.0,
) -> float:
    """Return an upper bound of a quantile of the wait before service begins [s].

    Parameters
    ----------
    quantile : float
        Between 0 and 1, for example 0.95.
    rate_per_s, service_s, weights
        As in `mean_wait_s`.
    step_s : float
        Longest piece of other work that the server may have to end first [s].

    Returns
    -------
    float
        Infinity where the server cannot keep up.

    Raises
    ------
    InputError
        If a number is negative, not finite, of another count, or no quantile.

    Examples
    --------
    More than nine of ten find an idle server where it is busy 8 % of the time:

    >>> wait_quantile_s(0.9, 0.8, 0.1)
    0.0
    >>> round(wait_quantile_s(0.95, 5.0, 0.1), 3), round(wait_quantile_s(0.95, 9.0, 0.1), 3)
    (0.238, 1.446)
    """
    if not 0 < quantile < 1:
        raise InputError("quantile", quantile, "a number between 0 and 1")
    if not (math.isfinite(step_s) and step_s >= 0):
        raise InputError("step_s", step_s, "a finite time of at least 0")
    rate, times, shares = _checked(rate_per_s, service_s, weights)
    load = rate * float(times @ shares)
    if load >= 1:
        return math.inf
    if 1 - quantile >= load:
        return step_s
    return -math.log(1 - quantile) / tail_decay_per_s(rate, times, shares) + step_s


def _checked(
    rate_per_s: float, service_s: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    times = np.atleast_1d(np.asarray(service_s, dtype=np.float64)).ravel()
    shares = np.ones_like(times) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = np.atleast_1d(shares).ravel()
    if not (math.isfinite(rate_per_s) and rate_per_s >= 0):
        raise InputError("rate_per_s", rate_per_s, "a finite rate of at least 0")
    if times.size == 0 or not np.isfinite(times).all() or (times < 0).any():
        raise InputError("service_s", service_s, "finite times of at least 0, and at least one")
    if shares.shape != times.shape or not np.isfinite(shares).all() or (shares < 0).any():
        raise InputError("weights", weights, f"{times.size} finite numbers of at least 0")
    if shares.sum() <= 0:
        raise InputError("weights", weights, "a positive sum")
    return float(rate_per_s), times, shares / shares.sum()
