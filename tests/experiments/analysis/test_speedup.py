"""Speed-ups of curves whose ratio is known in closed form, and their bounds."""

import math

import numpy as np
import pytest

from experiments.analysis.curves import Curve
from experiments.analysis.speedup import (
    Bounded,
    cost_at,
    crossing,
    divide,
    envelope,
    figure_to_cost,
    geometric_mean,
    speed_up,
)

LOWER = {"name": "frechet", "direction": "lower", "unit": "1"}
HIGHER = {"name": "label_accuracy", "direction": "higher", "unit": "share"}
POSITIONS = np.linspace(100.0, 1000.0, 10)


def curve(arm, cost, x=POSITIONS, seed=0, metric="frechet"):
    axes = {axis: np.asarray(x, float) for axis in ("samples", "flops", "seconds")}
    return Curve(arm, seed, axes, {metric: np.asarray(cost, float)}, {"counts": {"steps": 1}})


def power_law(x, speed, exponent=0.7):
    return 50.0 * (speed * x) ** -exponent


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.7, 2.5])
@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_a_power_law_gives_its_exact_ratio(speed, share):
    """Log-log interpolation is exact on power laws, off the measured positions too."""
    arm_x = np.linspace(37.0, 2000.0, 23)
    pairs = [(curve("a", power_law(POSITIONS, 1)), curve("b", power_law(arm_x, speed), arm_x))]
    found = speed_up(pairs, "frechet", LOWER, "flops", share)
    assert found.ratio.kind == "="
    assert found.ratio.value == pytest.approx(speed, rel=1e-9)
    assert found.baseline_x.value == pytest.approx(1000 * share)
    assert found.num_reached == found.num_seeds == 1
    assert found.low is None


def test_shares_count_as_distance_from_one():
    accuracy = 1 - power_law(POSITIONS, 1) / 10
    faster = 1 - power_law(POSITIONS, 1.5) / 10
    pairs = [
        (curve("a", accuracy, metric="label_accuracy"), curve("b", faster, metric="label_accuracy"))
    ]
    found = speed_up(pairs, "label_accuracy", HIGHER, "samples", 1.0)
    assert found.ratio.value == pytest.approx(1.5, rel=1e-9)


def test_an_arm_that_never_arrives_gives_a_bound():
    pairs = [(curve("a", power_law(POSITIONS, 1)), curve("b", power_law(POSITIONS, 0.5)))]
    found = speed_up(pairs, "frechet", LOWER, "flops", 1.0)
    assert found.arm_x == (pytest.approx(1000.0), ">")
    assert found.ratio == (pytest.approx(1.0), "<")
    assert found.num_reached == 0


def test_an_arm_that_arrives_before_its_first_evaluation_gives_a_bound():
    pairs = [(curve("a", power_law(POSITIONS, 1)), curve("b", power_law(POSITIONS, 30)))]
    found = speed_up(pairs, "frechet", LOWER, "flops", 1.0)
    assert found.arm_x.kind == "<"
    assert found.ratio.kind == ">"
    assert found.ratio.value == pytest.approx(10.0)


def test_seeds_give_the_interval_of_the_log_ratio():
    """Ratios 1.5, 2 and 8/3: geometric mean 2, t_2(0.975) = 4.30265 on logs of sd log(4/3)."""
    ratios = (1.5, 2.0, 8 / 3)
    arm_x = np.linspace(30.0, 1000.0, 12)
    pairs = [
        (curve("a", power_law(POSITIONS, 1), seed=i), curve("b", power_law(arm_x, r), arm_x, i))
        for i, r in enumerate(ratios)
    ]
    found = speed_up(pairs, "frechet", LOWER, "seconds", 0.75)
    half = 4.302652729911275 * math.log(4 / 3) / math.sqrt(3)
    assert found.ratio.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 * math.exp(-half))
    assert found.high == pytest.approx(2.0 * math.exp(half))


def test_a_seed_that_never_arrives_bounds_the_mean():
    pairs = [
        (curve("a", power_law(POSITIONS, 1)), curve("b", power_law(POSITIONS, speed)))
        for speed in (2.0, 0.5)
    ]
    found = speed_up(pairs, "frechet", LOWER, "flops", 1.0)
    assert found.ratio.kind == "<"
    assert found.ratio.value == pytest.approx(math.sqrt(2.0 * 1.0))
    assert (found.num_reached, found.num_seeds, found.low) == (1, 2, None)


@pytest.mark.parametrize(
    ("reached", "expected"),
    [("first", [9, 4, 4, 4, 2]), ("for_good", [math.inf, math.inf, math.inf, 6, 2])],
)
def test_envelopes_fall_and_what_is_not_finite_is_the_worst(reached, expected):
    """Either the best so far, or the worst from here on."""
    x, cost = envelope(np.array([1.0, 2, 3, 4, 5]), np.array([9.0, 4, np.nan, 6, 2]), reached)
    assert x.tolist() == [1, 2, 3, 4, 5]
    assert cost.tolist() == expected
    x, cost = envelope(np.array([1.0, np.nan, 2, 2]), np.array([9.0, 4, 3, 2]), reached)
    assert x.tolist() == [1, 2] and cost.tolist() == [9, 3]


@pytest.mark.parametrize("costs", [[math.nan] * 3, [8.0, 3.0, math.nan], [8.0, math.nan, math.inf]])
def test_a_seed_that_diverged_is_one_that_never_arrives(costs):
    x = [1.0, 2.0, 4.0]
    fine = (curve("a", [9.0, 6, 4], x), curve("b", [8.0, 4, 2], x))
    bad = (curve("a", [9.0, 6, 4], x), curve("b", costs, x))
    found = speed_up([fine, bad], "frechet", LOWER, "flops", 1.0, "for_good")
    assert (found.num_reached, found.num_seeds, found.low) == (1, 2, None)
    assert found.ratio == (pytest.approx(math.sqrt(2.0)), "<")  # 4 / 2, and at most 4 / 4


def test_a_baseline_that_diverged_sets_no_target():
    x = [1.0, 2.0, 4.0]
    pair = (curve("a", [9.0, 6, math.nan], x), curve("b", [8.0, 4, 2], x))
    assert speed_up([pair], "frechet", LOWER, "flops", 1.0, "for_good") is None
    assert speed_up([pair], "frechet", LOWER, "flops", 1.0, "first").baseline_x == (2.0, "=")


def test_a_target_that_is_met_after_a_figure_that_is_not_finite_is_a_bound():
    x, best = np.array([1.0, 2.0, 4.0]), np.array([math.inf, math.inf, 4.0])
    assert crossing(x, best, 5.0) == (4.0, "<")
    assert cost_at(x, best, 3.0) is None and cost_at(x, best, 4.0) == 4.0


def test_a_target_met_by_chance_and_lost_again_is_not_reached_for_good():
    """The arm starts below the target, rises above it, and falls twice as fast as the baseline."""
    chance = np.where(POSITIONS < 150, 0.1, power_law(POSITIONS, 2))
    pairs = [(curve("a", power_law(POSITIONS, 1)), curve("b", chance))]
    first = speed_up(pairs, "frechet", LOWER, "flops", 1.0)
    assert first.ratio == (pytest.approx(10.0), ">")
    for_good = speed_up(pairs, "frechet", LOWER, "flops", 1.0, "for_good")
    assert for_good.ratio == (pytest.approx(2.0), "=")


def test_the_first_arrival_counts_on_a_plateau():
    x, best = np.array([1.0, 2, 4, 8]), np.array([8.0, 4, 4, 4])
    assert crossing(x, best, 4.0) == (2.0, "=")
    assert cost_at(x, best, 6.0) == 4.0


def test_a_perfect_figure_is_met_on_a_line_straight_in_the_cost():
    """Between cost 4 at x = 1 and cost 0 at x = 16, cost 2 lies at x = 16^(1/2)."""
    x, best = np.array([1.0, 16.0]), np.array([4.0, 0.0])
    assert crossing(x, best, 2.0).value == pytest.approx(4.0)
    assert cost_at(x, best, 4.0) == pytest.approx(2.0)


def test_nothing_is_extrapolated():
    x, best = np.array([2.0, 4.0]), np.array([8.0, 4.0])
    assert cost_at(x, best, 1.9) is None
    assert cost_at(x, best, 4.1) is None
    assert crossing(x, best, 3.9) == (4.0, ">")
    assert crossing(x, best, 9.0) == (2.0, "<")


def test_bounds_of_a_ratio():
    exact, above, below = Bounded(6.0), Bounded(3.0, ">"), Bounded(3.0, "<")
    assert divide(exact, above) == (2.0, "<")
    assert divide(exact, below) == (2.0, ">")
    assert divide(below, exact) == (0.5, "<")
    assert divide(below, below).kind == "?"
    assert geometric_mean([above, below]).kind == "?"


def test_only_figures_with_a_direction_have_a_speed_up():
    values = np.array([0.25])
    assert figure_to_cost(values, HIGHER) == pytest.approx(0.75)
    for info in (
        {"name": "ink", "direction": "match", "unit": "ink"},
        {"name": "score", "direction": "higher", "unit": "1"},
    ):
        with pytest.raises(ValueError, match=f"no speed-up for {info['name']}"):
            figure_to_cost(values, info)
