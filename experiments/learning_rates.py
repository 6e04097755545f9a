"""The learning rate of each arm, chosen by one sweep that is the same for all of them.

A sweep has a seed of its own: a rate must not be chosen on the runs that are then compared.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.analysis.curves import Curve
from experiments.analysis.speedup import figure_to_cost
from experiments.grid.arms import Arm, Grid

FIELD = "optim.learning_rate"


def sweep_grid(grid: Grid, arms: Sequence[Arm], rates: Sequence[float]) -> Grid:
    """Return a grid with one arm for each arm and rate, of the same budget."""
    names = dict.fromkeys([grid.reference, *(arm.name for arm in arms)])  # it sets the budget
    swept = tuple(
        dataclasses.replace(
            grid.arm(name),
            name=sweep_name(name, rate),
            overrides={**grid.arm(name).overrides, FIELD: rate},
            baseline=None,
        )
        for name in names
        for rate in rates
    )
    return Grid(arms=swept, reference=sweep_name(grid.reference, rates[0]))


def sweep_name(arm: str, rate: float) -> str:
    """Return the name of an arm of the sweep."""
    return f"{arm}_rate_{rate:g}"


def choose_rates(
    arms: Sequence[Arm],
    rates: Sequence[float],
    curves: Mapping[str, Curve],
    metric: str,
    info: Mapping[str, Any],
) -> dict[str, float]:
    """Return the rate of each arm whose run ended with the lowest cost.

    Args:
        arms: the arms.
        rates: what was tried; a run that failed or ended without a figure is never chosen.
        curves: name of an arm of the sweep -> its curve.
        metric: figure to choose by.
        info: its `name`, `direction` and `unit`.

    Raises:
        ValueError: when no run of an arm has the figure.
    """
    chosen = {}
    for arm in arms:
        tried = {rate: curves.get(sweep_name(arm.name, rate)) for rate in rates}
        costs = {rate: _last_cost(curve, metric, info) for rate, curve in tried.items()}
        chosen[arm.name] = min(rates, key=costs.__getitem__)
        if math.isinf(costs[chosen[arm.name]]):
            raise ValueError(f"the sweep of {arm.name} has no run that ended with {metric}")
    return chosen


def with_rates(arms: Sequence[Arm], chosen: Mapping[str, float]) -> list[Arm]:
    """Return the arms with their own learning rates."""
    return [
        dataclasses.replace(arm, overrides={**arm.overrides, FIELD: chosen[arm.name]})
        for arm in arms
    ]


def _last_cost(curve: Curve | None, metric: str, info: Mapping[str, Any]) -> float:
    if curve is None or curve.results is None or metric not in curve.y:
        return math.inf
    last = figure_to_cost(curve.y[metric][-1:], info)
    return float(last[0]) if len(last) and math.isfinite(last[0]) else math.inf
