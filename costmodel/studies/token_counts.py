r"""Numbers of tokens that images decide: probabilities, the longest of a batch, buckets.

Counts are normal values of a mean and a deviation, rounded to whole tokens and held in
:math:`[1, m]`.  With :math:`F(n) = P(N \le n)`, the longest of b independent requests has the mean

.. math:: E[\max] = \sum_{n=0}^{m - 1} \left(1 - F(n)^b\right),

which is exact for any distribution of whole numbers [1]_.

References
----------
.. [1] H. A. David and H. N. Nagaraja, Order Statistics, 3rd edition, Wiley 2003, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from costmodel.errors import InputError
from costmodel.evaluation import FloatArray

__all__ = ["TokenCounts"]


@dataclass(frozen=True)
class TokenCounts:
    """A distribution of whole numbers of tokens.

    Attributes
    ----------
    tokens : ndarray
        1, 2 ... up to most.
    share : ndarray
        Probability of each.
    """

    tokens: FloatArray
    share: FloatArray

    @classmethod
    def normal(cls, mean: float, deviation: float, most: int) -> TokenCounts:
        """Return rounded normal counts, those outside of 1 to `most` at the ends.

        Raises
        ------
        InputError
            If the mean is not in between, or the deviation is negative.

        Examples
        --------
        >>> counts = TokenCounts.normal(89, 27, 576)
        >>> round(counts.mean, 1), counts.quantile(0.5), counts.quantile(0.95)
        (89.0, 89, 133)
        """
        if not 1 <= mean <= most:
            raise InputError("mean", mean, f"a number from 1 to {most}")
        if deviation < 0:
            raise InputError("deviation", deviation, "0 or more")
        tokens = np.arange(1, most + 1, dtype=np.float64)
        if deviation == 0:
            return cls(tokens, (tokens == round(mean)).astype(np.float64))
        normal = NormalDist(mean, deviation)
        below = np.array([normal.cdf(n + 0.5) for n in tokens])
        below[-1] = 1.0
        return cls(tokens, np.diff(below, prepend=0.0))

    @property
    def mean(self) -> float:
        """Mean [tokens]."""
        return float(self.tokens @ self.share)

    @property
    def below(self) -> FloatArray:
        """Probability of at most each number."""
        return np.minimum(np.cumsum(self.share), 1.0)

    def quantile(self, share: float) -> int:
        """Return the least number that this share of the images does not exceed [tokens]."""
        return int(self.tokens[np.searchsorted(self.below, share)])

    def expected_longest(self, batch: int) -> float:
        """Return the mean of the longest of some requests [tokens].

        Examples
        --------
        >>> counts = TokenCounts.normal(89, 27, 576)
        >>> [round(counts.expected_longest(batch)) for batch in (1, 8, 64)]
        [89, 127, 152]
        """
        return 1.0 + float(np.sum(1.0 - self.below[:-1] ** batch))

    def bucketed(self, size: int) -> FloatArray:
        """Return each number rounded up to a multiple of `size`, at most the largest number."""
        rounded: FloatArray = np.minimum(np.ceil(self.tokens / size) * size, self.tokens[-1])
        return rounded

    def buckets(self, size: int, share: float = 0.999) -> int:
        """Return how many multiples of `size` hold that share of the images, tails halved."""
        low, high = (self.quantile(q) for q in ((1 - share) / 2, (1 + share) / 2))
        return int(np.ceil(high / size) - np.ceil(low / size)) + 1

    def expected(self, values: FloatArray) -> float:
        """Return the mean of a quantity that is given for every number of tokens."""
        return float(values @ self.share)
