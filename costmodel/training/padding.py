"""Padding: samples that a GPU computes together are as long as the longest of them."""

from __future__ import annotations

import math

__all__ = ["expected_longest"]

_STEPS = 200


def expected_longest(mean: float, samples: int, most: float) -> float:
    r"""Return the expected length of the longest of some samples, of which the mean is known.

    Lengths are taken as exponential, the distribution that assumes least where only the mean is
    known, cut off at the longest that is allowed:

    .. math::
        E[\max] = s \sum_{k=1}^{N} \frac{u^k}{k}, \qquad u = 1 - e^{-c/s}, \qquad s u = \bar{t}

    Parameters
    ----------
    mean : float
        Mean length, cut off lengths included (t).
    samples : int
        How many are padded to the longest of them (N).
    most : float
        Longest length, to which longer samples are cut (c).

    Returns
    -------
    float
        At least the mean, at most `most`, unless the mean is more.

    References
    ----------
    .. [1] Order statistics of exponentials: the k-th spacing of N has the mean ``s / k``;
       H. A. David and H. N. Nagaraja, Order Statistics, section 2.5.
    .. [2] E. T. Jaynes, Phys. Rev. 106, 620 (1957): maximum entropy for a given mean.

    Examples
    --------
    Far below the limit the mean times 1 + 1/2 + ... + 1/16 = 3.38:

    >>> round(expected_longest(25, 1, 2000)), round(expected_longest(25, 16, 2000), 1)
    (25, 84.5)
    >>> round(expected_longest(1024, 16, 2048))
    2041
    """
    if mean >= most:
        return mean
    scale = _scale(mean, most)
    share = -math.expm1(-most / scale)
    return scale * math.fsum(share**k / k for k in range(1, samples + 1))


def _scale(mean: float, most: float) -> float:
    """Return the mean s before lengths are cut, by bisection of its logarithm."""
    low, high = math.log(mean), math.log(mean) + 1
    while math.exp(high) * -math.expm1(-most / math.exp(high)) < mean:
        high += high - low
        if high - low > _STEPS:
            return math.exp(high)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        scale = math.exp(middle)
        if scale * -math.expm1(-most / scale) < mean:
            low = middle
        else:
            high = middle
    return math.exp(high)
