"""Curves of a grid: thin lines are seeds, thick ones their mean where all seeds have values."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from experiments.curves import Curve, finite_points
from tpdiff_jax.durable_files import writing

_LABELS = {
    "samples": "videos seen",
    "flops": "training FLOP",
    "seconds": "training seconds",
}
_REFERENCES = {"ceiling": "--", "frozen": ":", "shuffled": "-."}


def draw_curves(
    path: pathlib.Path,
    curves: Sequence[Curve],
    metrics: Sequence[str],
    references: Mapping[str, Mapping[str, float]],
    axes: Sequence[str] = ("flops", "seconds"),
) -> None:
    """Write one panel for each figure and axis, as PNG and SVG.

    Args:
        path: file without suffix.
        curves: the runs.
        metrics: figures, one row each.
        references: name -> figures of real, frozen and shuffled clips.
        axes: columns.
    """
    shown = [metric for metric in metrics if any(metric in curve.y for curve in curves)]
    if not shown:
        return
    figure = Figure(figsize=(5.5 * len(axes), 2.8 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), len(axes), squeeze=False)
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    colours = colormaps["tab20" if len(arms) > 10 else "tab10"].colors  # type: ignore[attr-defined]
    for row, metric in zip(panels, shown, strict=True):
        for panel, axis in zip(row, axes, strict=True):
            for i, arm in enumerate(arms):
                own = [curve for curve in curves if curve.arm == arm and metric in curve.y]
                _draw_arm(panel, own, metric, axis, colours[i % len(colours)], arm)
            _draw_references(panel, references, metric)
            panel.set(xlabel=_LABELS[axis], ylabel=metric)
            panel.grid(alpha=0.3)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize="small")
    for suffix in (".png", ".svg"):
        with writing(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=120)


def draw_speedups(
    path: pathlib.Path, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> None:
    """Write speed-ups over the target, one panel for each figure and axis, as PNG and SVG.

    Args:
        path: file without suffix.
        rows: of `arm`, `metric`, `axis` and `points`, each `share`, `ratio`, `low` and `high`.
        metrics: figures, one row of panels each.
    """
    shown = [metric for metric in metrics if any(row["metric"] == metric for row in rows)]
    if not shown:
        return
    figure = Figure(figsize=(5.5 * len(_LABELS), 3.2 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), len(_LABELS), squeeze=False)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for line, metric in zip(panels, shown, strict=True):
        for panel, axis in zip(line, _LABELS, strict=True):
            for row in rows:
                if (row["metric"], row["axis"]) == (metric, axis):
                    _draw_ratios(panel, row, f"C{arms.index(row['arm'])}")
            panel.axhline(1.0, color="0.4", linewidth=1.0)
            panel.set(xlabel="target: vanilla's figure at this share of its budget")
            panel.set(ylabel=f"{metric}\nratio of {_LABELS[axis]}", yscale="log")
            for ticks in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
                ticks(FormatStrFormatter("%.3g"))
            panel.grid(alpha=0.3, which="both")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize="small")
    for suffix in (".png", ".svg"):
        with writing(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=120)


def _draw_ratios(panel: Axes, row: Mapping[str, Any], colour: str) -> None:
    """A line of ratios with its intervals; bounds are arrows."""
    exact = [point for point in row["points"] if point["ratio"]["kind"] == "="]
    shares = [point["share"] for point in exact]
    values = [point["ratio"]["value"] for point in exact]
    panel.plot(shares, values, color=colour, marker="o", markersize=3, label=row["arm"])
    known = [point for point in exact if point["low"] is not None]
    low, high = ([point[end] for point in known] for end in ("low", "high"))
    panel.fill_between([point["share"] for point in known], low, high, color=colour, alpha=0.15)
    for kind, marker in (("<", "v"), (">", "^")):
        bounds = [point for point in row["points"] if point["ratio"]["kind"] == kind]
        at = [point["share"] for point in bounds]
        panel.plot(at, [p["ratio"]["value"] for p in bounds], marker, color=colour, markersize=4)


def _draw_arm(
    panel: Axes, curves: Sequence[Curve], metric: str, axis: str, colour: Any, label: str
) -> None:
    points = [finite_points(curve.x[axis], curve.y[metric]) for curve in curves]
    points = [(x, y) for x, y in points if len(x)]
    for x, y in points:
        panel.plot(x, y, color=colour, linewidth=0.8, alpha=0.4)
    if not points:
        return
    start, end = max(x[0] for x, _ in points), min(x[-1] for x, _ in points)
    if start <= end:
        at = np.unique(np.concatenate([x for x, _ in points]))
        at = at[(at >= start) & (at <= end)]
        mean = np.mean([np.interp(at, x, y) for x, y in points], axis=0)
        panel.plot(at, mean, color=colour, linewidth=2.0, marker="o", markersize=2.5, label=label)


def _draw_references(
    panel: Axes, references: Mapping[str, Mapping[str, float]], metric: str
) -> None:
    for name, style in _REFERENCES.items():
        value = references.get(name, {}).get(metric)
        if value is not None:
            panel.axhline(value, color="0.4", linewidth=1.0, linestyle=style, label=name)
