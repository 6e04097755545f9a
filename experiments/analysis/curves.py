"""What a run measured on its way: evaluation figures over samples, FLOPs and seconds."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics

FloatArray = NDArray[np.float64]

# axis -> field of a metrics line
AXES: dict[str, str] = {
    "samples": "samples_seen",
    "flops": "train_flops",
    "seconds": "train_seconds",
}
NETWORK = "network"
"""Axis of the network's FLOPs alone, where `flops` counts all that steps execute."""

_EVAL = "eval/"


class Curve(NamedTuple):
    """Evaluations of one run.

    Attributes:
        arm: name of the arm.
        seed: the run's seed.
        x: axis -> positions, increasing, [n].
        y: metric -> values at these positions, NaN where not finite, [n].
        results: content of results.json; None while the run is unfinished.
        steps: training steps done at these positions.
    """

    arm: str
    seed: int
    x: dict[str, FloatArray]
    y: dict[str, FloatArray]
    results: dict[str, Any] | None
    steps: tuple[int, ...] = ()

    def end(self, axis: str) -> float:
        """Return the last position, 0 without any evaluation."""
        return float(self.x[axis][-1]) if len(self.x[axis]) else 0.0


def read_curve(arm: str, seed: int, workdir: pathlib.Path) -> Curve:
    """Read the evaluations of a run; of several at one step the last counts."""
    results_file = workdir / "results.json"
    results = json.loads(results_file.read_text()) if results_file.is_file() else None
    return make_curve(arm, seed, read_metrics(workdir / METRICS_FILE), results)


def make_curve(
    arm: str, seed: int, lines: Iterable[Mapping[str, Any]], results: dict[str, Any] | None
) -> Curve:
    """Return the curve that lines of `metrics.jsonl` hold."""
    by_step = {line["step"]: line for line in lines if any(name.startswith(_EVAL) for name in line)}
    rows = [by_step[step] for step in sorted(by_step)]
    metrics = dict.fromkeys(name for row in rows for name in row if name.startswith(_EVAL))
    return Curve(
        arm,
        seed,
        x={axis: _column(rows, field) for axis, field in AXES.items()},
        y={name.removeprefix(_EVAL): _column(rows, name) for name in metrics},
        results=results,
        steps=tuple(sorted(by_step)),
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    values = [row.get(name) for row in rows]
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


def join_ends(curves: Sequence[Curve]) -> Curve | None:
    """Return one curve through the ends of runs that differ in length alone.

    Args:
        curves: of one arm and seed; those that have not finished are left out.

    Returns:
        The curve, with the results of the longest; None where no run has finished.
    """
    ended = [curve for curve in curves if curve.results is not None and curve.steps]
    ended.sort(key=lambda curve: curve.steps[-1])
    if not ended:
        return None
    metrics = dict.fromkeys(metric for curve in ended for metric in curve.y)
    nothing = np.asarray([np.nan])
    return ended[-1]._replace(
        x={axis: np.asarray([curve.x[axis][-1] for curve in ended]) for axis in ended[0].x},
        y={m: np.asarray([curve.y.get(m, nothing)[-1] for curve in ended]) for m in metrics},
        steps=tuple(curve.steps[-1] for curve in ended),
    )


def only_whole(curves: Sequence[Curve], num_steps: Mapping[str, int]) -> list[Curve]:
    """Return curves of which those that stop short of the arm's longest run are unfinished.

    Args:
        curves: joined ones, see `join_ends`.
        num_steps: arm -> steps of its longest planned run.
    """
    return [
        curve if curve.steps[-1] == num_steps[curve.arm] else curve._replace(results=None)
        for curve in curves
    ]


def finite_points(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the points with a finite value and a new position."""
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    is_new = np.diff(x, prepend=-np.inf) > 0
    return x[is_new], y[is_new]


def value_at(x: FloatArray, y: FloatArray, at: float) -> float | None:
    """Return the value at `at` on the straight line between its neighbours.

    Args:
        x: positions, increasing, [n].
        y: values, [n]; non-finite ones are left out.
        at: position asked for.

    Returns:
        The value, or None outside the measured range: nothing is extrapolated.
    """
    x, y = finite_points(x, y)
    if not len(x) or not x[0] <= at <= x[-1]:
        return None
    return float(np.interp(at, x, y))


def common_end(curves: Sequence[Curve], axis: str) -> float:
    """Return the largest position that every finished run has reached, 0 without any."""
    ends = [curve.end(axis) for curve in curves if curve.results is not None]
    return min(ends, default=0.0)
