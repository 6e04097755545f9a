"""Interleaving: every case once a round, in changing orders, the slow minute cancelled."""

import itertools
import time

import numpy as np
import pytest

from bench import timing
from bench.timing import CLOCKS, calls_for, quartiles, time_interleaved, weighted_sum


def test_every_round_times_every_case_in_its_own_order(monkeypatch):
    monkeypatch.setattr(timing, "calls_for", lambda *_: 1)
    log = []
    cases = {name: lambda name=name: log.append(name) for name in "abcd"}
    seconds = time_interleaved(cases, rounds=20, min_seconds=0.0)
    assert all(column.shape == (20,) and np.all(column > 0) for column in seconds.values())
    rounds = [tuple(log[i : i + 4]) for i in range(8, len(log), 4)]  # after warm-up
    assert len(rounds) == 20
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 5


def test_a_machine_that_slows_down_does_not_change_the_ratio(monkeypatch):
    """Case b costs twice case a; the clock runs 3 times faster in the second half."""
    now, slowness = 0.0, itertools.chain([1.0] * 24, itertools.repeat(3.0))

    def work(cost):
        nonlocal now
        now += cost * next(slowness)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    monkeypatch.setattr(timing, "calls_for", lambda *_: 1)
    cases = {"a": lambda: work(1.0), "b": lambda: work(2.0)}
    seconds = time_interleaved(cases, rounds=20, min_seconds=0.0)
    assert quartiles(seconds["b"] / seconds["a"]) == (2.0, 2.0, 2.0)


def test_short_work_is_repeated_and_reported_per_call(monkeypatch):
    now = 0.0

    def work():
        nonlocal now
        now += 0.25

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    seconds = time_interleaved({"a": work}, rounds=2, min_seconds=1.0)
    assert seconds["a"].tolist() == [0.25, 0.25]
    assert now == 0.25 * (2 + 2 * 4)  # warm-up, calibration, two rounds of four calls


def test_the_clock_of_the_cpu_does_not_count_waiting():
    cases = {"asleep": lambda: time.sleep(0.1), "busy": lambda: sum(range(3_000_000))}
    seconds = time_interleaved(cases, rounds=2, min_seconds=0.0, clock=CLOCKS["cpu"])
    assert max(seconds["asleep"]) < 0.05 and min(seconds["busy"]) > 0.01


@pytest.mark.parametrize("seconds, calls", [(0.5, 1), (0.01, 2), (0.0066, 4), (0.0, 1000)])
def test_calls_that_fill_the_time(seconds, calls):
    assert calls_for(seconds, 0.02) == calls


def test_quartiles_and_weighted_sums():
    assert quartiles(np.array([4.0, 1, 3, 2, 5])) == (3.0, 2.0, 4.0)
    columns = [np.array([1.0, 2]), np.array([10.0, 20])]
    np.testing.assert_allclose(weighted_sum(columns, (0.5, 0.25)), [3.0, 6.0])
