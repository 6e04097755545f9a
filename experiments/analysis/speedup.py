"""How much sooner one arm reaches the quality of another.

Quality is a cost that falls to 0: the figure itself where lower is better, 1 - figure for shares
where higher is better. Curves become monotone envelopes and are interpolated log-log, in which a
power law is a straight line. An envelope is either the best so far, so that a target is reached at
its first crossing, or the worst from here on, so that it is reached for good: a young network's
noise can meet a target by chance and lose it again. A figure that is not finite is worse than any
number. The targets come from the baseline alone: its
envelope at fixed shares of its budget. Nothing is extrapolated; an arm that never reaches a
target has its end as a bound.

    speed-up at a target = x at which the baseline reaches it / x at which the arm reaches it
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis.curves import Curve, FloatArray, finite_points
from experiments.analysis.statistics import t_interval

TARGET_SHARES = (0.5, 0.75, 1.0)
REACHED = ("first", "for_good")


class Bounded(NamedTuple):
    """A number, or only that it is above (">") or below ("<") one; "?" is nothing known."""

    value: float
    kind: str = "="


class SpeedUp(NamedTuple):
    """Speed-up to one target over the seeds.

    Attributes:
        ratio: geometric mean; a bound where some seed has only a bound.
        low: lower end of the t interval on the log ratio; None where it is not known.
        high: upper end.
        baseline_x: geometric mean of where the baseline reaches its target.
        arm_x: of where the arm does.
        num_seeds: pairs of runs.
        num_reached: pairs whose arm reaches the target.
    """

    ratio: Bounded
    low: float | None
    high: float | None
    baseline_x: Bounded
    arm_x: Bounded
    num_seeds: int
    num_reached: int


def figure_to_cost(values: FloatArray, info: Mapping[str, Any]) -> FloatArray:
    """Return costs that are 0 for a perfect figure.

    Raises:
        ValueError: for a figure with no such reading.
    """
    if info["direction"] == "lower":
        return values
    if info["direction"] == "higher" and info["unit"] == "share":
        return 1.0 - values
    raise ValueError(
        f"no speed-up for {info['name']}: it must be lower-is-better or a higher-is-better share"
    )


def envelope(x: FloatArray, cost: FloatArray, reached: str) -> tuple[FloatArray, FloatArray]:
    """Return the best cost so far, or the worst from here on; infinite where it is not finite."""
    x, places = finite_points(x, np.arange(len(x), dtype=np.float64))
    cost = np.where(np.isfinite(cost), cost, np.inf)[places.astype(int)]
    if not len(cost):
        return x, cost
    best_so_far = np.minimum.accumulate(cost)
    return x, best_so_far if reached == "first" else np.maximum.accumulate(cost[::-1])[::-1]


def cost_at(x: FloatArray, best: FloatArray, at: float) -> float | None:
    """Return the envelope's cost at `at`; None outside the range with a finite one."""
    x, best = finite_points(x, best)
    if not len(x) or not x[0] <= at <= x[-1]:
        return None
    right = max(1, int(np.searchsorted(x, at))) if len(x) > 1 else 0
    left = max(0, right - 1)
    if at == x[right] or best[left] == best[right]:
        return float(best[right])
    share = math.log(at / x[left]) / math.log(x[right] / x[left])
    if best[right] <= 0:  # log-log has no line to a perfect figure
        return float(best[left] + share * (best[right] - best[left]))
    return float(best[left] * (best[right] / best[left]) ** share)


def crossing(x: FloatArray, best: FloatArray, target: float) -> Bounded:
    """Return where the envelope first reaches `target`."""
    if not len(x):
        return Bounded(math.nan, "?")
    if best[-1] > target:
        return Bounded(float(x[-1]), ">")
    right = int(np.argmax(best <= target))
    if best[right] == target:
        return Bounded(float(x[right]))
    if right == 0 or math.isinf(best[right - 1]):
        return Bounded(float(x[right]), "<")
    low, high = best[right], best[right - 1]
    if low > 0:
        share = math.log(high / target) / math.log(high / low)
    else:
        share = (high - target) / (high - low)
    return Bounded(float(x[right - 1] * (x[right] / x[right - 1]) ** share))


def divide(baseline: Bounded, arm: Bounded) -> Bounded:
    """Return `baseline / arm` with what is known of it."""
    flipped = {"=": "=", "<": ">", ">": "<", "?": "?"}[arm.kind]
    kinds = {baseline.kind, flipped} - {"="}
    kind = kinds.pop() if len(kinds) == 1 else ("?" if kinds else "=")
    return Bounded(baseline.value / arm.value, kind)


def geometric_mean(values: Sequence[Bounded]) -> Bounded:
    """Return the geometric mean; bounds of one direction bound it, mixed ones leave "?"."""
    kinds = {value.kind for value in values} - {"="}
    kind = kinds.pop() if len(kinds) == 1 else ("?" if kinds else "=")
    return Bounded(math.exp(math.fsum(math.log(v.value) for v in values) / len(values)), kind)


def speed_up(
    pairs: Sequence[tuple[Curve, Curve]],
    metric: str,
    info: Mapping[str, Any],
    axis: str,
    share: float,
    reached: str = "first",
) -> SpeedUp | None:
    """Return the speed-up of an arm to what its baseline reaches at `share` of its budget.

    Args:
        pairs: (baseline, arm) of equal seeds.
        metric: figure to reach.
        info: its `name`, `direction` and `unit`.
        axis: "samples", "flops" or "seconds".
        share: share of the baseline's own budget, in (0, 1].
        reached: one of `REACHED`, for baseline and arm alike.

    Returns:
        The speed-up; None when no baseline has a value there.
    """
    found = []
    for baseline, arm in pairs:
        if metric not in baseline.y or metric not in arm.y:
            continue
        x, best = envelope(baseline.x[axis], figure_to_cost(baseline.y[metric], info), reached)
        target = cost_at(x, best, share * x[-1]) if len(x) else None
        if target is not None:
            own_x, own = envelope(arm.x[axis], figure_to_cost(arm.y[metric], info), reached)
            found.append((crossing(x, best, target), crossing(own_x, own, target)))
    found = [(base, arm) for base, arm in found if arm.value > 0 and base.value > 0]
    if not found:
        return None
    ratios = [divide(base, arm) for base, arm in found]
    ratio = geometric_mean(ratios)
    logs = t_interval([math.log(r.value) for r in ratios]) if ratio.kind == "=" else None
    return SpeedUp(
        ratio=ratio,
        low=math.exp(logs.low) if logs and logs.low is not None else None,
        high=math.exp(logs.high) if logs and logs.high is not None else None,
        baseline_x=geometric_mean([base for base, _ in found]),
        arm_x=geometric_mean([arm for _, arm in found]),
        num_seeds=len(found),
        num_reached=sum(arm.kind != ">" for _, arm in found),
    )
