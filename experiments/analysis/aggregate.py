"""From finished runs to one summary: figures at equal cost, differences over seeds, speed-ups."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.analysis.curves import AXES, NETWORK, Curve, common_end, value_at
from experiments.analysis.speedup import TARGET_SHARES, speed_up
from experiments.analysis.statistics import paired_difference, t_interval
from experiments.grid.arms import Arm

LEVELS = (0.25, 0.5, 0.75, 1.0)


def summarize(
    arms: Sequence[Arm],
    curves: Sequence[Curve],
    speedup_metrics: Sequence[str],
    reached: str = "first",
) -> dict[str, Any]:
    """Return everything that the tables and figures show, ready for JSON.

    Args:
        arms: what is compared, and with what.
        curves: one for each run that has measured anything.
        speedup_metrics: figures whose speed-up is asked for.
        reached: when a speed-up's target is, one of `speedup.REACHED`.

    Returns:
        `arms`, `equal` (axis -> tables at common positions), `speedups`, `references`,
        `metric_info`, `versions`, `device` and `curves`.

    Raises:
        ValueError: when a speed-up is asked for a figure that has none.
    """
    finished = [curve for curve in curves if curve.results is not None]
    facts = finished[0].results or {} if finished else {}
    info = facts.get("metric_info", {})
    baselines = {arm.name: arm.baseline for arm in arms if arm.baseline}
    return {
        "arms": [_arm_row(arm.name, curves) for arm in arms],
        "equal": {axis: equal_tables(curves, baselines, axis) for axis in AXES},
        "speedups": speedup_rows(
            curves, baselines, {m: info[m] for m in speedup_metrics if m in info}, reached
        ),
        "references": facts.get("references", {}),
        "metric_info": info,
        "versions": facts.get("versions", {}),
        "device": facts.get("device", {}),
        "curves": [_curve_row(curve) for curve in curves],
    }


def equal_tables(
    curves: Sequence[Curve], baselines: Mapping[str, str], axis: str
) -> list[dict[str, Any]]:
    """Return figures at common positions of one axis.

    The positions are shares of the largest one that every finished run has reached.

    Args:
        curves: the runs.
        baselines: arm -> the arm it is compared with.
        axis: "samples", "flops" or "seconds".

    Returns:
        For each position: `at`, `share`, `values` (arm -> metric -> interval over seeds) and
        `differences` (arm -> metric -> interval of the paired difference).
    """
    end = common_end(curves, axis)
    return [_equal_table(curves, baselines, axis, share, end) for share in LEVELS if end > 0]


def _equal_table(
    curves: Sequence[Curve], baselines: Mapping[str, str], axis: str, share: float, end: float
) -> dict[str, Any]:
    values: dict[str, dict[str, dict[int, float]]] = {}
    for curve in curves:
        for metric, y in curve.y.items():
            value = value_at(curve.x[axis], y, share * end)
            by_seed = values.setdefault(curve.arm, {}).setdefault(metric, {})
            if value is not None:
                by_seed[curve.seed] = value
    differences = {
        arm: {
            metric: _plain(paired_difference(by_seed, values[baseline].get(metric, {})))
            for metric, by_seed in values[arm].items()
        }
        for arm, baseline in baselines.items()
        if arm in values and baseline in values
    }
    shown = {
        arm: {metric: _plain(t_interval(list(v.values()))) for metric, v in metrics.items()}
        for arm, metrics in values.items()
    }
    return {"at": share * end, "share": share, "values": shown, "differences": differences}


def end_differences(
    curves: Sequence[Curve],
    baselines: Mapping[str, str],
    shares: Mapping[tuple[str, int], float],
) -> list[dict[str, Any]]:
    """Return how the ends of an arm's runs differ from the end of its baseline's.

    Args:
        curves: the runs; of several lengths, joined to one curve.
        baselines: arm -> the arm it is compared with.
        shares: (arm, steps) of every run -> its share of the cost of the baseline's run. Points of
            a curve that are no run's end do not count.

    Returns:
        For each arm and length: `arm`, `baseline`, `share` of the baseline's cost, and `metrics`:
        metric -> interval of the paired difference over seeds.
    """
    rows = []
    for arm, baseline in baselines.items():
        values: dict[int, dict[str, dict[int, float]]] = {}
        ends: dict[str, dict[int, float]] = {}
        for base, own in pairs_by_seed(curves, arm, baseline):
            for metric, y in base.y.items():
                ends.setdefault(metric, {})[base.seed] = y[-1]
            for point, steps in enumerate(own.steps):
                if (arm, steps) in shares:
                    at_end = values.setdefault(steps, {})
                    for metric, y in own.y.items():
                        at_end.setdefault(metric, {})[own.seed] = y[point]
        for steps, metrics in sorted(values.items()):
            differences = {
                metric: _plain(paired_difference(by_seed, ends.get(metric, {})))
                for metric, by_seed in metrics.items()
            }
            row = {"arm": arm, "baseline": baseline, "share": shares[arm, steps]}
            rows.append({**row, "metrics": differences})
    return rows


def speedup_rows(
    curves: Sequence[Curve],
    baselines: Mapping[str, str],
    infos: Mapping[str, Mapping[str, Any]],
    reached: str,
) -> list[dict[str, Any]]:
    """Return one row for each arm, figure, axis and target share; pairs share a seed."""
    rows = []
    is_counted = any(NETWORK in curve.x for curve in curves)
    axes = (NETWORK, *AXES) if is_counted else tuple(AXES)
    for arm, baseline in baselines.items():
        pairs = pairs_by_seed(curves, arm, baseline)
        for metric, info in infos.items():
            for axis in axes:
                for share in TARGET_SHARES:
                    found = speed_up(pairs, metric, info, axis, share, reached)
                    row = {"arm": arm, "baseline": baseline, "metric": metric, "axis": axis}
                    rows.append({**row, "share": share, **_plain_speedup(found)})
    return rows


def pairs_by_seed(curves: Sequence[Curve], arm: str, baseline: str) -> list[tuple[Curve, Curve]]:
    """Return (baseline, arm) of every seed of which both runs have finished."""
    runs = {(curve.arm, curve.seed): curve for curve in curves if curve.results is not None}
    seeds = [seed for name, seed in runs if name == arm and (baseline, seed) in runs]
    return [(runs[baseline, seed], runs[arm, seed]) for seed in seeds]


def _plain_speedup(found: Any) -> dict[str, Any]:
    if found is None:
        return {"ratio": None}
    return {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in found._asdict().items()}


def _plain(interval: Any) -> dict[str, Any] | None:
    return None if interval is None else interval._asdict()


def _arm_row(name: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Return what the finished runs of an arm took, and the figures they ended with."""
    own = [curve for curve in curves if curve.arm == name and curve.results is not None]
    metrics = dict.fromkeys(metric for curve in own for metric in curve.y)
    return {
        "arm": name,
        "seeds": [curve.seed for curve in own],
        **{axis: _plain(t_interval([curve.end(axis) for curve in own])) for axis in AXES},
        "steps": [(curve.results or {})["counts"]["steps"] for curve in own],
        "final": {
            metric: _plain(t_interval([c.y[metric][-1] for c in own if metric in c.y]))
            for metric in metrics
        },
    }


def _curve_row(curve: Curve) -> dict[str, Any]:
    return {
        "arm": curve.arm,
        "seed": curve.seed,
        "is_finished": curve.results is not None,
        "x": {axis: x.tolist() for axis, x in curve.x.items()},
        "y": {metric: y.tolist() for metric, y in curve.y.items()},
    }
