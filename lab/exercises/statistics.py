"""Exact binomial bounds: how many of N answers may be of a kind.

Shares of random choices cannot be asserted exactly. These bounds are chosen so that a correct
system leaves them with a probability of at most MISS; all checks of all exercises together then
fail by bad luck less than once in a million runs.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p

MISS = 1e-7
"""The probability that one check of a correct system fails."""


def _probability(k: int, n: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == (n if p else 0))
    ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return exp(ways + k * log(p) + (n - k) * log1p(-p))


def bounds(n: int, share: float, miss: float = MISS) -> tuple[int, int]:
    """Returns the fewest and the most of `n` that are believable at a probability of `share`.

    Two-sided: fewer, or more, have a probability of at most `miss`/2 each.
    """
    if not 0 <= share <= 1:
        raise ValueError("a share is between 0 and 1")
    return n - most(n, 1 - share, miss / 2), most(n, share, miss / 2)


def most(n: int, share: float, miss: float = MISS) -> int:
    """Returns the most of `n` that are believable at a probability of at most `share`."""
    high, above = n, 0.0
    while high > 0 and above + (chance := _probability(high, n, share)) <= miss:
        above += chance
        high -= 1
    return high
