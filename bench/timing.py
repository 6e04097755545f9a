"""Timing several things in turn, so that noise of the machine meets all of them alike.

Every round times each case once, in a fresh random order. What is reported are ratios of cases
within a round, then their median and quartiles over the rounds: a slow minute then cancels.

Where a CPU is shared with others all the time, waiting for it is most of what the wall's clock
sees. `--clock=cpu` then counts what this process had; on one core (`taskset -c 0`), so that no
thread spins while it waits for another.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_MAX_CALLS = 1000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLOCK_NAMES = {"wall": "wall-clock time", "cpu": "CPU time of this process"}


class Quartiles(NamedTuple):
    """Median and the quartiles around it."""

    median: float
    low: float
    high: float


def time_interleaved(
    cases: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    min_seconds: float,
    seed: int = 0,
    on_round: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] | None = None,
) -> dict[str, FloatArray]:
    """Time all cases round by round.

    Args:
        cases: name -> a function that starts the work and returns what to wait for.
        rounds: how often each case is timed.
        min_seconds: a timing repeats its case until it takes about this long, so that the time
            of a dispatch does not count where work is short.
        seed: of the orders.
        on_round: called with the number of finished rounds.
        clock: counts seconds; by default those on the wall.

    Returns:
        name -> seconds of one call in each round, [rounds].
    """
    clock = clock or time.perf_counter
    for call in cases.values():  # compile, and touch memory for the first time
        jax.block_until_ready(call())
    calls = {
        name: calls_for(seconds_of(call, 1, clock), min_seconds) for name, call in cases.items()
    }
    seconds = {name: np.zeros(rounds) for name in cases}
    timed = endless_rounds(cases, calls, seed=seed, clock=clock)
    for r, found in enumerate(itertools.islice(timed, rounds)):
        for name, value in found.items():
            seconds[name][r] = value
        on_round(r + 1)
    return seconds


def endless_rounds(
    cases: Mapping[str, Callable[[], Any]],
    calls: Mapping[str, int],
    *,
    seed: int = 0,
    clock: Callable[[], float] | None = None,
) -> Iterator[dict[str, float]]:
    """Time all cases round after round, for as long as somebody asks for the next one.

    Args:
        cases: name -> a function that starts the work and returns what to wait for; each has been
            called before, so that it is compiled.
        calls: how often a timing repeats each of them.
        seed: of the orders.
        clock: counts seconds.

    Yields:
        name -> seconds of one call.
    """
    clock = clock or time.perf_counter
    rng, names = np.random.default_rng(seed), list(cases)
    while True:
        order = [names[k] for k in rng.permutation(len(names))]
        yield {name: seconds_of(cases[name], calls[name], clock) for name in order}


def add_clock_flag(parser: argparse.ArgumentParser) -> None:
    """Let the command line choose one of `CLOCKS`."""
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: the seconds this process had"
    )


def calls_for(seconds: float, min_seconds: float) -> int:
    """Return how many calls of `seconds` each take `min_seconds`, at least 1."""
    return max(1, min(_MAX_CALLS, math.ceil(min_seconds / max(seconds, 1e-9))))


def seconds_of(
    call: Callable[[], Any], num_calls: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds of one call, until what it returns is there.

    Args:
        call: starts the work and returns what to wait for.
        num_calls: calls to take the mean of.
        clock: counts seconds.
    """
    # CPU devices run independent calls side by side; a stream runs them one after another, and
    # waiting for each would count the way back to the host.
    is_to_wait = jax.default_backend() == "cpu"
    start = clock()
    for _ in range(num_calls):
        out = call()
        if is_to_wait:
            jax.block_until_ready(out)
    jax.block_until_ready(out)
    return (clock() - start) / num_calls


def quartiles(values: FloatArray) -> Quartiles:
    """Return median and quartiles."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Quartiles(float(median), float(low), float(high))


def weighted_sum(columns: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """Return the weighted sum of timings, round by round, [rounds]."""
    return np.sum([w * c for w, c in zip(weights, columns, strict=True)], axis=0)
