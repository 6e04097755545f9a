"""What is tried and what is chosen."""

import math

import numpy as np
import pytest

from tests.advice.test_exact_law import DDIM, FLOW, spectrum_of
from tpdiff_jax.advice.choice import Limits, choose_setting, choose_windows, error_limit
from tpdiff_jax.advice.clip_spectrum import measure_spectrum
from tpdiff_jax.advice.search import Candidate, Problem, Search, StageCosts, law_spectrum
from tpdiff_jax.advice.settings_grid import (
    Setting,
    compositions,
    fitting_ladders,
    shared_calls,
    useful_strides,
)
from tpdiff_jax.data import MovingDigitsSpec

COPIES = ("stride", "nearest")
HALVES = {stride: 1.0 / stride for stride in (1, 2, 4, 8)}
COSTS = StageCosts(HALVES, HALVES)


def candidate(error, cost, *details, debt=0.0):
    setting = Setting((2, 1), *COPIES, (0.5, 0.5), (1, 1))
    return Candidate(setting, error, (debt,), details, cost, cost)


def slow_cov(num_frames, rate=0.99):
    return rate ** np.abs(np.subtract.outer(np.arange(num_frames), np.arange(num_frames)))


def test_sums_in_every_order():
    assert list(compositions(4, 2)) == [(1, 3), (2, 2), (3, 1)]
    assert list(compositions(5, 1)) == [(5,)]
    assert len(list(compositions(10, 3))) == math.comb(9, 2)


@pytest.mark.parametrize("num_calls, stages", [(30, 1), (30, 3), (31, 3), (7, 4), (3, 3), (5, 2)])
def test_calls_are_shared_out_in_full(num_calls, stages):
    ways = shared_calls(num_calls, stages)
    assert ways and len(set(ways)) == len(ways)
    assert all(len(way) == stages and sum(way) == num_calls and min(way) >= 1 for way in ways)


def test_too_few_calls():
    assert shared_calls(2, 3) == []


@pytest.mark.parametrize(
    "frames, strides, expected",
    [
        (16, (2, 4, 8), 6),
        (16, (2,), [(2, 1)]),
        (21, (2, 4, 8), [(2, 1), (4, 2, 1), (4, 1)]),
        (9, (2, 4, 8), 6),
        (2, (2, 4), []),
        (6, (2, 4), [(2, 1)]),
    ],
)
def test_ladders_fit_the_clips(frames, strides, expected):
    found = fitting_ladders(frames, strides, lambda ladder: True)
    assert found == expected or len(found) == expected
    assert fitting_ladders(frames, strides, lambda ladder: False) == []


def test_the_cheapest_of_those_within_the_limits():
    good, cheap = candidate(0.11, 0.8, 0.1), candidate(0.12, 0.6, 0.9)
    owing, wrong = candidate(0.1, 0.5, 0.0, 1.1), candidate(0.2, 0.4, 0.0)
    everything = [good, cheap, owing, wrong]
    assert error_limit(0.1) == pytest.approx(0.13)
    assert choose_setting(everything, 0.1) is cheap
    assert choose_setting(everything, 0.1, Limits(max_visible=0.5)) is good
    assert choose_setting(everything, 0.1, Limits(max_visible=2.0)) is owing
    indebted = candidate(0.1, 0.3, 0.1, debt=0.7)
    assert choose_setting([*everything, indebted], 0.1) is indebted
    assert choose_setting([*everything, indebted], 0.1, Limits(max_debt=0.6)) is cheap
    assert choose_setting([wrong], 0.1) is None
    assert choose_setting(everything, 0.1, Limits(max_cost=0.7)) is cheap
    assert choose_setting(everything, 0.1, Limits(max_cost=0.45)) is wrong
    assert choose_setting(everything, 0.1, Limits(max_cost=0.1)) is None


def test_among_equal_costs_the_least_error():
    first, second = candidate(0.11, 0.6, 0.9), candidate(0.12, 0.6, 0.2)
    assert choose_setting([first, second], 0.1) is first


def test_useful_strides_of_moving_digits():
    for stratum, expected in (("slow", (2,)), ("all", ()), ("fast", ())):
        dataset = MovingDigitsSpec(speed_stratum=stratum)
        clips = [dataset.clip("train", 0, index)["video"] for index in range(96)]
        assert useful_strides(measure_spectrum(clips)) == expected, stratum
    still = spectrum_of(np.ones((16, 16)))
    assert useful_strides(still) == (2, 4, 8)
    assert useful_strides(spectrum_of(np.eye(16))) == ()


@pytest.mark.parametrize(
    "frames, stride, kept",
    [(16, 8, 16), (25, 8, 25), (48, 8, 24), (49, 8, 25), (81, 4, 25), (60, 5, 20), (61, 5, 21)],
)
def test_long_clips_are_judged_by_their_start(frames, stride, kept):
    assert law_spectrum(spectrum_of(slow_cov(frames)), stride).num_frames == kept


@pytest.mark.parametrize("path", [FLOW, DDIM])
def test_costs_and_windows_of_the_grid(path):
    search = Search(Problem(spectrum_of(slow_cov(8)), path, "euler", 12), COSTS)
    vanilla = search.vanilla()
    assert vanilla.cost == 1.0 and vanilla.debts == () and vanilla.debt == vanilla.visible == 0.0
    found = list(search.candidates([(2, 1)], [COPIES]))
    assert {one.setting.steps_per_stage for one in found} == {
        (2, 10), (4, 8), (6, 6), (8, 4), (10, 2)
    }  # fmt: skip
    for one in found:
        coarse, fine = one.setting.steps_per_stage
        assert one.sampling_cost == pytest.approx((coarse / 2 + fine) / 12)
        assert one.training_cost == 0.75
        assert sum(one.setting.stage_fractions) == pytest.approx(1.0)
    # Stable Diffusion's path has no noise left for a jump of 8 from above t = 0.803.
    if path is DDIM:
        search = Search(Problem(spectrum_of(slow_cov(8)), path, "euler", 12), COSTS)
        assert len({one.setting[:4] for one in search.candidates([(4, 1)], [COPIES])}) == 9


def test_windows_for_a_given_pyramid():
    search = Search(Problem(spectrum_of(slow_cov(8)), FLOW, "euler", 12), COSTS)
    fixed = Setting((4, 2, 1), "stride", "nearest", (), (4, 4, 4))
    best = choose_windows(search, fixed)
    assert best.setting[0] == (4, 2, 1) and best.setting.steps_per_stage == (4, 4, 4)
    everything = list(search.with_windows((4, 2, 1), COPIES, [(4, 4, 4)], 20))
    limit = sorted(one.visible for one in everything)[len(everything) // 2]
    best = choose_windows(search, fixed, Limits(max_visible=limit))
    kept = [one for one in everything if one.visible <= limit]
    assert best.visible <= limit
    assert best.error == pytest.approx(min(one.error for one in kept), abs=1e-6)
    # No window within the limit: the least visible detail is left.
    loud = Search(Problem(spectrum_of(1e8 * np.eye(8)), FLOW, "euler", 12), COSTS)
    found = choose_windows(loud, fixed)
    details = [one.visible for one in loud.with_windows((4, 2, 1), COPIES, [(4, 4, 4)], 20)]
    assert found.visible == pytest.approx(min(details), abs=1e-5)


def test_the_number_of_windows_stays_small():
    search = Search(Problem(spectrum_of(slow_cov(16)), FLOW, "euler", 12), COSTS)
    best = choose_windows(search, Setting((8, 4, 2, 1), "stride", "nearest", (), (3, 3, 3, 3)))
    assert len(best.setting.stage_fractions) == 4
