"""Curves of a grid: thin lines are seeds, thick ones their mean where all seeds have values."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.analysis.curves import Curve, finite_points
from tpdiff_jax.report import style
from tpdiff_jax.report.formats import tick_text

_WIDTH = 4.9  # inches of one panel: three fill a page, and one the screen of a phone
_LABELS = {
    "samples": "videos seen",
    "flops": "training FLOP",
    "seconds": "training seconds",
}


def draw_curves(
    path: pathlib.Path,
    curves: Sequence[Curve],
    metrics: Sequence[str],
    references: Mapping[str, Mapping[str, float]],
    axes: Sequence[str] = ("flops", "seconds"),
) -> Figure | None:
    """Write one panel for each figure and axis, as PNG and SVG.

    Args:
        path: file without suffix.
        curves: the runs.
        metrics: figures, one row each.
        references: name -> figures of real, frozen and shuffled clips.
        axes: columns.

    Returns:
        What was drawn, or None when there was nothing to draw.
    """
    shown = [metric for metric in metrics if any(metric in curve.y for curve in curves)]
    if not shown:
        return None
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    with style.drawing():
        figure = Figure(figsize=(_WIDTH * len(axes), 2.8 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), len(axes), squeeze=False)
        for row, metric in zip(panels, shown, strict=True):
            for panel, axis in zip(row, axes, strict=True):
                for i, arm in enumerate(arms):
                    own = [curve for curve in curves if curve.arm == arm and metric in curve.y]
                    _draw_arm(panel, own, metric, axis, i, arm)
                _draw_references(panel, references, metric)
                panel.set(xlabel=_LABELS[axis], ylabel=metric)
                panel.xaxis.set_major_formatter(FuncFormatter(tick_text))
        style.draw_legend(figure, panels[0, 0])
        style.save(figure, path)
    return figure


def draw_speedups(
    path: pathlib.Path, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> Figure | None:
    """Write speed-ups over the target, one panel for each figure and axis, as PNG and SVG.

    Args:
        path: file without suffix.
        rows: of `arm`, `metric`, `axis` and `points`, each `share`, `ratio`, `low` and `high`.
        metrics: figures, one row of panels each.

    Returns:
        What was drawn, or None when there was nothing to draw.
    """
    shown = [metric for metric in metrics if any(row["metric"] == metric for row in rows)]
    if not shown:
        return None
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    with style.drawing():
        figure = Figure(figsize=(_WIDTH * len(_LABELS), 3.2 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), len(_LABELS), squeeze=False)
        for line, metric in zip(panels, shown, strict=True):
            for panel, axis in zip(line, _LABELS, strict=True):
                for row in rows:
                    if (row["metric"], row["axis"]) == (metric, axis):
                        _draw_ratios(panel, row, arms.index(row["arm"]))
                _finish_ratios(panel, f"{metric}\nratio of {_LABELS[axis]}")
        style.draw_legend(figure, panels[0, 0])
        style.save(figure, path)
    return figure


def _finish_ratios(panel: Axes, label: str) -> None:
    panel.axhline(1.0, color=style.LIGHT["soft"], linewidth=1.0)
    panel.set(xlabel="share of vanilla's budget that sets the target")
    panel.set(ylabel=label, yscale="log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(tick_text))


def _draw_ratios(panel: Axes, row: Mapping[str, Any], index: int) -> None:
    """A line of ratios with its intervals; bounds are arrows."""
    look = style.line_style(index)
    exact = [point for point in row["points"] if point["ratio"]["kind"] == "="]
    shares = [point["share"] for point in exact]
    values = [point["ratio"]["value"] for point in exact]
    panel.plot(shares, values, **look, markersize=3, label=row["arm"])
    known = [point for point in exact if point["low"] is not None]
    low, high = ([point[end] for point in known] for end in ("low", "high"))
    shade = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
    panel.fill_between([point["share"] for point in known], low, high, **shade)
    for kind, marker in (("<", 11), (">", 10)):  # carets that point down and up
        bounds = [point for point in row["points"] if point["ratio"]["kind"] == kind]
        at, ends = [p["share"] for p in bounds], [p["ratio"]["value"] for p in bounds]
        panel.plot(at, ends, color=look["color"], linestyle="", marker=marker, markersize=6)


def _draw_arm(
    panel: Axes, curves: Sequence[Curve], metric: str, axis: str, index: int, label: str
) -> None:
    look = style.line_style(index)
    points = [finite_points(curve.x[axis], curve.y[metric]) for curve in curves]
    points = [(x, y) for x, y in points if len(x)]
    for x, y in points:
        panel.plot(x, y, color=look["color"], linewidth=0.8, alpha=0.4)
    if not points:
        return
    start, end = max(x[0] for x, _ in points), min(x[-1] for x, _ in points)
    if start <= end:
        at = np.unique(np.concatenate([x for x, _ in points]))
        at = at[(at >= start) & (at <= end)]
        mean = np.mean([np.interp(at, x, y) for x, y in points], axis=0)
        panel.plot(at, mean, **look, linewidth=2.0, markersize=3.5, label=label)


def _draw_references(
    panel: Axes, references: Mapping[str, Mapping[str, float]], metric: str
) -> None:
    for name in style.REFERENCES:
        value = references.get(name, {}).get(metric)
        if value is not None:
            style.draw_level(panel, name, value, name)
