"""Intervals against tabulated Student quantiles."""

import pytest

from experiments.analysis.statistics import paired_difference, t_interval


def test_three_values_have_the_tabulated_interval():
    """Mean 2, sd 1, t_2(0.975) = 4.30265: 2 +- 4.30265 / sqrt(3)."""
    found = t_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert found.low == pytest.approx(2 - 2.4841377)
    assert found.high == pytest.approx(2 + 2.4841377)


def test_one_value_has_no_spread_and_none_has_nothing():
    assert t_interval([5.0]) == (5.0, None, None, None, 1)
    assert t_interval([]) is None


def test_differences_are_taken_seed_by_seed():
    """A constant difference has no spread, however far apart the seeds are."""
    found = paired_difference({0: 11.0, 1: 101.0, 2: 5.0}, {0: 10.0, 1: 100.0, 7: 1.0})
    assert found == (1.0, 0.0, 1.0, 1.0, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
