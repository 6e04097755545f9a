"""Few seeds, honestly: mean, standard deviation and t intervals of paired differences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over n seeds; spread and bounds are None where n is too small to know them."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Return mean, standard deviation and Student's interval for the mean.

        mean +- t_{n-1} sd / sqrt(n)

    Args:
        values: one for each seed.
        confidence: coverage, in (0, 1).

    Returns:
        The interval; None without any value, without spread and bounds for a single one.
    """
    n = len(values)
    if n == 0:
        return None
    mean = float(np.mean(values))
    if n == 1:
        return Interval(mean, None, None, None, 1)
    sd = float(np.std(values, ddof=1))
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2)) * sd / np.sqrt(n)
    return Interval(mean, sd, mean - half, mean + half, n)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> Interval | None:
    """Return the interval of `values - baseline` over the seeds that both have."""
    seeds = sorted(values.keys() & baseline.keys())
    return t_interval([values[seed] - baseline[seed] for seed in seeds])
