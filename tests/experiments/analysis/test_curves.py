"""Curves: interpolated within what was measured, never beyond."""

import numpy as np
import pytest

from experiments.analysis.curves import common_end, make_curve, value_at


def line(step, **figures):
    spent = {"samples_seen": 4 * step, "train_flops": 100.0 * step, "train_seconds": 0.5 * step}
    return {"step": step, **{f"eval/{name}": value for name, value in figures.items()}, **spent}


def test_values_lie_on_the_line_between_neighbours_and_nowhere_else():
    x, y = np.array([10.0, 20, 40]), np.array([1.0, 3, 2])
    assert value_at(x, y, 15) == pytest.approx(2.0)
    assert value_at(x, y, 30) == pytest.approx(2.5)
    assert value_at(x, y, 10) == 1.0
    assert value_at(x, y, 40) == 2.0
    assert value_at(x, y, 9.999) is None
    assert value_at(x, y, 40.001) is None
    assert value_at(np.array([]), np.array([]), 1.0) is None


def test_values_that_are_not_finite_are_left_out():
    x, y = np.array([1.0, 2, 3]), np.array([1.0, np.nan, 5])
    assert value_at(x, y, 2.0) == pytest.approx(3.0)
    assert value_at(x, np.array([np.nan] * 3), 2.0) is None


def test_a_curve_holds_the_evaluations_only_each_step_once():
    lines = [
        {"step": 1, "loss": 2.0},
        line(2, frechet=9.0),
        line(2, frechet=8.0),
        {"step": 3, "loss": 1.0},
        line(4, frechet=None, label_accuracy=0.5),
    ]
    curve = make_curve("a", 3, lines, None)
    assert curve.x["samples"].tolist() == [8, 16]
    assert curve.x["flops"].tolist() == [200, 400]
    assert curve.x["seconds"].tolist() == [1, 2]
    np.testing.assert_array_equal(curve.y["frechet"], [8.0, np.nan])
    np.testing.assert_array_equal(curve.y["label_accuracy"], [np.nan, 0.5])


def test_the_common_end_ignores_unfinished_runs():
    done = {"counts": {"steps": 1}}
    curves = [
        make_curve("a", 0, [line(10, frechet=1.0)], done),
        make_curve("b", 0, [line(8, frechet=1.0)], done),
        make_curve("c", 0, [line(2, frechet=1.0)], None),
    ]
    assert common_end(curves, "flops") == 800
    assert common_end(curves[2:], "flops") == 0
