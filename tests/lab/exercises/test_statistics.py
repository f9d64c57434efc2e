"""The bounds of shares: as wide as chance needs, and no wider."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.exercises.statistics import bounds, most


def outside(n: int, share: Fraction, low: int, high: int) -> Fraction:
    """The exact chance of fewer than `low` or more than `high` of `n`."""
    chance = Fraction(0)
    for k in (*range(low), *range(high + 1, n + 1)):
        chance += comb(n, k) * share**k * (1 - share) ** (n - k)
    return chance


@given(st.integers(1, 120), st.integers(0, 20).map(lambda k: Fraction(k, 20)))
def test_a_correct_system_leaves_the_bounds_less_often_than_stated(n: int, share: Fraction) -> None:
    low, high = bounds(n, float(share), 1e-4)
    assert outside(n, share, low, high) <= Fraction(1, 9999)


@given(st.integers(10, 120), st.integers(1, 19).map(lambda k: Fraction(k, 20)))
def test_the_bounds_are_the_narrowest(n: int, share: Fraction) -> None:
    low, high = bounds(n, float(share), 1e-2)
    assert low == 0 or outside(n, share, low + 1, n) > Fraction(1, 201)
    assert high == n or outside(n, share, 0, high - 1) > Fraction(1, 201)


def test_the_exercises_own_numbers() -> None:
    assert bounds(200, 0.8) == (128, 187)
    assert bounds(100, 0.5) == (24, 76)
    assert bounds(50, 0.0) == (0, 0)
    assert bounds(50, 1.0) == (50, 50)


def test_twenty_to_eighty_is_told_from_half_and_half_and_from_all() -> None:
    low, high = bounds(200, 0.8)
    assert outside(200, Fraction(1, 2), low, high) > Fraction(9999, 10000)
    assert high < 200


def test_a_small_chance_allows_few() -> None:
    assert most(100, 2e-6) == 1
    assert most(100, 0.0) == 0
    assert most(100, 1.0) == 100


def test_a_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounds(10, 1.5)
